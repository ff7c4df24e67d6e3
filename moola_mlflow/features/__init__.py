"""Relativity features, the causal zigzag, price-path features and the feature quality report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moola_mlflow.core import lazy_face

if TYPE_CHECKING:
    from moola_mlflow.features.price_path import PATH_FEATURE_NAMES, path_features
    from moola_mlflow.features.quality import Tally, check_quality, quality_metrics, quality_report, quality_table
    from moola_mlflow.features.relativity import compute_features, feature_names, flip_rate
    from moola_mlflow.features.zigzag import Hybrid

__all__, __getattr__, __dir__ = lazy_face(
    __name__,
    {
        "price_path": ("PATH_FEATURE_NAMES", "path_features"),
        "quality": ("Tally", "check_quality", "quality_metrics", "quality_report", "quality_table"),
        "relativity": ("compute_features", "feature_names", "flip_rate"),
        "zigzag": ("Hybrid",),
    },
)
