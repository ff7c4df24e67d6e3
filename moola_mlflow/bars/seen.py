"""Bars that came one by one, kept as a table: a scan of them, and the report, need it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from moola_mlflow.bars.live_lines import LiveBar
from moola_mlflow.bars.reader import Bars, SourceFile


class SeenBars:
    """Collects bars in the order in which they come."""

    def __init__(self) -> None:
        self._rows: list[LiveBar] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, bar: LiveBar) -> None:
        """Keep one more bar."""
        self._rows.append(bar)

    def bars(self, name: str, minutes: int = 1) -> Bars:
        """Return the bars as a table, one instrument behind another.

        ``name`` is that of their source, ``minutes`` the length of a bar.
        """
        symbols = dict(enumerate(dict.fromkeys(bar.instrument for bar in self._rows)))
        key_of = {symbol: key for key, symbol in symbols.items()}
        key = np.array([key_of[bar.instrument] for bar in self._rows], np.int64)
        time_ns = np.array([bar.time_ns for bar in self._rows], np.int64)
        ohlc = np.array([bar.ohlc for bar in self._rows], np.float64).reshape(-1, 4)
        volume = np.array([bar.volume for bar in self._rows], np.float64)
        bars = Bars(time_ns, ohlc, volume, key, symbols, (), "", {}).rows(np.lexsort((time_ns, key)))
        source = SourceFile(Path(name), bars.sha256, len(bars))
        return Bars(
            bars.time_ns, bars.ohlc, bars.volume, bars.instrument, bars.symbols, (source,), bars.sha256, {},
            minutes=minutes,
        )  # fmt: skip
