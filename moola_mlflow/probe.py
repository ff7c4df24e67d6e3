"""The label-free probe: what a ridge regression can read from a frozen encoding about the path around each step.

It asks for quantities that no objective trains on, at horizons that none uses, and is scored on held-out bars, beside
the same probe on the raw inputs and on the same network as it was initialised. Net moves and excursions are scored
apart: for the path objective they are nearly what it trains on, so they prove nothing about it.

Shape legend: N windows, T steps, D encoding size, K targets.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from moola_mlflow.batches import Batch, BatchSource
from moola_mlflow.encoders import Encoder
from moola_mlflow.objectives.path import median_range, running_max, shifted
from moola_mlflow.objectives.rulers import Ridge
from moola_mlflow.splits import Split

HORIZONS = (8, 16)
MAX_WINDOWS = 2000
BATCH = 256


def probe_targets(prices_BT4: Tensor) -> tuple[Tensor, Tensor]:
    """Return the probed quantities and, apart, the net moves and excursions; NaN where the horizon leaves the window.

    Past horizons are the bars t-k+1..t, future ones t+1..t+k. Realised volatility is the mean absolute close-to-close
    change within the horizon; a position runs from 0 (the horizon's first bar) to 1 (its last), the first of equals.

    Shapes: [B, T, 4] -> [B, T, 12], [B, T, 12]. Units: the window's median bar range; positions in 0..1.
    """
    _, high_BT, low_BT, close_BT = prices_BT4.unbind(-1)
    r_B1 = median_range(prices_BT4)
    step_BT = (close_BT - shifted(close_BT, -1)).abs()
    probed, path = [], []
    for k in HORIZONS:
        volatility_BT = _running_mean(step_BT, k) / r_B1
        places = [running_place(high_BT, k), running_place(-low_BT, k)]
        # A place means nothing in a window that never moves: r is NaN there.
        places = [place + 0 * r_B1 for place in places]
        net_BT = (close_BT - shifted(close_BT, -k)) / (r_B1 * k**0.5)
        highest_BT, lowest_BT = running_max(high_BT, k), -running_max(-low_BT, k)
        probed += [volatility_BT, *places, *(shifted(x_BT, k) for x_BT in (volatility_BT, *places))]
        path += [net_BT, shifted(net_BT, k)]
        path += [(x_BT - close_BT) / r_B1 for x_BT in (highest_BT, lowest_BT)]
        path += [(shifted(x_BT, k) - close_BT) / r_B1 for x_BT in (highest_BT, lowest_BT)]
    return torch.stack(probed, -1), torch.stack(path, -1)


def _running_mean(x_BT: Tensor, k: int) -> Tensor:
    out_BT = torch.full_like(x_BT, torch.nan)
    if k <= x_BT.shape[1]:
        out_BT[:, k - 1 :] = x_BT.unfold(1, k, 1).mean(-1)
    return out_BT


def running_place(x_BT: Tensor, k: int) -> Tensor:
    """Return where in the last ``k`` steps the maximum lies, 0 the first and 1 the last; NaN where there are fewer."""
    out_BT = torch.full_like(x_BT, torch.nan)
    if k <= x_BT.shape[1]:
        unfolded = x_BT.unfold(1, k, 1)
        # argmax promises nothing about ties; the first of equals is the first step that reaches the maximum.
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
        """What training added to the network as it was initialised."""
        return self.r2 - self.r2_random

    def metrics(self) -> dict[str, float]:
        """Return the figures under their metric names."""
        return {
            "probe/r2": self.r2,
            "probe/r2_random": self.r2_random,
            "probe/r2_inputs": self.r2_inputs,
            "probe/r2_gain": self.gain,
            "probe/r2_path": self.r2_path,
        }


@torch.no_grad()
def probe(encoder: Encoder, initial: Encoder, source: BatchSource, split: Split) -> ProbeScores:
    """Fit the ridges on training windows (at most 2,000, evenly spaced) and score them on the test windows."""
    train, test = (_spaced(part) for part in (split.train, split.test))
    readers = {"encoder": encoder, "random": initial, "inputs": None}
    scores = {name: _score(reader, source, train, test) for name, reader in readers.items()}
    return ProbeScores(scores["encoder"][0], scores["random"][0], scores["inputs"][0], scores["encoder"][1])


def frozen_copy(encoder: Encoder) -> Encoder:
    """Return the encoder as it is now, for a later comparison."""
    return copy.deepcopy(encoder).eval()


def _spaced(part: np.ndarray) -> np.ndarray:
    return part[np.linspace(0, len(part) - 1, min(len(part), MAX_WINDOWS)).astype(int)]


def _read(encoder: Encoder | None, batch: Batch) -> Tensor:
    """Return what the ridge reads at each step: the encoding, or the features themselves. Shapes: [B, T, P]."""
    return batch.x_BTF if encoder is None else encoder.eval()(batch.x_BTF).float()


def _score(encoder: Encoder | None, source: BatchSource, train: np.ndarray, test: np.ndarray) -> tuple[float, float]:
    ridges: list[Ridge] = []
    scale: tuple[Tensor, Tensor] | None = None
    for batch in source.batches(train, BATCH):
        x_BTP, y_BTK = _read(encoder, batch), torch.cat(probe_targets(batch.prices_BT4), -1).float()
        if scale is None:  # the ridge's penalty wants inputs of one size; the first batch gives it well enough
            x_MP = x_BTP[:, batch.warmup :].flatten(0, 1)
            scale = (x_MP.mean(0), x_MP.std(0).clamp(min=1e-6))
            ridges = [Ridge() for _ in range(y_BTK.shape[-1])]
        z_BTP = (x_BTP - scale[0]) / scale[1]
        for k, ridge in enumerate(ridges):
            there_BT = y_BTK[..., k].isfinite() & batch.valid_T()
            ridge.add(z_BTP[there_BT], y_BTK[..., k][there_BT][:, None])
    assert scale is not None, "a split is never empty"
    for ridge in ridges:
        ridge.solve()
    residual, total = (torch.zeros(len(ridges), dtype=torch.float64) for _ in range(2))
    count, mean = (torch.zeros(len(ridges), dtype=torch.float64) for _ in range(2))
    batches = list(source.batches(test, BATCH))
    for scoring in (False, True):  # first the mean of the held-out targets, then the sums of squares around it
        for batch in batches:
            y_BTK = torch.cat(probe_targets(batch.prices_BT4), -1).double()
            scored_BTP = (_read(encoder, batch) - scale[0]) / scale[1] if scoring else None
            for k, ridge in enumerate(ridges):
                there_BT = y_BTK[..., k].isfinite() & batch.valid_T()
                y_M = y_BTK[..., k][there_BT].cpu()
                if scored_BTP is None:
                    count[k] += len(y_M)
                    mean[k] += y_M.sum()
                else:
                    residual[k] += (ridge.predict(scored_BTP[there_BT])[:, 0].cpu() - y_M).square().sum()
                    total[k] += (y_M - mean[k] / count[k].clamp(min=1)).square().sum()
    r2 = torch.where(total > 0, 1 - residual / total.clamp(min=1e-30), torch.zeros_like(total))
    half = len(ridges) // 2
    return float(r2[:half].mean()), float(r2[half:].mean())
