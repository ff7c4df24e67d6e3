"""Read labels of any known form, and write them in the form that a file's name asks for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from moola_mlflow.bars import Bars
from moola_mlflow.core import LabelsKeys, UserError, keep_backup, replacing
from moola_mlflow.labels.event_labels import EventLabels
from moola_mlflow.labels.forms.batches import batch_table, is_batch, parse_json, read_batches
from moola_mlflow.labels.forms.label_studio import inline_table, is_export, read_tasks, regions_in, span_frame, tasks_of
from moola_mlflow.labels.forms.time_table import read_time_table, time_table
from moola_mlflow.labels.label_files import labels_of_table, read_event_labels, write_labels
from moola_mlflow.labels.label_table import readable
from moola_mlflow.labels.timed_spans import CutOptions, TimedSpans, labels_of_spans

LoadBars = Callable[[], Bars]
WRITTEN = (".parquet", ".pq", ".json", ".csv")
"""Ends of the files that labels are written to."""


def read_any_labels(path: str, config: LabelsKeys, load_bars: LoadBars) -> EventLabels:
    """Return the labels that a path names: parquet, CSV of times, an export of Label Studio, or annotation batches.

    Bars are read only if the form holds times or bar numbers and no prices.

    Raises: UserError by row, task or window, with the value and the cure.
    """
    target = Path(path).expanduser()
    suffix = target.suffix.lower()
    with _in_words(target):
        if batches := _batch_files(target):
            return _of_batches(batches, target, config, load_bars)
        if suffix == ".json" and target.is_file():
            return _of_json(target, config, load_bars)
        if suffix in (".csv", ".tsv") and target.is_file():
            return _of_csv(target, config, load_bars)
    return read_event_labels(path, config.windows.length, config.labels.duplicates)


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    """Turn the error of an unexpected value, such as a number for a list, into a UserError that names the file."""
    try:
        yield
    except UserError:
        raise
    except (pa.ArrowException, AttributeError, LookupError, TypeError, ValueError, ArithmeticError) as e:
        first = " ".join(str(e).split())[:200]
        raise UserError(
            f"labels: '{path}' holds a value that does not fit its form ({first}); docs/reference/labels.md shows the "
            "forms"
        ) from None


def write_any_labels(labels: EventLabels, path: Path, load_bars: LoadBars) -> None:
    """Write labels as parquet, as tasks of Label Studio (.json) or as a CSV of times.

    An interrupted write leaves the old file. A file that is replaced is kept as ``NAME.bak``, once.

    Raises: UserError if the file cannot be written, or if a CSV would need times that are not known.
    """
    suffix = path.suffix.lower()
    if suffix == ".json":
        text = json.dumps(tasks_of(labels), ensure_ascii=False, indent=1) + "\n"
    elif suffix == ".csv":
        text = time_table(labels, load_bars).to_csv(index=False, lineterminator="\n")
    else:
        write_labels(labels, path)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        keep_backup(path)
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    except OSError as e:
        raise UserError(f"out='{path}' cannot be written: {e}; give a folder you may write to") from e


def _of_json(path: Path, config: LabelsKeys, load_bars: LoadBars) -> EventLabels:
    content = parse_json(path)
    if not is_export(content):
        raise UserError(
            f"labels: '{path}' is not an export of Label Studio (a list of tasks); docs/reference/labels.md shows the "
            "forms"
        )
    return _of_tasks(content, path, config, load_bars)


def _batch_files(path: Path) -> list[Path]:
    """Return the files of annotation batches that a path names, none if it is another form."""
    files = [path] if path.suffix.lower() == ".json" and path.is_file() else []
    if path.is_dir():
        files = sorted(one for one in path.glob("*.json") if one.name[0] != "." and one.is_file())
    return files if files and (path.is_dir() or is_batch(parse_json(files[0]))) else []


def _of_batches(files: list[Path], path: Path, config: LabelsKeys, load_bars: LoadBars) -> EventLabels:
    looked, said = read_batches(files, config.labels.duplicates)
    found = batch_table(looked, path, config, load_bars)
    if isinstance(found, TimedSpans):
        labels = labels_of_spans(load_bars(), found, _options(config), path)
    else:
        with readable(path):
            labels = labels_of_table(found, config.windows.length, grouped=False)
    return replace(labels, warnings=(*labels.warnings, *said))


def _of_csv(path: Path, config: LabelsKeys, load_bars: LoadBars) -> EventLabels:
    frame = read_time_table(path)
    rows: list[dict[Any, Any]] = frame.astype(object).where(frame.notna(), None).to_dict("records")
    if "annotation_id" in frame.columns or any(regions_in(row) for row in rows):
        return _of_tasks(rows, path, config, load_bars)
    spans = TimedSpans.of(frame, str(path), config.bars.timezone)
    return labels_of_spans(load_bars(), spans, _options(config), path)


def _of_tasks(content: Any, path: Path, config: LabelsKeys, load_bars: LoadBars) -> EventLabels:
    tasks, said = read_tasks(content, str(path))
    if not tasks:
        raise UserError(f"labels: '{path}' holds no annotated task; label some, and export it again")
    table = inline_table(tasks, path, config.windows.length)
    if table is not None:
        labels = labels_of_table(table, config.windows.length, grouped=False)
        return replace(labels, warnings=(*labels.warnings, *said))
    bars = load_bars()
    frame, more = span_frame(tasks, bars.time_ns)
    if not len(frame):
        raise UserError(f"labels: '{path}' holds no region; label some time ranges, and export it again")
    spans = TimedSpans.of(frame, str(path), config.bars.timezone)
    labels = labels_of_spans(bars, spans, _options(config), path)
    return replace(labels, warnings=(*labels.warnings, *said, *more))


def _options(config: LabelsKeys) -> CutOptions:
    return CutOptions(config.windows.length, config.bars.max_gap_minutes, config.labels.rest, config.labels.seed)
