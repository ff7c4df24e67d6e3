"""The optimiser takes torch's own steps, and leaves torch's compiler where it is."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from moola_mlflow.training.optimizer import AdamW


def trained(kind: type[torch.optim.AdamW], fused: bool) -> tuple[torch.Tensor, dict]:
    torch.manual_seed(3)
    network = nn.LSTM(4, 8)
    optimizer = kind(network.parameters(), lr=1e-2, weight_decay=1e-2, fused=fused)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))
    for _ in range(6):
        network(torch.randn(7, 2, 4))[0].square().mean().backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert all(p.requires_grad for p in network.parameters())
    return torch.cat([p.detach().flatten() for p in network.parameters()]), optimizer.state_dict()


@pytest.mark.parametrize("fused", [True, False])
def test_its_steps_are_torchs_to_the_bit(fused: bool) -> None:
    (own, own_state), (theirs, their_state) = trained(AdamW, fused), trained(torch.optim.AdamW, fused)
    assert torch.equal(own, theirs)
    assert own_state["param_groups"] == their_state["param_groups"]
    for key, state in their_state["state"].items():
        assert all(torch.equal(own_state["state"][key][name], value) for name, value in state.items())


def test_a_pretraining_imports_neither_torchs_compiler_nor_its_symbolic_shapes(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from moola_mlflow import cli\n"
        "code = cli.run_cli(sys.argv[1:])\n"
        "print(sorted({'torch._dynamo', 'sympy'} & set(sys.modules)))\n"
        "sys.exit(code)"
    )
    words = ["--bars.sample_bars=12000", "--encoder.hidden=4", "--epochs=1", "--register=none"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{tmp_path}/mlflow.db"
    done = subprocess.run(
        [sys.executable, "-c", code, "pretrain", *words],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "[]"
