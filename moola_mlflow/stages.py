"""Steps that several commands share: bars with their inputs logged, and features that have passed their checks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from moola_mlflow.bars import Bars, read_bars
from moola_mlflow.batches import BatchSource
from moola_mlflow.config import Config
from moola_mlflow.features import Hybrid
from moola_mlflow.features.quality import check_quality, quality_metrics, quality_report, quality_table
from moola_mlflow.plots.quality import quality_figure
from moola_mlflow.tracking import Run
from moola_mlflow.windows import Windows, make_windows


def load_bars(run: Run, config: Config, context: str) -> Bars:
    """Read the bars of a run and log every file as its input."""
    bars = read_bars(config.bars, min_bars=config.windows.length)
    run.bars(bars, context)
    if bars.dropped:
        run.metrics({f"bars/dropped_{kind}": count for kind, count in bars.dropped.items()})
    return bars


def cut_windows(bars: Bars, config: Config) -> Windows:
    """Cut the configured windows."""
    return make_windows(bars, config.windows.length, config.windows.stride, config.bars.max_gap_minutes)


def hybrid(config: Config) -> Hybrid:
    """Return the zigzag variant of a configuration."""
    features = config.features
    return Hybrid(features.hybrid_lookback, features.hybrid_min_retrace, features.hybrid_same_bar)


def batch_source(windows: Windows, config: Config, device: torch.device) -> BatchSource:
    """Return the source of batches over windows."""
    return BatchSource(windows, config.features.set, hybrid(config), config.windows.warmup, device)


def check_features(
    run: Run, source: BatchSource, reference: dict[str, Any] | None = None
) -> tuple[dict[str, Any], np.ndarray]:
    """Log the feature quality report of all windows, then refuse features that cannot be learned from.

    ``reference`` is the report of an encoder's training windows, against which drift is measured.

    Shapes: returns the report, and the raw features float32 [N, T, F] it was made from.
    Raises: UserError after the report has been logged.
    """
    features = source.features(np.arange(len(source.windows)))
    report = quality_report(features, source.names, source.warmup, source.flip_rate(), reference)
    run.metrics(quality_metrics(report))
    run.json(report, "features/quality.json")
    run.table(quality_table(report), "features/quality_table.json")
    run.figure(quality_figure(report, features), "figures/feature_quality.png")
    if report["warnings"]:
        run.tags({"moola.warnings": " ".join(report["warnings"])})
    for warning in report["warnings"]:
        print(f"Warning: {warning}", flush=True)
    check_quality(report)
    return report, features
