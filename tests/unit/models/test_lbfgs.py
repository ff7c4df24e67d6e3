"""L-BFGS takes torch's own steps, and leaves torch's compiler where it is."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from moola_mlflow.models.lbfgs import LBFGS, minimise

TARGET = torch.tensor([1.0, -2.0, 0.5])


def loss(x: torch.Tensor) -> torch.Tensor:
    return ((x - TARGET) ** 4).sum() + (x[0] * x[1]).square()


def stepped(kind: type[torch.optim.LBFGS]) -> torch.Tensor:
    x = torch.zeros(3, requires_grad=True)
    optimizer = kind([x], lr=1, max_iter=7, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        value = loss(x)
        value.backward()
        return float(value.detach())

    for _ in range(3):
        optimizer.step(closure)
    return x.detach()


def test_its_steps_are_torchs_to_the_bit() -> None:
    assert torch.equal(stepped(LBFGS), stepped(torch.optim.LBFGS))


@torch.no_grad()
def test_a_loss_is_minimised_in_place_without_gradients_around_it() -> None:
    x = torch.zeros(3)
    minimise([x], lambda: (x - TARGET).square().sum(), 40)
    assert x.tolist() == pytest.approx(TARGET.tolist(), abs=1e-5)
    assert not x.requires_grad


def test_a_fit_does_not_import_torchs_compiler() -> None:
    code = (
        "import sys, torch\n"
        "from moola_mlflow.models.lbfgs import minimise\n"
        "x = torch.zeros(3)\n"
        "minimise([x], lambda: (x - 1).square().sum(), 9)\n"
        "print(x.tolist(), sorted({'torch._dynamo', 'sympy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["[1.0,", "1.0,", "1.0]", "[]"], done.stderr[-3000:]
