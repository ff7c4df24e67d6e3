"""A table in memory, as the library and the server get it, is read by the rules of files."""

from __future__ import annotations

import pandas as pd
import pytest
from bar_makers import NUM, PRICES, bars

from moola_mlflow.bars.from_pandas import bars_from_table
from moola_mlflow.bars.reader import Bars
from moola_mlflow.core import BarsConfig, UserError


def read(frame: pd.DataFrame) -> Bars:
    return bars_from_table(frame, 1)


def with_row(row: int, **cells: float) -> pd.DataFrame:
    frame = bars().astype(dict.fromkeys(PRICES, float))
    for name, value in cells.items():
        frame.loc[row, name] = value
    return frame


def sierra() -> pd.Series:
    """Return times in microseconds since 1899-12-30."""
    return bars()["time"].astype("datetime64[us]").astype("int64") + 25569 * 86400 * 10**6


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (with_row(40, **dict.fromkeys(PRICES, 0.0)), "row 41: open 0, .*far from the prices around it"),
        (bars(step="5min"), "not one-minute bars"),
        (bars().assign(volume="1 lot"), "volume '1 lot' is not a number"),
        (
            bars().assign(time=bars()["time"].astype("datetime64[us]").astype("int64") + 25569 * 86400 * 10**6),
            "bars.epoch",
        ),
        (bars().assign(time=bars()["time"].dt.strftime("%d/%m/%Y soon")), "does not parse"),
    ],
)
def test_what_a_file_is_refused_for_a_table_is_refused_for(frame: pd.DataFrame, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read(frame)


@pytest.mark.parametrize(
    "frame",
    [
        bars(),
        bars()[::-1],
        bars().set_index("time"),
        bars().assign(time=bars()["time"].dt.strftime("%d.%m.%Y %H:%M")),
        bars().assign(time=bars()["time"].dt.strftime("%m/%d/%Y %I:%M %p UTC")),
        bars().rename(columns={"time": "open_time", "close": "Last"}),
        bars()
        .assign(Date=bars()["time"].dt.strftime("%Y%m%d"), Time=bars()["time"].dt.strftime("%H%M"))
        .drop(columns="time"),
        bars().assign(volume=[f"{v / 1000}K" for v in bars()["volume"]]),
    ],
)
def test_what_is_read_from_a_file_is_read_from_a_table(frame: pd.DataFrame) -> None:
    found, plain = read(frame), read(bars())
    assert (len(found), found.sha256) == (NUM, plain.sha256)


def test_a_zone_and_an_instrument_may_be_given_as_for_a_file() -> None:
    frame = bars()
    there = bars_from_table(frame, 1, config=BarsConfig(timezone="America/New_York"))
    assert (there.time_ns - read(frame).time_ns).tolist() == [4 * 3600 * 10**9] * len(there)
    both = pd.concat([frame.assign(symbol="ESZ5"), frame.assign(symbol="NQZ5")])
    assert len(read(both)) == 2 * len(read(frame))
    assert list(bars_from_table(both, 1, config=BarsConfig(instrument="NQZ5")).symbols.values()) == ["NQZ5"]
    with pytest.raises(UserError, match="YMZ5"):
        bars_from_table(both, 1, config=BarsConfig(instrument="YMZ5"))
