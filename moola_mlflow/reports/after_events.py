"""Describe what follows events: a table, one picture and the words that keep it from being read as a backtest."""

from __future__ import annotations

import math
from collections.abc import Callable

import pandas as pd

from moola_mlflow.evaluation import AfterEvents
from moola_mlflow.reports.document import Block, Heading, Notice, Para, Picture, Table

TITLE = "After the events"
NO_BACKTEST = (
    "This describes the bars that were scanned. It is not a backtest: there are no costs and no fills, and events "
    "overlap. Many figures are compared at once: by chance, about one in twenty differs from the random moments."
)
FEW_DAYS = 20


def after_blocks(after: AfterEvents, png: Callable[[], bytes]) -> list[Block]:
    """Return the section of the page, with the picture that ``png`` returns; nothing if no event has a move."""
    table = after.table
    if table.empty or not table["num"].any():
        return []
    left = ", ".join(f"{num:,} for {bars} bars" for bars, num in after.num_left_out().items())
    explained = (
        "A move begins at the first open after an event is known (known_at) and ends at the close so many bars later. "
        "Its unit is the median bar range of the window before. Random moments are drawn from the same bars and the "
        f"same hours ({after.clock}). Intervals are 95 %, over {after.num_days:,} trade dates. Left out, because the "
        f"segment or the bars end before: {left}."
    )
    few = (
        f"There are only {after.num_days} trade dates, so the intervals are rough." if after.num_days < FEW_DAYS else ""
    )
    caption = "Moves after events and after random moments of the same hours, with 95 % intervals."
    return [
        Heading(TITLE),
        Notice(NO_BACKTEST, "warn"),
        Para(explained),
        *([Notice(f"There are only {after.num_days} trade dates, so the intervals are rough.", "warn")] if few else []),
        Picture("after_events.png", png(), caption),
        Table(
            ["events", "bars", "number", "mean move", "random", "mean size", "random", "share up", "random"],
            _rows(table[table["hour"] == "all"], "label"),
        ),
        Heading("By hour", 3),
        Table(
            ["hour", "bars", "number", "mean move", "random", "mean size", "random", "share up", "random"],
            _rows(table[table["hour"] != "all"], "hour"),
        ),
    ]


def _rows(table: pd.DataFrame, name: str) -> list[tuple[str, ...]]:
    rows = []
    for (label, bars), own in table.groupby([name, "bars"], sort=False):
        cells = []
        for _, row in own.iterrows():
            cells += [_figure(row, ("value", "lo", "hi")), _figure(row, ("random", "random_lo", "random_hi"))]
        rows.append((str(label), str(bars), f"{own['num'].iloc[0]:,}", *cells))
    return rows


def _figure(row: pd.Series, names: tuple[str, str, str]) -> str:
    value, low, high = (float(row[name]) for name in names)
    if math.isnan(value):
        return "none"
    return f"{value:.2f}" if math.isnan(low) else f"{value:.2f} [{low:.2f}, {high:.2f}]"
