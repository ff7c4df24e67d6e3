"""What worker processes import and do while a command imports MLflow and opens its run."""

from __future__ import annotations

import sys

from moola_mlflow.cli.parser import Parsed
from moola_mlflow.core import FinetuneKeys, allowed_cores, command_workers, may_have_gpu, usable_cores

MATPLOTLIB = ("matplotlib.figure", "matplotlib.backends.backend_agg", "PIL.PngImagePlugin")
PICTURES = {
    "data": (*MATPLOTLIB, "moola_mlflow.cli.bars_ahead"),
    "detect": (*MATPLOTLIB, "moola_mlflow.reports.plots.overview", "moola_mlflow.reports.plots.after_events"),
}
"""Modules that draw the pictures of a command."""
FITS = ("moola_mlflow.evaluation.event_methods",)
"""A module that imports torch and all that a fit of a fold needs, for detectors of both kinds."""


def workers_of(name: str, parsed: Parsed) -> tuple[int, tuple[str, ...]]:
    """Return how many workers start with a command, and what they import.

    They save time only on a second core, and only if this process still has to import MLflow itself.
    """
    if "mlflow" in sys.modules:
        return 0, ()
    if name == "finetune" and (num := _num_fitting(parsed.config)) > 1:
        return num, FITS
    if name in PICTURES and allowed_cores() > 1:
        return 1, PICTURES[name]
    return 0, ()


def begin_ahead(name: str, parsed: Parsed) -> None:
    """Have a worker begin what a command needs first: the bars of ``data``."""
    if name == "data" and command_workers().num:
        from moola_mlflow.cli.bars_ahead import begin_bars  # pandas and pyarrow take half a second

        begin_bars(parsed.config, parsed.arguments)


def _num_fitting(config: FinetuneKeys) -> int:
    """Return how many processes a fine-tuning fits in; 1 if a GPU may do it, which torch alone can tell."""
    device = config.runtime.device
    on_cpu = device == "cpu" or (device == "auto" and not may_have_gpu())
    return (config.cv.workers or usable_cores()) if on_cpu else 1
