"""Relativity features, the causal zigzag, price-path features and the feature quality report.

To add features, add a file to this folder that holds ``ROWS``, and name it in the set: ``relativity11+file``.
"""

from __future__ import annotations

from moola_mlflow.core import find_plugins
from moola_mlflow.features.inputs import EncoderInputs, FeatureChoice, compute_inputs, input_names
from moola_mlflow.features.price_path import PRICE_PATH_FEATURE_NAMES, price_path_features
from moola_mlflow.features.quality import Tally, check_quality, quality_metrics, quality_report, quality_table
from moola_mlflow.features.relativity import (
    FEATURE_SETS,
    Feature,
    State,
    compute_features,
    compute_swings,
    extend,
    feature_bounds,
    feature_names,
    flip_rate,
)
from moola_mlflow.features.zigzag import Hybrid, Swings

__all__ = [
    "FEATURE_SETS",
    "PRICE_PATH_FEATURE_NAMES",
    "EncoderInputs",
    "Feature",
    "FeatureChoice",
    "Hybrid",
    "State",
    "Swings",
    "Tally",
    "check_quality",
    "compute_features",
    "compute_inputs",
    "compute_swings",
    "feature_bounds",
    "feature_names",
    "flip_rate",
    "input_names",
    "price_path_features",
    "quality_metrics",
    "quality_report",
    "quality_table",
]

for _file, _rows in find_plugins(__name__, __path__, "ROWS").items():
    extend(_file, _rows)
