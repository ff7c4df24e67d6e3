"""Numbers gone wrong: where a loss stopped being finite, and what may have done it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from moola_mlflow.core import TrainingError
from moola_mlflow.models import Errors
from moola_mlflow.windows import Batch

NUM_WINDOWS, NUM_NAMED = 10, 3


class NumbersWrong(TrainingError):
    """A loss, gradient or score that is no finite number; ``diagnosis`` says where, as plain numbers and text."""

    def __init__(self, message: str, diagnosis: dict[str, Any]) -> None:
        super().__init__(message)
        self.diagnosis = diagnosis


def gradient_norms(named: Iterable[tuple[str, nn.Parameter]]) -> dict[str, float]:
    """Return the gradient's norm of each group of parameters: a layer, a decoder, or a parameter of its own."""
    squares: dict[str, float] = {}
    for name, parameter in named:
        if parameter.grad is not None:
            group = name.rpartition(".")[0] if parameter.ndim else name
            gradient = parameter.grad.cpu().double()  # on the CPU: MPS has no float64
            squares[group] = squares.get(group, 0.0) + float(gradient.square().sum())
    return {group: math.sqrt(square) for group, square in squares.items()}


@torch.no_grad()
def features_of(z_BTF: Tensor, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return, for each feature of a batch, its largest |z| and how many values are no finite numbers, worst first."""
    flat = z_BTF.flatten(0, 1)
    bad = (~flat.isfinite()).sum(0).tolist()
    worst = flat.nan_to_num(0.0, math.inf, math.inf).abs().amax(0).tolist()
    rows = [{"name": n, "largest_z": w, "not_finite": b} for n, w, b in zip(names, worst, bad, strict=True)]
    return sorted(rows, key=lambda row: (-row["not_finite"], -row["largest_z"]))


@torch.no_grad()
def windows_of(batch: Batch, start_ns: np.ndarray, score: Callable[[Batch], Errors]) -> list[dict[str, Any]]:
    """Return the windows of a batch with the largest mean Huber, infinite ones first, by their start (UTC)."""
    rows: list[dict[str, Any]] = []
    for i, position in enumerate(batch.index):
        one = batch.rows(slice(i, i + 1))
        rows.append(
            {
                "window": int(position),
                "starts": str(np.datetime64(int(start_ns[position]), "ns"))[:16],
                "huber": float(score(one).huber()),
                "input_is_finite": bool(one.x_BTF.isfinite().all()),
            }
        )
    finite = math.isfinite
    rows.sort(
        key=lambda row: (row["input_is_finite"], finite(row["huber"]), -row["huber"] if finite(row["huber"]) else 0.0)
    )
    return rows[:NUM_WINDOWS]


def describe(
    *,
    where: dict[str, int],
    loss: float,
    norm: float | None,
    model: nn.Module,
    batch: Batch,
    z_BTF: Tensor,
    names: tuple[str, ...],
    start_ns: np.ndarray,
    score: Callable[[Batch], Errors],
) -> dict[str, Any]:
    """Return the diagnosis of a batch: features, windows, gradients, weights."""
    found = {
        **where,
        "loss": loss,
        "gradient_norm": norm,
        "gradient_norms": gradient_norms(model.named_parameters()),
        "weights_not_finite": [name for name, p in model.named_parameters() if not bool(p.isfinite().all())],
        "features": features_of(z_BTF, names),
        "windows": windows_of(batch, start_ns, score),
        "windows_in_batch": len(batch.index),
    }
    return dict(plain(found))


def plain(value: Any) -> Any:
    """Return the value with figures that are not finite as text: JSON knows none, and here they are the point."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def in_words(diagnosis: dict[str, Any], steps: int, times: tuple[str, str], cure: str) -> str:
    """Return a diagnosis in one sentence."""
    named = ", ".join(
        f"{row['name']} {float(row['largest_z']):.3g}"
        + (f" ({row['not_finite']} not finite)" if row["not_finite"] else "")
        for row in diagnosis["features"][:NUM_NAMED]
    )
    norm = "" if diagnosis["gradient_norm"] is None else f", gradient norm {float(diagnosis['gradient_norm']):.3g}"
    broken = [row["starts"] for row in diagnosis["windows"] if not row["input_is_finite"]]
    inputs = f"; input that is no number in the windows starting {', '.join(broken[:NUM_NAMED])}" if broken else ""
    return (
        f"loss is {diagnosis['loss']}{norm} at epoch {diagnosis['epoch']}, step {diagnosis['step']} of {steps} "
        f"(batch of {diagnosis['windows_in_batch']} windows starting {times[0]} to {times[1]} UTC){inputs}; largest "
        f"|z| of the input: {named}; {cure}"
    )
