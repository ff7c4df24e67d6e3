"""Features of price windows: causal, free of price scale, numpy alone."""

from moola_mlflow.features.relativity import (
    FEATURE_SETS,
    compute_features,
    compute_swings,
    feature_bounds,
    feature_names,
    flip_rate,
)
from moola_mlflow.features.zigzag import Hybrid, Swings

__all__ = [
    "FEATURE_SETS",
    "Hybrid",
    "Swings",
    "compute_features",
    "compute_swings",
    "feature_bounds",
    "feature_names",
    "flip_rate",
]
