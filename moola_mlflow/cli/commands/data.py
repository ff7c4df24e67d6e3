"""data: read, check and canonicalise bars, show what they hold, and write them as one parquet file or one bar store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from moola_mlflow.bars import CARD, Bars, ingest_bars, is_store, names_store, write_parquet, write_store
from moola_mlflow.cli.bar_steps import load_bars, log_bars
from moola_mlflow.cli.bars_ahead import count_of, finish_bars
from moola_mlflow.cli.progress import table_console
from moola_mlflow.core import (
    DataKeys,
    Interrupts,
    UserError,
    check_outputs,
    is_true,
    note_outputs,
    replacing,
    result_of,
)
from moola_mlflow.reports import BarsReport, draw_all
from moola_mlflow.tracking import Artifacts, Run, Tags, run_name

KIND = "bars"


def run(
    config: DataKeys,
    preset: str,
    interrupts: Interrupts,
    out: str = "out/bars.parquet",
    head: str = "",
    overwrite: str = "false",
) -> None:
    """Read bars in any accepted form and write all of them, or the first ``head``.

    An ``out`` that ends in a slash or in ``.moolabars`` makes a bar store. With all instruments
    (``bars.instrument=all``) it is built a file at a time, so memory holds the largest file and not all of them.
    """
    name = run_name("data", Path(config.bars.path).stem, config.bars.sample_seed, config.project.name)
    with Run.start("data", name, config.tracking.experiment) as active:
        active.config(config)
        active.params({"out": out, "head": head or "all"})
        num_bars, path, store = count_of(head), Path(out).expanduser(), names_store(out)
        if not store:
            _check_target(path, out)
        _check_apart(config.bars.path, path, out)
        if not store:
            check_outputs([path], KIND, is_true("overwrite", overwrite))
        choice = config.bars.instrument or ("front" if config.bars.path == "sample" else None)
        vendor = config.bars.path != "sample" and not is_store(config.bars.path)
        pictures: Mapping[str, bytes] = {}
        if store and vendor and choice == "all" and not num_bars:
            notes, understood = ingest_bars(config.bars, path, config.windows.length)
            print("\n".join(f"Note: {note}" for note in notes), end="\n" if notes else "")
            written = config.bars.model_copy(update={"path": str(path), "instrument": None, "stamp": "start"})
            bars = load_bars(active, written, config.windows.length, "data")
            bars = replace(bars, understood=understood)
        else:
            read = finish_bars(config)
            log_bars(active, read.bars, config.bars, "data")
            bars, pictures = read.bars.head(num_bars) if num_bars else read.bars, read.pictures
            if store:
                write_store(bars, path, config.bars.max_gap_minutes, choice)
            else:
                _write(bars, path, choice)
                note_outputs([path], KIND)
                active.artifact(path)
        if store:
            active.artifact(path / CARD, Artifacts.BARS)  # its sources are in it, with their hashes
        _report(active, BarsReport.of(bars, config.bars.max_gap_minutes, path), pictures)


def _report(active: Run, report: BarsReport, pictures: Mapping[str, bytes]) -> None:
    """Log and print what the bars hold, as figures, a table and two pictures. A worker draws those not drawn yet."""
    drawn = {name: partial(bytes, png) for name, png in pictures.items()} or {
        name: partial(result_of, picture) for name, picture in draw_all(report.pictures()).items()
    }
    with active.together():
        active.metrics(report.metrics())
        active.tags({Tags.DATA_SHA256: report.bars.sha256})
        active.json(report.summary, Artifacts.BARS_SUMMARY)
        active.table(report.rows, Artifacts.BARS_INSTRUMENTS)
        for artifact, picture in drawn.items():
            active.png(picture, artifact)
        table_console().print(report.console_table())
        active.note(report.note())
    print("\n".join([*(f"Read {line}" for line in report.bars.understood), *report.console_lines()]), flush=True)


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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            write_parquet(bars, temporary, choice)
    except OSError as e:
        raise UserError(f"out='{path}' cannot be written: {e}; give a folder you may write to") from e
