"""Describe the bars that a command read: figures and note of its run, lines for the console, and two pictures."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from moola_mlflow.bars import Bars, bars_per_day, length_text, rolls, segments, summarise_bars, take_rows
from moola_mlflow.core import markdown_table, markdown_text
from moola_mlflow.reports.plots.bars import CoveragePicture, PricePicture
from moola_mlflow.tracking import Artifacts, Metrics

COLUMNS = ("instrument", "id", "bars", "first", "last", "segments", "longest_segment")
SHOWN = 20
"""Instruments in the console's table and in the note; the artifact has more."""


@dataclass(frozen=True)
class BarsReport:
    """Bars with their summary, and the place that they were written to."""

    bars: Bars
    summary: dict[str, Any]
    max_gap_minutes: int
    path: Path = Path()

    @classmethod
    def of(cls, bars: Bars, max_gap_minutes: int, path: Path = Path()) -> BarsReport:
        """Return the report of bars that were written to ``path``. Pictures need no path."""
        return cls(bars, summarise_bars(bars, max_gap_minutes), max_gap_minutes, path)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row for each instrument, most bars first."""
        return list(self.summary["instruments"])

    def metrics(self) -> dict[str, float]:
        """Return the figures of the run."""
        return {
            Metrics.BARS: len(self.bars),
            Metrics.BARS_SEGMENTS: self.summary["segments"],
            Metrics.BARS_INSTRUMENTS: len(self.bars.symbols),
            Metrics.BARS_LONGEST_SEGMENT: self.summary["longest_segment"],
            Metrics.BARS_DAYS: self.summary["days"],
            Metrics.BARS_ROLLS: len(self.summary["rolls"]),
        }

    def headline(self) -> str:
        """Return how many bars there are, and from when to when."""
        summary = self.summary
        of = "" if self.bars.minutes == 1 else f" of {length_text(self.bars.minutes)}"
        return (
            f"{len(self.bars):,} bars{of}, instruments: {len(self.bars.symbols):,}, segments: {summary['segments']:,}, "
            f"{summary['first']} to {summary['last']}"
        )

    def next_command(self) -> str:
        """Return the command that trains on these bars."""
        longer = "" if self.bars.minutes == 1 else f" --bars.minutes {self.bars.minutes}"
        return f"moola pretrain --bars {shlex.quote(str(self.path))}{longer}"

    def note(self) -> str:
        """Return the Markdown note of the run."""
        command = self.next_command()
        table = markdown_table(COLUMNS, [[row[key] for key in COLUMNS] for row in self.rows[:SHOWN]])
        more = f"\n\n{self._more()}" if self._more() else ""
        return (
            f"**{self.headline()}.**\n\n{table}{more}\n\nPictures: `figures/bars_coverage.png`, "
            f"`figures/bars_price.png`. Content SHA-256 `{self.bars.sha256}`.\n\n"
            f"Next: `{markdown_text(command) if '`' in command else command}`"
        )

    def console_table(self) -> Table:
        """Return the table of instruments that the console shows."""
        table = Table(*COLUMNS)
        for row in self.rows[:SHOWN]:
            table.add_row(*(_cell(row[key]) if key != "id" else str(row[key]) for key in COLUMNS))
        return table

    def console_lines(self) -> list[str]:
        """Return the lines that the console shows below the table."""
        summary = self.summary
        gaps = ", ".join(f"{gap['minutes']:,} min from {gap['from']}" for gap in summary["longest_gaps"][:3])
        return [
            *([self._more()] if self._more() else []),
            f"{summary['days']:,} days, {summary['bars_per_day']:,.0f} bars on a usual day; "
            f"rolls: {len(summary['rolls'])}; longest gaps: {gaps or 'none'}",
            f"{self.headline()} -> {self.path.resolve()}",
            f"sha256 {self.bars.sha256}",
            f"Next: {self.next_command()}",
        ]

    def pictures(self) -> dict[str, CoveragePicture | PricePicture]:
        """Return the pictures by the names of their artifacts. Only what shares a price axis has one of prices."""
        bars, runs = self.bars, segments(self.bars, self.max_gap_minutes)
        changes = rolls(bars, runs)
        keys = take_rows(bars.instrument, runs[:, 0])
        names = sorted({bars.symbols[key] for key in np.unique(keys).tolist()})
        if changes or len(names) == 1:
            prices = PricePicture.of(bars, runs, " ".join(names[:4]), changes)
        else:
            # Instruments that lie one behind another share no price axis: the one with most bars is shown.
            sizes = {key: int((runs[keys == key, 1] - runs[keys == key, 0]).sum()) for key in np.unique(keys).tolist()}
            largest = max(sizes, key=lambda key: sizes[key])
            prices = PricePicture.of(bars, runs[keys == largest], bars.symbols[largest], [])
        coverage = CoveragePicture(*bars_per_day(bars), changes)
        return {Artifacts.BARS_COVERAGE_FIGURE: coverage, Artifacts.BARS_PRICE_FIGURE: prices}

    def _more(self) -> str:
        left = len(self.bars.symbols) - SHOWN
        return f"and {left:,} more instruments: {Artifacts.BARS_INSTRUMENTS}" if left > 0 else ""


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value).replace("[", r"\[")  # rich reads [x] as a style
