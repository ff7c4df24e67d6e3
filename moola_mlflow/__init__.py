"""moola_mlflow: from one-minute futures bars to a promoted encoder and a calibrated pattern detector.

    import moola_mlflow as moola

    bars = moola.read_bars(moola.BarsConfig(path="bars.parquet"))
    windows = moola.make_windows(bars)
    encoder = moola.load_encoder("models:/moola-encoder@candidate")
    embeddings = moola.embed(encoder, windows.gather([0, 1, 2]))
    hits = moola.detect(bars, moola.load_detector("models:/moola-detector@candidate"))

The names below are loaded on first use, so that importing the package costs nothing: neither torch nor MLflow is
loaded before a name that needs it. ``features`` and ``windows`` are modules.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moola_mlflow.bars import Bars, read_bars
    from moola_mlflow.core import BarsConfig
    from moola_mlflow.features import compute_features
    from moola_mlflow.models import detect, embed
    from moola_mlflow.sweep import load_study
    from moola_mlflow.tracking import load_detector, load_encoder
    from moola_mlflow.windows import Windows, make_windows

__version__ = "0.2.0"

__all__ = [
    "Bars",
    "BarsConfig",
    "Windows",
    "compute_features",
    "detect",
    "embed",
    "features",
    "load_detector",
    "load_encoder",
    "load_study",
    "make_windows",
    "read_bars",
    "windows",
]

_HOME = {
    "Bars": "bars",
    "BarsConfig": "core",
    "Windows": "windows",
    "compute_features": "features",
    "detect": "models",
    "embed": "models",
    "load_detector": "tracking",
    "load_encoder": "tracking",
    "load_study": "sweep",
    "make_windows": "windows",
    "read_bars": "bars",
}
_MODULES = ("features", "windows")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"moola_mlflow.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'moola_mlflow' has no attribute '{name}'")
    return getattr(importlib.import_module(f"moola_mlflow.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
