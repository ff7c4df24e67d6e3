"""Make files of the same 130 bars as vendors write them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

NUM = 130
START = pd.Timestamp("2021-03-16 15:00")
PRICES = ["open", "high", "low", "close"]
CYCLE = [51.75, 50.75, 52.5, 51.5, 50.5, 52.25, 51.25, 50.25, 52.0, 51.0, 50.0]
CLOSE = float(np.resize(CYCLE, NUM)[-1])
VOLUME = float((10 + np.arange(NUM) % 11).sum())


def bars(num: int = NUM, start: pd.Timestamp = START, step: str = "1min") -> pd.DataFrame:
    """Return bars whose closes repeat every eleven rows; none is like its neighbours."""
    close = np.resize(CYCLE, num)
    first = np.concatenate([[50.0], close[:-1]])
    high, low = np.maximum(first, close) + 0.5, np.minimum(first, close) - 0.5
    volume = 10 + np.arange(num) % 11
    times = pd.date_range(start, periods=num, freq=step)
    return pd.DataFrame({"time": times, "open": first, "high": high, "low": low, "close": close, "volume": volume})


@dataclass(frozen=True)
class Form:
    """A form of a file. ``refused`` is what the message must say; without it, the bars are read as expected."""

    kind: str
    what: str
    make: Callable[[Path], Path]
    refused: str = ""
    keys: dict[str, Any] = field(default_factory=dict)
    first: str = "2021-03-16T15:00"
    num: int = NUM
    close: float = CLOSE
    volume: float = VOLUME
    says: str = ""
    """What a note must say about the file."""


def text(name: str, content: str | bytes) -> Callable[[Path], Path]:
    """Return a maker of a file with this content."""

    def make(folder: Path) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make


def table(columns: list[str] | None, rows: list[list[object]], sep: str = ",", end: str = "\n") -> str:
    """Return rows as text, below a header if there is one."""
    lines = [*([sep.join(columns)] if columns else []), *(sep.join(map(str, row)) for row in rows)]
    return end.join(lines) + end


HEADER = ["time", *PRICES, "volume"]


def rows_of(frame: pd.DataFrame, stamp: str | Callable[[pd.Timestamp], object]) -> list[list[object]]:
    """Return rows whose times are written in a form."""
    write = (lambda t: t.strftime(stamp)) if isinstance(stamp, str) else stamp
    return [[write(t), o, h, low, c, v] for t, o, h, low, c, v in frame[HEADER].itertuples(index=False)]


def stamped(stamp: str | Callable[[pd.Timestamp], object], columns: list[str] | None = None, sep: str = ",") -> Any:
    """Return a maker of a CSV file whose times have a form. A tab in the form separates date and time."""
    rows = rows_of(bars(), stamp)
    rows = [[*str(row[0]).split("\t"), *row[1:]] for row in rows] if isinstance(stamp, str) and "\t" in stamp else rows
    return text("bars.csv", table(columns or HEADER, rows, sep))


def epoch(unit: int) -> Callable[[pd.Timestamp], object]:
    return lambda t: t.value // unit


ISO = "%Y-%m-%d %H:%M"


def changed(rows: dict[int, dict[str, object]], num: int = NUM) -> Any:
    """Return a maker of a CSV file with other values in some cells."""
    frame = bars(num).astype({"volume": object, **dict.fromkeys(PRICES, object)})
    for row, cells in rows.items():
        for name, value in cells.items():
            frame.loc[row, name] = value
    return text("bars.csv", table(HEADER, rows_of(frame, ISO)))


def volumes(write: Callable[[int], object], name: str = "volume") -> Any:
    frame = bars()
    return text(
        "bars.csv",
        table(
            ["time", *PRICES, name],
            [[*row[:5], write(v)] for row, v in zip(rows_of(frame, ISO), frame["volume"], strict=True)],
        ),
    )


def every(num: int, cells: dict[str, object]) -> dict[int, dict[str, object]]:
    return dict.fromkeys(range(0, NUM, num), cells)


def parts(*frames: pd.DataFrame) -> Any:
    return text("bars.csv", table(HEADER, rows_of(pd.concat(frames), ISO)))


def below(frame: pd.DataFrame, **cells: object) -> pd.DataFrame:
    return frame.assign(**cells)


def folder(**files: str) -> Callable[[Path], Path]:
    def make(here: Path) -> Path:
        for name, content in files.items():
            (here / "months").mkdir(exist_ok=True)
            (here / "months" / f"{name}.csv").write_text(content)
        return here / "months"

    return make


def days(day: str, form: str, num: int = NUM) -> str:
    return table(HEADER, rows_of(bars(num, pd.Timestamp(f"{day} 15:00")), form))


PLAIN = table(HEADER, rows_of(bars(), ISO))


def filled() -> Any:
    frame = bars(530)
    frame.loc[NUM:, PRICES] = frame.loc[NUM - 1, "close"]
    frame.loc[NUM:, "volume"] = 0
    return text("bars.csv", table(HEADER, rows_of(frame, ISO)))


def packed(name: str, pack: Callable[[bytes], bytes]) -> Any:
    return text(name, pack(PLAIN.encode()))


def zipped(here: Path) -> Path:
    with zipfile.ZipFile(here / "bars.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bars.csv", PLAIN)
    return here / "bars.zip"


def parquet(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], Path]:
    def make(here: Path) -> Path:
        change(bars()).to_parquet(here / "bars.parquet")
        return here / "bars.parquet"

    return make


def columns_of(*names: str, stamp: str = ISO, cells: Callable[[list[object]], list[object]] = list) -> Any:
    return text("bars.csv", table(list(names), [cells(row) for row in rows_of(bars(), stamp)]))


def arrow(name: str) -> Callable[[Path], Path]:
    def make(here: Path) -> Path:
        bars().to_feather(here / name)
        return here / name

    return make


def ticks() -> Any:
    """Return a maker of trades: open, high, low and close of each minute, one after another."""
    rows = []
    for t, o, h, low, c, v in bars()[HEADER].itertuples(index=False):
        trades = zip((o, h, low, c), (0, 20, 20, 59.5), (v, v, v, 0), strict=True)
        rows += [[(t + pd.Timedelta(seconds=at)).isoformat(), price, size] for price, at, size in trades]
    return text("ticks.csv", table(["time", "price", "size"], rows))


def seconds(late: int = 0) -> Any:
    """Return a maker of bars of 15 seconds, four of which are a minute."""
    rows = []
    for t, o, h, low, c, v in bars()[HEADER].itertuples(index=False):
        quarters = ((o, h, o, o), (o, o, low, low), (low, low, low, low), (low, c, low, c))
        rows += [[t + pd.Timedelta(seconds=15 * k + late), *prices, v] for k, prices in enumerate(quarters)]
    return text("bars.csv", table(HEADER, rows))
