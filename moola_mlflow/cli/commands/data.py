"""data: read, check and canonicalise bars, show what they hold, and write them as one parquet file or one bar store."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from moola_mlflow.bars import (
    CARD,
    Bars,
    bars_per_day,
    ingest_bars,
    is_store,
    names_store,
    rolls,
    segments,
    summarise_bars,
    take_rows,
    write_parquet,
    write_store,
)
from moola_mlflow.cli import steps
from moola_mlflow.core import DataKeys, Interrupts, UserError, markdown_table, markdown_text
from moola_mlflow.reports import coverage_figure, price_figure
from moola_mlflow.tracking import Artifacts, Metrics, Run, Tags, run_name

COLUMNS = ("instrument", "id", "bars", "first", "last", "segments", "longest_segment")
SHOWN = 20
"""Instruments in the printed table and in the note; the artifact has more."""


def run(config: DataKeys, preset: str, interrupts: Interrupts, out: str = "out/bars.parquet", head: str = "") -> None:
    """Read bars in any accepted form and write them, the first ``head`` bars alone where given.

    An ``out`` that ends in a slash or in ``.moolabars`` makes a bar store; of all instruments (``bars.instrument=all``)
    it is built a file at a time, so that memory holds the largest file and not all of them.
    """
    name = run_name("data", Path(config.bars.path).stem, config.bars.sample_seed)
    with Run.start("data", name, config.tracking.experiment) as active:
        active.config(config)
        active.params({"out": out, "head": head or "all"})
        num_bars, path, store = _count(head) if head else None, Path(out).expanduser(), names_store(out)
        if not store:
            _check_target(path, out)
        _check_apart(config.bars.path, path, out)
        choice = config.bars.instrument or ("front" if config.bars.path == "sample" else None)
        if (
            store
            and choice == "all"
            and not num_bars
            and not is_store(config.bars.path)
            and config.bars.path != "sample"
        ):
            ingest_bars(config.bars, path, config.windows.length)
            written = config.bars.model_copy(update={"path": str(path), "instrument": None, "stamp": "start"})
            bars = steps.load_bars(active, written, config.windows.length, "data")
        else:
            bars = steps.load_bars(active, config.bars, config.windows.length, "data")
            bars = bars.head(num_bars) if num_bars else bars
            if store:
                write_store(bars, path, config.bars.max_gap_minutes, choice)
            else:
                _write(bars, path, choice)
                active.artifact(path)
        if store:
            active.artifact(path / CARD, Artifacts.BARS)  # its sources are in it, with their hashes
        _report(active, bars, config, path)


def _report(active: Run, bars: Bars, config: DataKeys, path: Path) -> None:
    """Log and print what the bars hold, as figures, a table and two pictures."""
    summary = summarise_bars(bars, config.bars.max_gap_minutes)
    rows, num_instruments = summary["instruments"], len(bars.symbols)
    active.metrics(
        {
            Metrics.BARS: len(bars),
            Metrics.BARS_SEGMENTS: summary["segments"],
            Metrics.BARS_INSTRUMENTS: num_instruments,
            Metrics.BARS_LONGEST_SEGMENT: summary["longest_segment"],
            Metrics.BARS_DAYS: summary["days"],
            Metrics.BARS_ROLLS: len(summary["rolls"]),
        }
    )
    active.tags({Tags.DATA_SHA256: bars.sha256})
    active.json(summary, Artifacts.BARS_SUMMARY)
    active.table(rows, Artifacts.BARS_INSTRUMENTS)
    _log_pictures(active, bars, segments(bars, config.bars.max_gap_minutes))
    _print(rows, num_instruments)
    span = f"{summary['first']} to {summary['last']}"
    said = f"{len(bars):,} bars, instruments: {num_instruments:,}, segments: {summary['segments']:,}, {span}"
    command = f"moola pretrain --bars {shlex.quote(str(path))}"
    table = markdown_table(COLUMNS, [[row[key] for key in COLUMNS] for row in rows[:SHOWN]])
    more = f"\n\n{_more(num_instruments)}" if num_instruments > SHOWN else ""
    active.note(
        f"**{said}.**\n\n{table}{more}\n\nPictures: `figures/bars_coverage.png`, `figures/bars_price.png`. "
        f"Content SHA-256 `{bars.sha256}`.\n\nNext: `{markdown_text(command) if '`' in command else command}`"
    )
    days = f"{summary['days']:,} days, {summary['bars_per_day']:,.0f} bars on the usual one"
    gaps = ", ".join(f"{gap['minutes']:,} min from {gap['from']}" for gap in summary["longest_gaps"][:3])
    print(f"{days}; rolls: {len(summary['rolls'])}; longest gaps: {gaps or 'none'}")
    print(f"{said} -> {path}\nsha256 {bars.sha256}\nNext: {command}", flush=True)


def _log_pictures(active: Run, bars: Bars, runs: np.ndarray) -> None:
    changes = rolls(bars, runs)
    active.figure(coverage_figure(*bars_per_day(bars), changes), Artifacts.BARS_COVERAGE_FIGURE)
    keys = take_rows(bars.instrument, runs[:, 0])
    names = sorted({bars.symbols[key] for key in np.unique(keys).tolist()})
    if changes or len(names) == 1:
        active.figure(price_figure(bars, runs, " ".join(names[:4]), changes), Artifacts.BARS_PRICE_FIGURE)
        return
    # Instruments side by side share no price axis: the one with most bars stands for them.
    sizes = {key: int((runs[keys == key, 1] - runs[keys == key, 0]).sum()) for key in np.unique(keys).tolist()}
    largest = max(sizes, key=lambda key: sizes[key])
    active.figure(price_figure(bars, runs[keys == largest], bars.symbols[largest], []), Artifacts.BARS_PRICE_FIGURE)


def _print(rows: list[dict[str, Any]], num_instruments: int) -> None:
    console = Console() if Console().is_terminal else Console(width=130)  # off a terminal rich assumes 80 columns
    table = Table(*COLUMNS)
    for row in rows[:SHOWN]:
        table.add_row(*(_cell(row[key]) if key != "id" else str(row[key]) for key in COLUMNS))
    console.print(table)
    if num_instruments > SHOWN:
        print(_more(num_instruments))


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value).replace("[", r"\[")  # rich reads [x] as a style


def _more(num_instruments: int) -> str:
    return f"and {num_instruments - SHOWN:,} more instruments: bars/instruments.json"


def _check_target(path: Path, out: str) -> None:
    """Refuse what cannot be a parquet file."""
    if path.suffix not in (".parquet", ".pq") or path.is_dir():
        raise UserError(
            f"out='{out}'; allowed: a file that ends in .parquet or .pq, for example out/bars.parquet, or a bar store: "
            "a folder that ends in a slash or in .moolabars, for example out/bars.moolabars"
        )


def _check_apart(bars: str, path: Path, out: str) -> None:
    """Refuse to write over what is read, before anything is."""
    source, target = Path(bars).expanduser().resolve(), path.resolve()
    among = source.is_dir() and not is_store(source) and target.parent == source and target.is_file()
    if bars != "sample" and (source == target or among):
        raise UserError(f"out='{out}' is the input itself; give another name, nothing was overwritten")


def _write(bars: Bars, path: Path, choice: str | None) -> None:
    if any(Path(file.path).resolve() == path.resolve() for file in bars.files):
        raise UserError(f"out='{path}' is the input itself; give another name, nothing was overwritten")
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        write_parquet(bars, temporary, choice)
        os.replace(temporary, path)
    except OSError as e:
        raise UserError(f"out='{path}' cannot be written: {e}; give a folder you may write to") from e


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 15 or int(text) == 0:
        raise UserError(f"head='{text}'; allowed: a whole number of bars above 0, for example head=10000")
    return int(text)
