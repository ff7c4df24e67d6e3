"""torch's AdamW without the import of torch's compiler, which nothing here uses.

torch's optimisers import the compiler at their first call, to mark what it must not compile. Measured with torch 2.13
on CPU: 822 modules, 1.4 to 2.1 s of CPU time and 72 MB a process, before the first step; here 0.05 s and 1 module.
This class calls the same methods without torch's wrappers. A test checks that the steps have the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def _plain(method: Callable[..., Any]) -> Any:
    return getattr(method, "__wrapped__", method)


class AdamW(torch.optim.AdamW):
    """torch's AdamW, with the same arguments. Use torch's own class under ``torch.compile``."""

    add_param_group = _plain(torch.optim.Optimizer.add_param_group)
    zero_grad = _plain(torch.optim.Optimizer.zero_grad)
    state_dict = _plain(torch.optim.Optimizer.state_dict)
    load_state_dict = _plain(torch.optim.Optimizer.load_state_dict)
    step = torch.no_grad()(_plain(torch.optim.AdamW.step))
