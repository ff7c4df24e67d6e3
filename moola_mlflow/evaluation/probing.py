"""The label-free probe: what a ridge regression reads from a frozen encoding about the price path around each step.

The regression predicts quantities that no objective trains on, at horizons that no objective uses, and is scored on
held-out bars. The same probe on the raw inputs and on the network with its initial weights gives the comparison. Net
moves and excursions are scored apart: they are close to the targets of the price-path objective.

Shape legend: N windows, T steps, D encoding size, K targets.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moola_mlflow.core import Metrics
from moola_mlflow.models import Encoder, Ridge, median_range, running_max, shifted
from moola_mlflow.windows import Batch, BatchSource, Split

HORIZONS = (8, 16)
MAX_WINDOWS = 1000
BATCH = 256
PROBED = ("volatility", "place_high", "place_low")
PATH = ("net", "high", "low")
NAMES = tuple(f"{what}_{when}_{k}" for k in HORIZONS for when in ("past", "next") for what in (*PROBED, *PATH))
IS_PATH = torch.tensor([name.split("_")[0] in PATH for name in NAMES])
GROUPS = {
    tail: torch.tensor([i for i, name in enumerate(NAMES) if name.endswith(tail)])
    for tail in (f"{when}_{k}" for k in HORIZONS for when in ("past", "next"))
}
"""Targets of one horizon and side are missing at the same steps, so each group shares one regression."""


def probe_targets(prices_BT4: Tensor) -> Tensor:
    """Return the probed quantities in the order of ``NAMES``, NaN if the horizon leaves the window.

    Past horizons are the bars t-k+1..t, future ones t+1..t+k. Realised volatility is the mean absolute close-to-close
    change within the horizon. A place is the position of the extreme, 0 at the horizon's first bar and 1 at its last;
    of equal extremes the first counts.

    Shapes: [B, T, 4] -> [B, T, 24]. Units: the window's median bar range (net moves per square root of the bars);
    places in 0..1.
    """
    _, high_BT, low_BT, close_BT = prices_BT4.unbind(-1)
    r_B1 = median_range(prices_BT4)
    step_BT = (close_BT - shifted(close_BT, -1)).abs()
    columns = []
    for k in HORIZONS:
        within = [_running_mean(step_BT, k) / r_B1, running_place(high_BT, k), running_place(-low_BT, k)]
        within = [x_BT + 0 * r_B1 for x_BT in within]  # in a window that never moves r is NaN, and no place is defined
        net_BT = (close_BT - shifted(close_BT, -k)) / (r_B1 * k**0.5)
        extremes = [running_max(high_BT, k), -running_max(-low_BT, k)]
        columns += [*within, net_BT, *((x_BT - close_BT) / r_B1 for x_BT in extremes)]
        columns += [shifted(x_BT, k) for x_BT in (*within, net_BT)]
        columns += [(shifted(x_BT, k) - close_BT) / r_B1 for x_BT in extremes]
    return torch.stack(columns, -1)


def _running_mean(x_BT: Tensor, k: int) -> Tensor:
    out_BT = torch.full_like(x_BT, torch.nan)
    if k <= x_BT.shape[1]:
        out_BT[:, k - 1 :] = x_BT.unfold(1, k, 1).mean(-1)
    return out_BT


def running_place(x_BT: Tensor, k: int) -> Tensor:
    """Return where in the last ``k`` steps the maximum lies, 0 for the first and 1 for the last; NaN before step k."""
    out_BT = torch.full_like(x_BT, torch.nan)
    if k <= x_BT.shape[1]:
        unfolded = x_BT.unfold(1, k, 1)
        # argmax does not say which of equal maxima it returns; this is the first.
        first = (unfolded == unfolded.amax(-1, keepdim=True)).to(torch.uint8).cumsum(-1).eq(0).sum(-1)
        out_BT[:, k - 1 :] = first.to(x_BT.dtype) / (k - 1)
    return out_BT


@dataclass(frozen=True)
class ProbeScores:
    """Mean held-out R2 over the probed quantities, and over the path quantities for the encoder."""

    r2: float
    r2_random: float
    r2_inputs: float
    r2_path: float

    @property
    def gain(self) -> float:
        """Gain over the same network with its initial weights."""
        return self.r2 - self.r2_random

    def metrics(self) -> dict[str, float]:
        """Return the scores by metric name."""
        return {
            Metrics.PROBE_R2: self.r2,
            Metrics.PROBE_R2_RANDOM: self.r2_random,
            Metrics.PROBE_R2_INPUTS: self.r2_inputs,
            Metrics.PROBE_R2_GAIN: self.gain,
            Metrics.PROBE_R2_PATH: self.r2_path,
        }


@torch.no_grad()
def probe(
    encoder: Encoder,
    initial: Encoder,
    source: BatchSource,
    split: Split,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> ProbeScores:
    """Fit ridge regressions on training windows and score them on test windows, at most 1,000 of each, evenly spaced.

    ``autocast`` sets the precision of the networks.
    """
    train, test = (_spaced(part) for part in (split.train, split.test))
    readers = {"encoder": encoder, "random": initial, "inputs": None}
    with autocast():
        scores = {name: _score(reader, source, train, test) for name, reader in readers.items()}
    return ProbeScores(scores["encoder"][0], scores["random"][0], scores["inputs"][0], scores["encoder"][1])


def frozen_copy(encoder: Encoder) -> Encoder:
    """Return a copy of the encoder as it is now, for a later comparison."""
    return copy.deepcopy(encoder).eval()


def _spaced(part: np.ndarray) -> np.ndarray:
    return part[np.linspace(0, len(part) - 1, min(len(part), MAX_WINDOWS)).astype(int)]


def _score(encoder: Encoder | None, source: BatchSource, train: np.ndarray, test: np.ndarray) -> tuple[float, float]:
    """Return the mean held-out R2 over the probed quantities, and over the path quantities."""
    ridges = {group: Ridge() for group in GROUPS}
    for batch in source.batches(train, BATCH):
        for group, x_MP, y_MK in _grouped(encoder, batch):
            ridges[group].add(x_MP, y_MK)
    for ridge in ridges.values():
        ridge.solve()
    count_K, sum_K, square_K, residual_K = (torch.zeros(len(NAMES), dtype=torch.float64) for _ in range(4))
    for batch in source.batches(test, BATCH):
        for group, x_MP, y_MK in _grouped(encoder, batch):
            at = GROUPS[group]
            error_MK = ridges[group].predict(x_MP).double() - y_MK
            count_K[at] += len(y_MK)
            sum_K[at] += y_MK.sum(0)
            square_K[at] += y_MK.square().sum(0)
            residual_K[at] += error_MK.square().sum(0)
    total_K = square_K - sum_K.square() / count_K.clamp(min=1)
    r2_K = torch.where(total_K > 0, 1 - residual_K / total_K.clamp(min=1e-30), torch.zeros_like(total_K))
    return float(r2_K[~IS_PATH].mean()), float(r2_K[IS_PATH].mean())


def _grouped(encoder: Encoder | None, batch: Batch) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield the inputs and targets of each horizon and side, at the steps that have targets.

    Both are on the CPU like the regressions: MPS has no float64.

    Shapes: inputs [M, P], targets float64 [M, K_group].
    """
    x_BTP = (batch.x_BTF if encoder is None else encoder.eval()(batch.x_BTF).float()).cpu()
    y_BTK, valid_T = probe_targets(batch.prices_BT4).cpu().double(), batch.valid_T().cpu()
    for group, at in GROUPS.items():
        part_BTK = y_BTK[..., at]
        there_BT = part_BTK.isfinite().all(-1) & valid_T
        yield group, x_BTP[there_BT], part_BTK[there_BT]
