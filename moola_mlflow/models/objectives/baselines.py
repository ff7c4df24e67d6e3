"""Predictions without a network, against which the skill of an objective is measured.

Shape legend: B windows, T steps, F features, K targets, M hidden steps in row-major order, S neighbours, P inputs;
z z-scored features, mask True at hidden steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

SIDE = 5


def _steps(mask_BT: Tensor) -> Tensor:
    return torch.arange(mask_BT.shape[1], device=mask_BT.device).expand_as(mask_BT)


def _previous_visible(mask_BT: Tensor) -> Tensor:
    """Return the last visible step at or before each step, -1 if there is none. Shapes: int64 [B, T]."""
    return _steps(mask_BT).masked_fill(mask_BT, -1).cummax(dim=1).values


def _take(z_BTF: Tensor, step_BT: Tensor) -> Tensor:
    return z_BTF.gather(1, step_BT[..., None].expand(-1, -1, z_BTF.shape[-1]))


def last_visible(z_BTF: Tensor, mask_BT: Tensor) -> Tensor:
    """Return the last visible value of every step; 0 (the mean) before the first. Shapes: [B, T, F]."""
    before_BT = _previous_visible(mask_BT)
    return torch.where((before_BT >= 0)[..., None], _take(z_BTF, before_BT.clamp(min=0)), torch.zeros_like(z_BTF))


def interpolate(z_BTF: Tensor, mask_BT: Tensor) -> Tensor:
    """Return the line between the visible neighbours; at an edge the nearest value. Shapes: [B, T, F]."""
    num_steps = mask_BT.shape[1]
    before_BT = _previous_visible(mask_BT)
    after_BT = num_steps - 1 - _previous_visible(mask_BT.flip(1)).flip(1)  # num_steps if there is none
    left_BT = torch.where(before_BT >= 0, before_BT, after_BT).clamp(0, num_steps - 1)
    right_BT = torch.where(after_BT < num_steps, after_BT, before_BT).clamp(0, num_steps - 1)
    weight_BT = (_steps(mask_BT) - left_BT) / (right_BT - left_BT).clamp(min=1)
    left_BTF, right_BTF = _take(z_BTF, left_BT), _take(z_BTF, right_BT)
    return left_BTF + (right_BTF - left_BTF) * weight_BT[..., None].to(z_BTF.dtype)


def neighbours(z_BTF: Tensor, mask_BT: Tensor) -> Tensor:
    """Return the features of the five nearest visible steps on each side of every hidden step, 0 if there are fewer.

    Shapes: [M, 10 * F].
    """
    _, num_steps, num_features = z_BTF.shape
    visible_BT = ~mask_BT
    position_BT = mask_BT.int().argsort(dim=1, stable=True)  # visible steps first, in time order
    num_visible_B = visible_BT.sum(1)
    rank_BT = visible_BT.cumsum(1)  # visible steps at or before each step
    window_M, step_M = mask_BT.nonzero(as_tuple=True)
    offset = torch.cat([torch.arange(-SIDE, 0), torch.arange(SIDE)]).to(mask_BT.device)
    slot_MS = rank_BT[window_M, step_M][:, None] + offset
    there_MS = (slot_MS >= 0) & (slot_MS < num_visible_B[window_M][:, None])
    near_MS = position_BT[window_M[:, None], slot_MS.clamp(0, num_steps - 1)]
    x_MSF = z_BTF[window_M[:, None], near_MS] * there_MS[..., None]
    return x_MSF.reshape(-1, 2 * SIDE * num_features)


def window_around(z_BTF: Tensor) -> Tensor:
    """Return each step's features and those of its five neighbours on each side, 0 outside the window.

    Shapes: [B, T, F] -> [B, T, 11 * F].
    """
    padded = torch.nn.functional.pad(z_BTF, (0, 0, SIDE, SIDE))
    return padded.unfold(1, 2 * SIDE + 1, 1).flatten(2)


class Ridge:
    """Ridge regression fitted on sums over batches, in float64 on the CPU.

    The penalty weighs as much as one observation: inputs are z-scored, so it only decides between equal solutions.
    """

    def __init__(self, penalty: float = 1.0) -> None:
        self.penalty = penalty
        self.gram: Tensor | None = None
        self.cross: Tensor | None = None
        self.weights: Tensor | None = None

    def add(self, x_MP: Tensor, y_MK: Tensor) -> None:
        """Add observations. Shapes: x_MP inputs, y_MK targets."""
        x = _with_one(x_MP.detach().cpu().double())
        gram, cross = x.T @ x, x.T @ y_MK.detach().cpu().double()
        self.gram = gram if self.gram is None else self.gram + gram
        self.cross = cross if self.cross is None else self.cross + cross

    def solve(self) -> None:
        """Fit the weights; the intercept is not penalised."""
        assert self.gram is not None, "add observations first"
        assert self.cross is not None
        penalty = torch.full((len(self.gram),), self.penalty, dtype=torch.float64)
        penalty[-1] = 0.0
        self.weights = torch.linalg.lstsq(self.gram + penalty.diag(), self.cross, driver="gelsd").solution

    def predict(self, x_MP: Tensor) -> Tensor:
        """Return predictions. Shapes: x_MP -> [M, K]."""
        assert self.weights is not None, "solve first"
        return _with_one(x_MP) @ self.weights.to(x_MP.dtype).to(x_MP.device)


def _with_one(x_MP: Tensor) -> Tensor:
    return torch.cat([x_MP, torch.ones_like(x_MP[:, :1])], dim=1)
