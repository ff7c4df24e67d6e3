"""Lines become bars with the rules of a file, whether they come one by one or all at once."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from moola_mlflow.bars.from_pandas import bars_from_table
from moola_mlflow.bars.live_lines import BadLine, LineReader, LiveBar
from moola_mlflow.bars.sample import generate_bars
from moola_mlflow.bars.seen import SeenBars
from moola_mlflow.core import BarsConfig
from moola_mlflow.core.errors import UserError


def frame(num: int = 300) -> pd.DataFrame:
    made = generate_bars(num, 5)
    return pd.DataFrame({"time": made.index.strftime("%Y-%m-%dT%H:%M:%SZ"), **{n: made[n].to_numpy() for n in made}})


def csv_lines(table: pd.DataFrame, separator: str = ",") -> list[str]:
    return table.to_csv(index=False, sep=separator).splitlines()


def reader(**keys: Any) -> LineReader:
    return LineReader(BarsConfig(**keys), "live")


def read_all(lines: list[str], at_once: int, **keys: Any) -> list[LiveBar | BadLine]:
    one, out = reader(**keys), list[LiveBar | BadLine]()
    for first in range(0, len(lines), at_once):
        out += one.read(lines[first : first + at_once])
    return out


@pytest.mark.parametrize("at_once", [1, 7, 1000])
@pytest.mark.parametrize("form", ["comma", "semicolon", "json"])
def test_lines_give_the_bars_of_the_same_table(at_once: int, form: str) -> None:
    table = frame()[["time", "open", "high", "low", "close", "volume"]]
    lines = csv_lines(table, ";" if form == "semicolon" else ",")
    if form == "json":
        lines = [json.dumps(row) for row in table.to_dict("records")]
    found, seen = read_all(lines, at_once), SeenBars()
    for bar in found:
        assert isinstance(bar, LiveBar)
        seen.add(bar)
    wanted, bars = bars_from_table(table), seen.bars("live")
    np.testing.assert_array_equal(bars.time_ns, wanted.time_ns)
    np.testing.assert_array_equal(bars.ohlc, wanted.ohlc)
    np.testing.assert_array_equal(bars.volume, wanted.volume)
    assert (bars.files[0].rows, bars.files[0].sha256) == (300, bars.sha256)


def test_epochs_clocks_end_stamps_and_named_columns_are_read_as_in_a_file() -> None:
    table = frame(100)
    start = pd.to_datetime(table["time"])
    epochs = table.assign(time=[int(t.timestamp()) for t in start])
    local = table.assign(time=start.dt.tz_convert("America/New_York").dt.strftime("%Y-%m-%d %H:%M"))
    named = table.rename(columns={"time": "when", "close": "settle"})
    wanted = [bar.time_ns for bar in read_all(csv_lines(table), 1)]  # type: ignore[union-attr]
    for lines, keys in (
        (csv_lines(epochs), {}),
        (csv_lines(local), {"timezone": "America/New_York"}),
        (csv_lines(named), {"columns": {"time": "when", "close": "settle"}}),
    ):
        assert [bar.time_ns for bar in read_all(lines, 1, **keys)] == wanted  # type: ignore[union-attr]
    late = read_all(csv_lines(table), 9, stamp="end")
    assert [bar.time_ns + 60_000_000_000 for bar in late] == wanted  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2024-01-02 00:00,1,2", "has 3 fields, the header has 6"),
        ("yesterday,1,2,0,1,5", "time 'yesterday' does not parse"),
        ("2030-01-02T00:00:00Z,1,2,0,high,5", "close is not a finite number"),
        ("2030-01-02T00:00:00Z,5,2,0,1,5", "high 2 is below max(open, close) 5"),
        ('{"time": 1', "is not JSON"),
        ('{"time": "2030-01-02"}', "lacks open, high, low, close, volume"),
    ],
)
def test_a_line_that_holds_no_bar_is_named_with_its_reason_and_the_next_one_is_read(line: str, reason: str) -> None:
    lines = csv_lines(frame(80)[["time", "open", "high", "low", "close", "volume"]])
    found = read_all([*lines[:70], line, *lines[70:]], 1)
    (bad,) = [one for one in found if isinstance(one, BadLine)]
    assert bad.number == 71
    assert reason in bad.reason
    assert len(found) == 81


def test_instruments_are_told_apart_chosen_or_refused() -> None:
    table = pd.concat([frame(40).assign(symbol="ESH4"), frame(40).assign(symbol="NQH4")]).sort_values(
        "time", kind="stable"
    )
    every = read_all(csv_lines(table), 1, instrument="all")
    assert [bar.instrument for bar in every] == ["ESH4", "NQH4"] * 40  # type: ignore[union-attr]
    one = read_all(csv_lines(table), 3, instrument="NQH4")
    assert {bar.instrument for bar in one} == {"NQH4"}  # type: ignore[union-attr]
    with pytest.raises(UserError, match=r"holds the instruments ESH4 and NQH4, and bars\.instrument is unset"):
        read_all(csv_lines(table), 1)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"instrument": "front"}, "bars.instrument=front needs the volume of whole days"),
        ({"resample": "1min"}, "bars.resample=1min cannot follow bars"),
        ({"instrument_from": "file"}, "bars.instrument_from=file cannot follow bars"),
    ],
)
def test_keys_that_need_the_whole_file_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        reader(**keys)


def test_what_is_not_understood_at_all_is_refused() -> None:
    with pytest.raises(UserError, match="no time column"):
        read_all(["a,b", "1,2"], 1)
    with pytest.raises(UserError, match="line 2: time 'x' does not parse"):
        read_all(["time,open,high,low,close", *["x,1,2,0,1"] * 30], 30)
    slow = frame(400).iloc[::5]
    with pytest.raises(UserError, match="these are not one-minute bars"):
        read_all(csv_lines(slow), 1)
    with pytest.raises(UserError, match="the newest line comes first"):
        read_all(csv_lines(frame(30).iloc[::-1]), 50)
