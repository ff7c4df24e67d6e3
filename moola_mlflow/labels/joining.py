"""Join the labelled windows of several files into one set. Refuse windows that are in two files, or keep the newest."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from moola_mlflow.bars import parse_times
from moola_mlflow.core import UserError
from moola_mlflow.labels.columns import NONE
from moola_mlflow.labels.event_labels import EventLabels, events_sha256
from moola_mlflow.labels.label_table import check_table

SUFFIXES = (".parquet", ".pq")


def find_label_files(path: str | Path) -> list[Path]:
    """Return the labels files that a path, a folder or a glob names, sorted by name.

    Raises: UserError if a folder or a glob names none.
    """
    target = Path(path).expanduser()
    if target.is_dir():
        found = sorted(p for p in target.iterdir() if p.suffix in SUFFIXES and p.name[0] != "." and p.is_file())
        if not found:
            raise UserError(f"labels: folder '{path}' holds no file that ends in {' or '.join(SUFFIXES)}; give another")
        return found
    if not target.exists() and glob.has_magic(str(path)):
        found = sorted(Path(p) for p in glob.glob(str(target), recursive=True) if Path(p).is_file())
        if not found:
            raise UserError(f"labels: no file matches '{path}'; give another glob, a folder or a file")
        return found
    return [target]


def check_label_files(path: str) -> None:
    """Refuse labels that are not there, or no parquet, without reading them. Raises: UserError."""
    for file in find_label_files(path):
        check_table(file)


def join_labels(parts: Sequence[EventLabels], path: str | Path, duplicates: str = "refuse") -> EventLabels:
    """Join the windows of several files, in their order.

    A window that two files hold, bar by bar, is refused. With ``duplicates`` = ``newest``, the one that was labelled
    last stays. A window_id that an earlier file has gets the name of its file in front.

    Raises: UserError if only some files have times or instruments, or if files differ in the spelling of a
    class or in the number of bars.
    """
    _check_alike(parts)
    whole = _Whole.of(parts)
    kept, warnings = _without_duplicates(whole, parts, duplicates)
    labels = whole.labels.select(kept)
    joined = tuple(f"{part.path}: {len(part):,} windows" for part in parts)
    labels = replace(labels, path=path, joined=joined, warnings=(*whole.labels.warnings, *warnings))
    return replace(labels, sha256=events_sha256(labels))


@dataclass(frozen=True)
class _Whole:
    """All windows of all files, and the file of each. Shapes: file int64 [N]."""

    labels: EventLabels
    file: np.ndarray

    @classmethod
    def of(cls, parts: Sequence[EventLabels]) -> _Whole:
        classes = tuple(sorted({name for part in parts for name in part.classes}))
        position = {name: k for k, name in enumerate(classes)}
        offset = np.cumsum([0, *map(len, parts)])
        names, renamed = _unique_ids(parts)
        weak = [part.weak for part in parts]
        warnings = [text for part in parts for text in part.warnings]
        if any(weak) and not all(weak):
            warnings.append(f"{sum(weak)} of {len(parts)} joined files are weak labels: the set counts as weak.")
        if renamed:
            warnings.append(
                f"{renamed:,} windows have a window_id of an earlier file; it now begins with the file name."
            )

        def all_of(name: str) -> Any:
            values = [getattr(part, name) for part in parts]
            return None if values[0] is None else np.concatenate(values)

        drawn = [np.full(len(part), "") if part.drawn is None else part.drawn for part in parts]
        labels = EventLabels(
            np.array(names),
            all_of("ohlc"),
            classes,
            np.concatenate([part.window + first for part, first in zip(parts, offset[:-1], strict=True)]),
            np.array([position[part.classes[k]] for part in parts for k in part.label.tolist()], np.int64),
            all_of("start"),
            all_of("end"),
            all_of("start_ns"),
            all_of("end_ns"),
            all_of("instrument"),
            None if all(part.drawn is None for part in parts) else np.concatenate(drawn),
            any(weak),
            rule=", ".join(sorted({part.rule for part in parts if part.rule})),
            bars_sha256=parts[0].bars_sha256 if len({part.bars_sha256 for part in parts}) == 1 else "",
            warnings=tuple(warnings),
            extra=_all_rows(parts),
        )
        return cls(labels, np.repeat(np.arange(len(parts)), [len(part) for part in parts]))


def _check_alike(parts: Sequence[EventLabels]) -> None:
    first = parts[0]
    for part in parts[1:]:
        if part.ohlc.shape[1] != first.ohlc.shape[1]:
            raise UserError(f"labels: {part.path}: windows of {part.ohlc.shape[1]} bars; {first.path} has others")
        for name, column in (("start_ns", "start_time and end_time"), ("instrument", "instrument")):
            if (getattr(part, name) is None) != (getattr(first, name) is None):
                with_it, without = (first, part) if getattr(part, name) is None else (part, first)
                raise UserError(
                    f"labels: {without.path} has no {column}, and {with_it.path} has; give all files that are joined "
                    f"the columns {column}, or none of them"
                )
    spelling: dict[str, tuple[str, EventLabels]] = {}
    for part in parts:
        for name in part.classes:
            usual, other = spelling.setdefault(name.strip().casefold(), (name, part))
            if usual != name:
                raise UserError(
                    f"labels: {part.path} has the class '{name}', and {other.path} '{usual}'; write both the same"
                )


def _unique_ids(parts: Sequence[EventLabels]) -> tuple[list[str], int]:
    """Return a name for each window that no other has, and how many were changed."""
    taken: set[str] = set()
    names, renamed = [], 0
    for part in parts:
        for name in part.window_id.tolist():
            own, number = name, 2
            while own in taken:
                own = f"{Path(part.path).stem}/{name}" + (f"-{number}" if number > 2 else "")
                number += 1
            taken.add(own)
            renamed += own != name
            names.append(own)
    return names, renamed


def _all_rows(parts: Sequence[EventLabels]) -> pa.Table | None:
    """Return the other columns of all files, empty where a file lacks one; text where files differ in its type."""
    if all(part.extra is None for part in parts):
        return None
    tables = [pa.table({"": pa.nulls(len(part.row_window()))}) if part.extra is None else part.extra for part in parts]
    kinds: dict[str, set[pa.DataType]] = {}
    for table in tables:
        for field in table.schema:
            kinds.setdefault(field.name, set()).add(field.type)
    mixed = [name for name, found in kinds.items() if len(found - {pa.null()}) > 1]
    for i, table in enumerate(tables):
        for name in mixed:
            if name in table.column_names:
                k = table.column_names.index(name)
                tables[i] = table = table.set_column(k, name, table[name].cast(pa.string()))
    whole = pa.concat_tables(tables, promote_options="permissive")
    return whole.select([name for name in whole.column_names if name])


def _without_duplicates(whole: _Whole, parts: Sequence[EventLabels], duplicates: str) -> tuple[np.ndarray, list[str]]:
    """Return the windows that stay, in order, and a warning about the others."""
    labels, file = whole.labels, whole.file
    first: dict[bytes, int] = {}
    same = np.array([first.setdefault((bars + 0.0).tobytes(), i) for i, bars in enumerate(labels.ohlc)], np.int64)
    again = np.flatnonzero(file != file[same])
    if not len(again):
        return np.arange(len(labels)), []
    i = int(again[0])
    if duplicates == "refuse":
        raise UserError(
            f"labels: {len(again):,} windows are in two files, the first in {parts[file[same[i]]].path} "
            f"('{labels.window_id[same[i]]}', {_held(labels, int(same[i]))}) and in {parts[file[i]].path} "
            f"('{labels.window_id[i]}', {_held(labels, i)}); remove one, or set labels.duplicates=newest"
        )
    at_ns = labelled_at(labels, [_changed(part.path) for part in parts], file)
    best: dict[int, int] = {}
    for i, window in enumerate(same.tolist()):
        if window not in best or at_ns[i] >= at_ns[best[window]]:
            best[window] = i
    # Equal windows of one file hold the same labels, and all of them stay.
    kept = np.array([i for i, window in enumerate(same.tolist()) if file[i] == file[best[window]]])
    left = Counter(parts[k].path for k in np.delete(file, kept).tolist())
    said = ", ".join(f"{num:,} of {path}" for path, num in left.items())
    return kept, [f"{len(labels) - len(kept):,} windows are in a newer file too and were left out: {said}."]


def labelled_at(labels: EventLabels, of_file_ns: Sequence[int], file: np.ndarray) -> np.ndarray:
    """Return when each window was labelled last: its column labelled_at, or the time of its file where that is empty.

    Shapes: int64 [N] -> int64 [N].
    Units: ns since 1970 UTC.
    """
    at_ns = np.asarray(of_file_ns, np.int64)[file]
    if labels.extra is None or "labelled_at" not in labels.extra.column_names:
        return at_ns
    row_ns, bad, _ = parse_times(labels.extra["labelled_at"], "labelled_at")
    newest = np.zeros(len(labels), np.int64)
    np.maximum.at(newest, labels.row_window(), np.where(bad, 0, row_ns))
    return np.where(newest > 0, newest, at_ns)


def _changed(path: str | Path) -> int:
    return Path(path).stat().st_mtime_ns if Path(path).is_file() else 0


def _held(labels: EventLabels, window: int) -> str:
    names = sorted(labels.classes[k] for k in labels.label[labels.window == window].tolist())
    return " and ".join(names) or NONE
