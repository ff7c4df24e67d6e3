"""Batches of raw features and prices, computed from the bars when they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from moola_mlflow.features import (
    Hybrid,
    compute_features,
    compute_inputs,
    feature_names,
    flip_rate,
    input_names,
)
from moola_mlflow.windows.windows import Windows, mirrored

# Features are vectorised over windows, so windows are computed in chunks: a small batch then costs no more per window.
CHUNK = 2048
LARGEST_HELD = 2**30
"""Bytes of inputs that are held in memory on a CPU where price-path features make them dear to compute again."""


@dataclass(frozen=True)
class Batch:
    """One batch of windows.

    ``index`` holds the positions of the windows they came from. The first ``warmup`` steps never carry a loss.

    Shapes: x_BTF float32 raw inputs of the encoder; prices_BT4 float64 open, high, low, close; index [B].
    """

    x_BTF: Tensor
    prices_BT4: Tensor
    index: np.ndarray
    warmup: int

    def rows(self, rows: slice) -> Batch:
        """Return some of the windows."""
        return Batch(self.x_BTF[rows], self.prices_BT4[rows], self.index[rows], self.warmup)

    def valid_T(self) -> Tensor:
        """Return the steps that may carry a loss. Shapes: bool [T]."""
        return torch.arange(self.x_BTF.shape[1], device=self.x_BTF.device) >= self.warmup


@dataclass(frozen=True)
class BatchSource:
    """Turn positions of windows into batches on a device."""

    windows: Windows
    feature_set: str
    hybrid: Hybrid
    warmup: int
    device: torch.device
    resident: bool | None = None
    """Whether features and prices of all windows stay on the device. None: only on a GPU that has room for them."""

    inputs: str = "features"
    """What the encoder reads: features, price_path or both."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the relativity features, in the order of the last axis."""
        return feature_names(self.feature_set)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the encoder's inputs, in the order of the last axis of a batch."""
        return input_names(self.feature_set, self.inputs)

    def batches(
        self, order: np.ndarray, batch_size: int, first: int = 0, flipped: np.ndarray | None = None
    ) -> Iterator[Batch]:
        """Yield the windows of ``order`` in batches, starting with batch ``first``. The last batch may be smaller.

        Shapes: flipped bool [number of batches]: whether a batch's windows are turned upside down; None: none is.
        """
        chunk = max(1, CHUNK // batch_size) * batch_size
        for lo in range(first * batch_size, len(order), chunk):
            index = order[lo : lo + chunk]
            flip = None
            if flipped is not None:
                flip = np.repeat(flipped[lo // batch_size :][: chunk // batch_size], batch_size)[: len(index)]
            x, p = self._rows(index, flip)
            for i in range(0, len(index), batch_size):
                part = slice(i, i + batch_size)
                yield Batch(x[part], p[part], index[part], self.warmup)

    def _rows(self, index: np.ndarray, flip: np.ndarray | None) -> tuple[Tensor, Tensor]:
        """Return inputs and prices of some windows, some of them upside down. Shapes: index int [M], flip bool [M]."""
        if not self._held:
            return self._computed(index, flip)
        rows = self._there(torch.from_numpy(index))
        x, p = self._held[0][rows], self._held[1][rows]
        if flip is not None and flip.any():
            at = self._there(torch.from_numpy(np.flatnonzero(flip)))
            x[at], p[at] = self._held_flipped[rows[at]], mirrored(p[at])
        return x, p

    @cached_property
    def _held_flipped(self) -> Tensor:
        """Inputs of all windows upside down, on the device."""
        num = len(self.windows)
        parts = [np.arange(lo, min(lo + CHUNK, num)) for lo in range(0, num, CHUNK)]
        return torch.cat([self._computed(part, np.ones(len(part), bool))[0] for part in parts])

    @cached_property
    def _held(self) -> tuple[Tensor, Tensor] | None:
        """Features and prices of all windows on the device, or None if each epoch computes them again."""
        num, length = len(self.windows), self.windows.length
        size = num * length * (4 * len(self.input_names) + 8 * 4)
        resident = has_room(self.device, size) or (self.inputs != "features" and size <= LARGEST_HELD)
        if not (resident if self.resident is None else self.resident):
            return None
        x = torch.empty(num, length, len(self.input_names), device=self.device)
        p = torch.empty(num, length, 4, device=self.device, dtype=self._price_type)
        for lo in range(0, num, CHUNK):
            x[lo : lo + CHUNK], p[lo : lo + CHUNK] = self._computed(np.arange(lo, min(lo + CHUNK, num)))
        return x, p

    def _computed(self, index: np.ndarray, flip: np.ndarray | None = None) -> tuple[Tensor, Tensor]:
        prices = self.windows.gather(index)
        if flip is not None:
            prices = np.where(flip[:, None, None], mirrored(prices), prices)
        x = torch.from_numpy(compute_inputs(prices, self.feature_set, self.hybrid, self.inputs))
        return self._there(x), self._there(torch.from_numpy(prices).to(self._price_type))

    @property
    def _price_type(self) -> torch.dtype:
        # Apple's MPS has no float64. Only objectives read prices, and they use ratios of differences.
        return torch.float32 if self.device.type == "mps" else torch.float64

    def _there(self, x: Tensor) -> Tensor:
        """Return a tensor on the device. From pinned memory a GPU copies it while the host continues."""
        return x.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else x.to(self.device)

    def features(self, order: np.ndarray) -> np.ndarray:
        """Return the raw features of some windows. Shapes: float32 [len(order), T, F]."""
        out = np.empty((len(order), self.windows.length, len(self.names)), np.float32)
        for lo in range(0, len(order), CHUNK):
            part = order[lo : lo + CHUNK]
            out[lo : lo + CHUNK] = compute_features(self.windows.gather(part), self.feature_set, self.hybrid)
        return out

    def flip_rate(self) -> float:
        """Return the share of valid steps, over all windows, on which the zigzag's leg flips."""
        parts = np.array_split(np.arange(len(self.windows)), -(-len(self.windows) // CHUNK))
        rates = [flip_rate(self.windows.gather(part), self.warmup, self.hybrid) for part in parts]
        return float(np.average(rates, weights=[len(part) for part in parts]))


def has_room(device: torch.device, num_bytes: int) -> bool:
    """Return whether a GPU has twice as much free memory. On a CPU it is False: the bars are in memory already."""
    return device.type == "cuda" and 2 * num_bytes <= torch.cuda.mem_get_info(device)[0]


def fit_scaling(features_NTF: np.ndarray, warmup: int) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each feature over the valid steps. Shapes: [F], [F]."""
    valid = features_NTF[:, warmup:].reshape(-1, features_NTF.shape[-1])
    mean, std = valid.mean(axis=0, dtype=np.float64), valid.std(axis=0, dtype=np.float64)
    return torch.from_numpy(mean).float(), torch.from_numpy(std).float()
