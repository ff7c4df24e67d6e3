"""Read the files of one path together: one order of dates and one clock hold for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from moola_mlflow.bars.formats import read_file
from moola_mlflow.bars.instruments import check_naming
from moola_mlflow.bars.raw import RawBars
from moola_mlflow.bars.time_text import AmbiguousDates
from moola_mlflow.bars.times import MINUTE_NS
from moola_mlflow.core import BarsConfig, UserError


def read_together(paths: list[Path], config: BarsConfig) -> Iterator[RawBars]:
    """Yield the bars of each file, with the starts of bars as their times.

    A file whose dates read both ways is read in the order that another file of the folder needs.

    Raises: UserError if two files need different orders, or if some files have offsets and others do not.
    """
    # A tick on the minute belongs to the bar that it ends.
    late_ns = config.minutes * MINUTE_NS if config.resample is None else 1
    decided: tuple[Path, str] | None = None
    first: tuple[Path, bool] | None = None
    named: RawBars | None = None
    for path in paths:
        try:
            raw = read_file(path, config)
        except AmbiguousDates:
            decided = decided or _order_of_others(paths, path, config)
            if decided is None:
                raise
            raw = read_file(path, config.model_copy(update={"dates": decided[1]}))
            raw.notes.append(f"{path}: dates read {decided[1].replace('_', ' ')}, as those of {decided[0]} are")
        if raw.times.order and config.dates == "auto":
            if decided and decided[1] != raw.times.order:
                raise UserError(
                    f"{path}: its dates read {raw.times.order.replace('_', ' ')}, and those of {decided[0]} read "
                    f"{decided[1].replace('_', ' ')}; read the files apart, or set --bars.dates"
                )
            decided = decided or (path, raw.times.order)
        named = named or replace(raw, table=raw.table.slice(0, 0))  # keep its columns, not its rows
        check_naming([named, raw])
        names_zone = raw.times.aware or raw.times.zone is not None
        first = first or (path, names_zone)
        if names_zone != first[1] and "timezone" not in config.model_fields_set:
            offset, other = (path, first[0]) if names_zone else (first[0], path)
            raise UserError(
                f"{offset} has times with an offset (or epochs), and {other} has clock times without one: as UTC they "
                "may lie hours apart; set --bars.timezone to the clock of the times without an offset, or read "
                "the files apart"
            )
        yield replace(raw, time_ns=raw.time_ns - late_ns) if config.stamp == "end" else raw


def _order_of_others(paths: list[Path], asked: Path, config: BarsConfig) -> tuple[Path, str] | None:
    for path in paths:
        if path != asked:
            try:
                order = read_file(path, config).times.order
            except AmbiguousDates:
                continue
            if order:
                return path, order
    return None
