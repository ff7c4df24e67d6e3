"""Feature statistics of all windows without holding them all in memory.

Most figures are exact and computed in a stream. Quantiles and histograms come from a sample of windows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moola_mlflow.features import Tally, compute_features, price_path_features, quality_report
from moola_mlflow.windows.batches import CHUNK, BatchSource, fit_scaling

SAMPLE = 16_384
"""Number of windows in the sample, evenly spaced: about 80 MB. With fewer windows, every figure is exact."""


@dataclass(frozen=True)
class FeatureStatistics:
    """Statistics of the features of some windows. Shapes: features float32 [N, T, F], all windows or a sample."""

    source: BatchSource
    features: np.ndarray
    tally: Tally | None
    """Figures over all windows, or None if ``features`` holds all windows."""

    def report(self, swing_flip_rate: float, reference: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the feature quality report. With ``reference``, an earlier report, it holds the drift against it."""
        names, warmup = self.source.names, self.source.warmup
        return quality_report(self.features, names, warmup, swing_flip_rate, reference, self.tally)

    def scaling(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of each feature over the valid steps. Shapes: [F], [F]."""
        if self.tally is None:
            return fit_scaling(self.features, self.source.warmup)
        mean, std = self.tally.mean_and_std()
        return torch.from_numpy(mean).float(), torch.from_numpy(std).float()


def feature_statistics(source: BatchSource, order: np.ndarray) -> FeatureStatistics:
    """Compute the feature statistics of some windows. Shapes: order int [N], positions of windows."""
    if len(order) <= SAMPLE:
        return FeatureStatistics(source, source.features(order), None)
    kept = np.linspace(0, len(order) - 1, SAMPLE).astype(np.int64)
    sample = np.empty((SAMPLE, source.windows.length, len(source.names)), np.float32)
    tally = Tally(source.names, source.warmup)
    for lo in range(0, len(order), CHUNK):
        part = order[lo : lo + CHUNK]
        features = compute_features(source.windows.gather(part), source.feature_set, source.hybrid)
        tally.add(features)
        first, last = np.searchsorted(kept, [lo, lo + len(part)])
        sample[first:last] = features[kept[first:last] - lo]
    return FeatureStatistics(source, sample, tally)


def input_scaling(statistics: FeatureStatistics, order: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each of the encoder's inputs over the valid steps of some windows.

    Those of the relativity features come from ``statistics``, which hold the same windows.

    Shapes: order int [N] -> [P], [P].
    """
    source = statistics.source
    parts = [statistics.scaling()] if source.inputs != "price_path" else []
    if source.inputs != "features":
        count, total, square = 0, np.zeros(1), np.zeros(1)
        for lo in range(0, len(order), CHUNK):
            x_NTP = price_path_features(source.windows.gather(order[lo : lo + CHUNK]))[:, source.warmup :]
            x_MP = x_NTP.reshape(-1, x_NTP.shape[-1]).astype(np.float64)
            count, total, square = count + len(x_MP), total + x_MP.sum(0), square + (x_MP**2).sum(0)
        mean = total / count
        std = np.sqrt(np.maximum(square / count - mean**2, 0))
        parts.append((torch.from_numpy(mean).float(), torch.from_numpy(std).float()))
    means, stds = zip(*parts, strict=True)
    return torch.cat(means), torch.cat(stds)
