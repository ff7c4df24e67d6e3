"""moola_mlflow: from one-minute futures bars to a promoted encoder and a calibrated pattern detector.

    import moola_mlflow as moola

    bars = moola.read_bars(moola.BarsConfig(path="bars.parquet"))
    windows = moola.make_windows(bars)
    encoder = moola.load_encoder("models:/moola-encoder@candidate")
    embeddings = moola.embed(encoder, windows.gather([0, 1, 2]))
    labels = moola.labels_from_spans(bars, spans)  # spans: start, end and label of your events
    moola.write_labels(labels, "labels.parquet")
    hits = moola.scan(bars, moola.load_detector("models:/moola-detector@candidate"))

The commands are functions too, with MLflow or without it:

    trained = moola.pretrain("bars.parquet", config="rules", track=False)
    tuned = moola.finetune("labels.parquet", encoder=trained, track=False)
    found = moola.detect("bars.parquet", tuned, track=False)
    found.table, found.plot()

The names below are loaded on first use, so that importing the package costs nothing: neither torch nor MLflow is
loaded before a name that needs it. ``features`` and ``windows`` are modules.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moola_mlflow.api import detect, evaluate, finetune, label, pretrain
    from moola_mlflow.bars import Bars, read_bars
    from moola_mlflow.core import BarsConfig
    from moola_mlflow.features import compute_features
    from moola_mlflow.labels import labels_from_spans, write_labels
    from moola_mlflow.labels import read_event_labels as read_labels
    from moola_mlflow.models import detect as scan
    from moola_mlflow.models import embed, event_signals
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
    "evaluate",
    "event_signals",
    "features",
    "finetune",
    "label",
    "labels_from_spans",
    "load_detector",
    "load_encoder",
    "load_study",
    "make_windows",
    "pretrain",
    "read_bars",
    "read_labels",
    "scan",
    "windows",
    "write_labels",
]

_HOME = {
    "Bars": "bars",
    "BarsConfig": "core",
    "Windows": "windows",
    "compute_features": "features",
    "detect": "api",
    "embed": "models",
    "evaluate": "api",
    "finetune": "api",
    "label": "api",
    "event_signals": "models",
    "labels_from_spans": "labels",
    "load_detector": "tracking",
    "load_encoder": "tracking",
    "load_study": "sweep",
    "make_windows": "windows",
    "pretrain": "api",
    "read_bars": "bars",
    "read_labels": "labels:read_event_labels",
    "scan": "models:detect",
    "write_labels": "labels",
}
"""The room of each name, and after a colon its name there if that differs."""
_MODULES = ("features", "windows")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"moola_mlflow.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'moola_mlflow' has no attribute '{name}'")
    room, _, there = _HOME[name].partition(":")
    return getattr(importlib.import_module(f"moola_mlflow.{room}"), there or name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
