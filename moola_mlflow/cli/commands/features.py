"""features: the quality report of a bars file, before anything is trained on it."""

from __future__ import annotations

import torch
from rich.table import Table

from moola_mlflow.cli import steps
from moola_mlflow.cli.bar_steps import load_bars
from moola_mlflow.cli.progress import table_console
from moola_mlflow.core import FeaturesKeys, Interrupts, markdown_code
from moola_mlflow.tracking import Run, load_encoders, run_name
from moola_mlflow.training import batch_source, cut_windows

COLUMNS = ("name", "nonzero", "at_lower", "at_upper", "mean", "std", "min", "max", "q05", "q50", "q95")


def run(config: FeaturesKeys, preset: str, interrupts: Interrupts) -> None:
    """Compute the features of all windows, log and print their report, and refuse what cannot be learned from.

    With an encoder, the report also says how far each feature has drifted from that encoder's training windows.
    """
    name = run_name("features", config.features.set, config.bars.sample_seed, config.project.name)
    with Run.start("features", name, config.tracking.experiment) as active:
        active.config(config)
        bars = load_bars(active, config.bars, config.windows.length, "features")
        source = batch_source(cut_windows(bars, config), config, torch.device("cpu"))
        reference = steps.training_quality(load_encoders(config.finetune.encoder))
        report = steps.check_features(active, source, reference)
        _print(report["features"])
        summary = (
            f"{len(bars):,} bars, {report['num_windows']:,} windows; the zigzag's leg flips on "
            f"{report['swing_flip_rate']:.1%} of valid steps; no feature refused"
        )
        warnings = "".join(f"\n\nWarning: {warning}" for warning in report["warnings"])
        where = f"Bars {markdown_code(config.bars.path)}. Picture: `figures/feature_quality.png`."
        active.note(f"**{summary}.**{warnings}\n\n{where}")
        print(f"{summary}.", flush=True)


def _print(rows: list[dict[str, float]]) -> None:
    columns = [*COLUMNS, "psi"] if "psi" in rows[0] else COLUMNS
    table = Table(*columns)
    for row in rows:
        table.add_row(str(row["name"]), *(f"{row[key]:.3f}" for key in columns[1:]))
    table_console().print(table)
