"""torch's AdamW without torch's compiler, which takes a second to import and which nothing here uses.

torch's optimisers import it at their first call, to tell it what not to compile. Here their methods are called past
those wrappers, and without gradients, as the wrapper of ``step`` would have it. A test holds the steps to the same
bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def _plain(method: Callable[..., Any]) -> Any:
    return getattr(method, "__wrapped__", method)


class AdamW(torch.optim.AdamW):
    """As torch's, with its arguments; under ``torch.compile`` take torch's own."""

    add_param_group = _plain(torch.optim.Optimizer.add_param_group)
    zero_grad = _plain(torch.optim.Optimizer.zero_grad)
    state_dict = _plain(torch.optim.Optimizer.state_dict)
    load_state_dict = _plain(torch.optim.Optimizer.load_state_dict)
    step = torch.no_grad()(_plain(torch.optim.AdamW.step))
