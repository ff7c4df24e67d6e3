"""Bars that a worker reads, and pictures of them that it draws, while the command ``data`` imports MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from moola_mlflow.bars import Bars, find_files, is_store, names_store, read_bars
from moola_mlflow.core import BarsConfig, DataKeys, UserError, command_workers, result_of
from moola_mlflow.reports import BarsReport, draw_png

MOST_BYTES = 8_000_000
"""Size of all files together. The bars of larger ones would take long to send from one process to the other."""
MOST_SAMPLE_BARS = 200_000


@dataclass(frozen=True)
class BarsRead:
    """All bars that were read. ``pictures`` are PNG files by the names of their artifacts, of the bars to be kept."""

    bars: Bars
    pictures: Mapping[str, bytes] = field(default_factory=dict)


def begin_bars(config: DataKeys, arguments: Mapping[str, str]) -> None:
    """Have the command's worker read the bars and draw their pictures, unless a bar store is to be made."""
    if not names_store(arguments.get("out", "")):
        workers = command_workers()
        workers.begun = workers.submit(read_few_bars, config, arguments.get("head", ""))


def finish_bars(config: DataKeys) -> BarsRead:
    """Return the bars that :func:`begin_bars` had a worker read; otherwise read them now. Raises: UserError."""
    begun = command_workers().begun
    read = result_of(begun) if begun else None
    return read or BarsRead(read_bars(config.bars, config.windows.length))


def read_few_bars(config: DataKeys, head: str) -> BarsRead | None:
    """Return the bars with pictures of the first ``head``, or None if the bars may be many. Raises: UserError."""
    if not _are_few(config.bars):
        return None
    bars, num_kept = read_bars(config.bars, config.windows.length), count_of(head)
    report = BarsReport.of(bars.head(num_kept) if num_kept else bars, config.bars.max_gap_minutes)
    return BarsRead(bars, {name: draw_png(picture) for name, picture in report.pictures().items()})


def count_of(head: str) -> int | None:
    """Return the number that ``head`` says, or None if it is empty. Raises: UserError if it is no number above 0."""
    if not head:
        return None
    if not (head.isascii() and head.isdecimal()) or len(head) > 15 or int(head) == 0:
        raise UserError(f"head='{head}'; allowed: a whole number of bars above 0, for example head=10000")
    return int(head)


def _are_few(config: BarsConfig) -> bool:
    if config.path == "sample":
        return config.sample_bars <= MOST_SAMPLE_BARS
    if is_store(config.path) or "://" in config.path:  # a store's bars stay on disk; others would be fetched twice
        return False
    return sum(file.stat().st_size for file in find_files(config.path)) <= MOST_BYTES
