"""Read the bars of a run and log them as its input. Commands that only read a file need no torch for it."""

from __future__ import annotations

from moola_mlflow.bars import Bars, clock_hint, read_bars, stamp_warning
from moola_mlflow.core import BarsConfig
from moola_mlflow.tracking import Metrics, Run, Tags


def load_bars(run: Run, config: BarsConfig, min_bars: int, context: str) -> Bars:
    """Read the bars of a run and log every file as its input."""
    bars = read_bars(config, min_bars=min_bars)
    log_bars(run, bars, config, context)
    return bars


def log_bars(run: Run, bars: Bars, config: BarsConfig, context: str) -> None:
    """Log every file of the bars as an input of the run, and warn if stamps or clock look wrong."""
    run.bars(bars, context)
    if bars.dropped:
        run.metrics({f"{Metrics.BARS_DROPPED}{kind}": count for kind, count in bars.dropped.items()})
    for note in bars.notes:
        print(f"Note: {note}", flush=True)
    found = (
        stamp_warning(bars.time_ns, bars.instrument, config.stamp, bars.minutes),
        clock_hint(bars.time_ns, bars.instrument, config.timezone, bars.minutes),
    )
    if warnings := [warning for warning in found if warning]:
        run.tags({Tags.BARS_WARNING: "\n".join(warnings)})
        for warning in warnings:
            print(f"Warning: {warning}", flush=True)
