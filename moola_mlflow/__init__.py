"""moola_mlflow: from one-minute futures bars to a promoted encoder and a calibrated pattern detector.

The names below are loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moola_mlflow.bars import Bars, read_bars
    from moola_mlflow.config import BarsConfig
    from moola_mlflow.embedding import embed
    from moola_mlflow.features import compute_features
    from moola_mlflow.registry import load_detector, load_encoder
    from moola_mlflow.study.rebuild import load_study
    from moola_mlflow.windows import Windows, make_windows

__version__ = "0.1.0"

__all__ = [
    "Bars",
    "BarsConfig",
    "Windows",
    "compute_features",
    "embed",
    "load_detector",
    "load_encoder",
    "load_study",
    "make_windows",
    "read_bars",
]

_HOME = {
    "Bars": "bars",
    "BarsConfig": "config",
    "Windows": "windows",
    "compute_features": "features",
    "embed": "embedding",
    "load_detector": "registry",
    "load_encoder": "registry",
    "load_study": "study.rebuild",
    "make_windows": "windows",
    "read_bars": "bars",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'moola_mlflow' has no attribute '{name}'")
    return getattr(importlib.import_module(f"moola_mlflow.{_HOME[name]}"), name)
