"""The report on a loss that is not a finite number: where it happened, and which inputs may have caused it.

Shape legend: B windows, T steps, F features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from moola_mlflow.core import TrainingError
from moola_mlflow.models import Errors
from moola_mlflow.training.engine import Pretraining
from moola_mlflow.windows import Batch, BatchSource

NUM_WINDOWS, NUM_NAMED = 10, 3


class NumbersWrong(TrainingError):
    """A loss, gradient or score is not a finite number; ``diagnosis`` says where, as plain numbers and text."""

    def __init__(self, message: str, diagnosis: dict[str, Any]) -> None:
        super().__init__(message)
        self.diagnosis = diagnosis


@dataclass(frozen=True)
class FailedStep:
    """The step at which a loss or a gradient was not finite."""

    epoch: int
    step: int
    loss: float
    gradient_norm: float | None
    """None if it was not kept, as on a GPU."""


def diagnose(
    at: FailedStep,
    model: Pretraining,
    source: BatchSource,
    batch: Batch,
    make_generator: Callable[[], torch.Generator],
) -> dict[str, Any]:
    """Return the diagnosis of a batch: features, windows, gradients and weights.

    ``make_generator`` gives equal generators, so that all windows are scored on the same masks.
    """
    found = {
        **vars(at),
        "gradient_norms": gradient_norms(model.named_parameters()),
        "weights_not_finite": [name for name, p in model.named_parameters() if not bool(p.isfinite().all())],
        "features": features_of(model.encoder.standardise(batch.x_BTF), source.input_names),
        "windows": windows_of(
            batch, source.windows.start_ns, lambda one: model.objective(model.encoder, one, make_generator())
        ),
        "windows_in_batch": len(batch.index),
    }
    return dict(plain(found))


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
    """Return each feature's largest |z| in a batch and how many of its values are not finite, worst first."""
    flat = z_BTF.flatten(0, 1)
    bad = (~flat.isfinite()).sum(0).tolist()
    worst = flat.nan_to_num(0.0, math.inf, math.inf).abs().amax(0).tolist()
    rows = [{"name": n, "largest_z": w, "not_finite": b} for n, w, b in zip(names, worst, bad, strict=True)]
    return sorted(rows, key=lambda row: (-row["not_finite"], -row["largest_z"]))


@torch.no_grad()
def windows_of(batch: Batch, start_ns: np.ndarray, score: Callable[[Batch], Errors]) -> list[dict[str, Any]]:
    """Return the windows of a batch with the largest mean Huber and their start (UTC); infinite ones come first."""
    rows: list[dict[str, Any]] = []
    for i, position in enumerate(batch.index):
        one = batch.rows(slice(i, i + 1))
        rows.append(
            {
                "window": int(position),
                "starts": utc_minute(start_ns[position]),
                "huber": float(score(one).huber()),
                "input_is_finite": bool(one.x_BTF.isfinite().all()),
            }
        )
    finite = math.isfinite
    rows.sort(
        key=lambda row: (row["input_is_finite"], finite(row["huber"]), -row["huber"] if finite(row["huber"]) else 0.0)
    )
    return rows[:NUM_WINDOWS]


def utc_minute(time_ns: int) -> str:
    """Return a time as text, to the minute."""
    return str(np.datetime64(int(time_ns), "ns"))[:16]


def plain(value: Any) -> Any:
    """Return the value with numbers that are not finite as text: JSON has no NaN, and here NaN is the point."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def in_words(diagnosis: dict[str, Any], steps: int, times: tuple[str, str], advice: str) -> str:
    """Return a diagnosis in one sentence, which counts epochs and steps from 1.

    ``steps`` are those of an epoch, ``times`` the batch's first and last.
    """
    named = ", ".join(
        f"{row['name']} {float(row['largest_z']):.3g}"
        + (f" ({row['not_finite']} not finite)" if row["not_finite"] else "")
        for row in diagnosis["features"][:NUM_NAMED]
    )
    norm = "" if diagnosis["gradient_norm"] is None else f", gradient norm {float(diagnosis['gradient_norm']):.3g}"
    broken = [row["starts"] for row in diagnosis["windows"] if not row["input_is_finite"]]
    inputs = f"; input that is no number in the windows starting {', '.join(broken[:NUM_NAMED])}" if broken else ""
    return (
        f"loss is {diagnosis['loss']}{norm} at epoch {diagnosis['epoch'] + 1}, step {diagnosis['step'] + 1} of {steps} "
        f"(batch of {diagnosis['windows_in_batch']} windows starting {times[0]} to {times[1]} UTC){inputs}; largest "
        f"|z| of the input: {named}; {advice}"
    )
