"""torch's L-BFGS without the import of torch's compiler, which nothing here uses.

torch's optimisers import the compiler when they are made. Measured with torch 2.13: 0.9 s of CPU time in each process,
against 0.1 s for one fit of the prior reader. This class calls the same methods without torch's wrappers. A test checks
that the steps have the same bits. ``training.optimizer`` does this for AdamW.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def _plain(method: Callable[..., Any]) -> Any:
    return getattr(method, "__wrapped__", method)


class LBFGS(torch.optim.LBFGS):
    """torch's L-BFGS, with the same arguments. Use torch's own class under ``torch.compile``."""

    add_param_group = _plain(torch.optim.Optimizer.add_param_group)
    zero_grad = _plain(torch.optim.Optimizer.zero_grad)


def minimise(parameters: list[Tensor], loss: Callable[[], Tensor], iterations: int) -> None:
    """Minimise the loss; the parameters change in place."""
    optimizer = LBFGS(parameters, lr=1, max_iter=iterations, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        with torch.enable_grad():
            value = loss()
            value.backward()
        return float(value.detach())

    for parameter in parameters:
        parameter.requires_grad_()
    optimizer.step(closure)
    for parameter in parameters:
        parameter.requires_grad_(False)
