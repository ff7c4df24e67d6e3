"""Windows over bars: cut them, split them by time, turn them into batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moola_mlflow.core import lazy_face

if TYPE_CHECKING:
    from moola_mlflow.windows.batches import Batch, BatchSource, fit_scaling
    from moola_mlflow.windows.feature_stats import FeatureStatistics, feature_statistics, input_scaling
    from moola_mlflow.windows.splits import Split, split_by_time
    from moola_mlflow.windows.windows import MINUTE_NS, Windows, check_drawn, make_windows, mirrored, with_weights

__all__, __getattr__, __dir__ = lazy_face(
    __name__,
    {
        "batches": ("Batch", "BatchSource", "fit_scaling"),
        "feature_stats": ("FeatureStatistics", "feature_statistics", "input_scaling"),
        "splits": ("Split", "split_by_time"),
        "windows": ("MINUTE_NS", "Windows", "check_drawn", "make_windows", "mirrored", "with_weights"),
    },
)
