"""Features of price windows: causal, free of price scale, numpy alone.

A new feature is one file in this folder with ``ROWS``, a tuple of ``Feature``; ``features.set`` adds it by the file's
name, as in ``relativity11+efficiency``.
"""

from moola_mlflow.core import find_plugins
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
    "Feature",
    "Hybrid",
    "State",
    "Swings",
    "compute_features",
    "compute_swings",
    "feature_bounds",
    "feature_names",
    "flip_rate",
]

for _file, _rows in find_plugins(__name__, __path__, "ROWS").items():
    extend(_file, _rows)
