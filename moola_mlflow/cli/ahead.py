"""What worker processes import and do while a command imports MLflow and opens its run."""

from __future__ import annotations

import sys

from moola_mlflow.cli.parser import Parsed
from moola_mlflow.core import allowed_cores, command_workers

MATPLOTLIB = ("matplotlib.figure", "matplotlib.backends.backend_agg", "PIL.PngImagePlugin")
PICTURES = {
    "data": (*MATPLOTLIB, "moola_mlflow.cli.bars_ahead"),
    "detect": (*MATPLOTLIB, "moola_mlflow.reports.plots.overview", "moola_mlflow.reports.plots.after_events"),
}
"""Modules that draw the pictures of a command."""


def workers_of(name: str) -> tuple[int, tuple[str, ...]]:
    """Return how many workers start with a command, and what they import.

    They save time only on a second core, and only if this process still has to import MLflow itself.
    """
    if allowed_cores() < 2 or "mlflow" in sys.modules or name not in PICTURES:
        return 0, ()
    return 1, PICTURES[name]


def begin_ahead(name: str, parsed: Parsed) -> None:
    """Have a worker begin what a command needs first: the bars of ``data``."""
    if name == "data" and command_workers().num:
        from moola_mlflow.cli.bars_ahead import begin_bars  # pandas and pyarrow take half a second

        begin_bars(parsed.config, parsed.arguments)
