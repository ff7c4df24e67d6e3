"""Bars of five and fifteen minutes: how they are read, made and stored, and who refuses them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from moola_mlflow.bars.clocks import market_zone
from moola_mlflow.bars.ingest import ingest_bars
from moola_mlflow.bars.reader import Bars, read_bars, segments, write_parquet, write_store
from moola_mlflow.bars.stamps import stamp_warning
from moola_mlflow.bars.zones import MINUTE_NS
from moola_mlflow.core import BarsConfig, UserError, make_config
from moola_mlflow.core.config.commands import DataKeys

SAMPLE = read_bars(BarsConfig(sample_bars=6_000))


def written(folder: Path, minutes: int = 1, **columns: Any) -> Path:
    """Sample bars as CSV, put together by pandas. Sessions begin on quarters of an hour, as buckets of pandas do."""
    o, h, low, c = SAMPLE.ohlc.T
    index = pd.DatetimeIndex(SAMPLE.time_ns, tz="UTC", name="time")
    frame = pd.DataFrame({"open": o, "high": h, "low": low, "close": c, "volume": SAMPLE.volume}, index=index)
    how = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    frame = frame.resample(f"{minutes}min").agg(how).dropna()
    path = folder / f"bars-{minutes}.csv"
    frame.assign(**columns).to_csv(path)
    return path


def read(path: Path, **keys: Any) -> Bars:
    return read_bars(BarsConfig(path=str(path), **keys))


@pytest.mark.parametrize("minutes", [5, 15])
def test_minutes_put_together_are_the_bars_of_pandas(tmp_path: Path, minutes: int) -> None:
    made = read(written(tmp_path), resample=f"{minutes}min")
    given = read(written(tmp_path, minutes), minutes=minutes)
    assert made.sha256 == given.sha256
    assert (made.minutes, given.minutes, made.length_ns) == (minutes, minutes, minutes * MINUTE_NS)
    assert 6_000 / minutes <= len(made) < 6_200 / minutes
    assert "combined into" in " ".join(made.notes)


def test_the_ends_of_bars_are_moved_by_a_bar(tmp_path: Path) -> None:
    path = written(tmp_path, 5)
    ends = pd.read_csv(path, parse_dates=["time"])
    ends["time"] += pd.Timedelta("5min")
    ends.to_csv(tmp_path / "ends.csv", index=False)
    assert read(tmp_path / "ends.csv", minutes=5, stamp="end").sha256 == read(path, minutes=5).sha256


def test_minutes_with_their_ends_as_times_make_the_same_longer_bars(tmp_path: Path) -> None:
    frame = pd.read_csv(written(tmp_path), parse_dates=["time"])
    frame["time"] += pd.Timedelta("1min")
    frame.to_csv(tmp_path / "ends.csv", index=False)
    bars = read(tmp_path / "ends.csv", resample="5min", stamp="end")
    assert bars.sha256 == read(written(tmp_path, 5), minutes=5).sha256


@pytest.mark.parametrize(
    ("minutes", "keys", "cure"),
    [
        (5, {}, "these are not one-minute bars .*say so with --bars.minutes 5"),
        (15, {}, "say so with --bars.minutes 15"),
        (1, {"minutes": 5}, "these are not 5-minute bars .*the usual step is 60 s.*--bars.resample 5min"),
        (5, {"minutes": 15}, "these are not 15-minute bars .*--bars.resample 15min"),
        (15, {"minutes": 5}, "these are not 5-minute bars .*a multiple of 900 s.*--bars.minutes 15"),
        (5, {"resample": "1min"}, "these are not one-minute bars"),
    ],
)
def test_bars_of_another_length_are_refused_with_the_key_that_reads_them(
    tmp_path: Path, minutes: int, keys: dict[str, Any], cure: str
) -> None:
    with pytest.raises(UserError, match=cure):
        read(written(tmp_path, minutes), **keys)


def test_a_stretch_of_single_minutes_among_longer_bars_is_refused(tmp_path: Path) -> None:
    five, one = (pd.read_csv(written(tmp_path, minutes)) for minutes in (5, 1))
    pd.concat([five[:300], one[1_600:1_640], five[400:]]).to_csv(tmp_path / "mixed.csv", index=False)
    with pytest.raises(UserError, match="the bars are one minute apart"):
        read(tmp_path / "mixed.csv", minutes=5)


@pytest.mark.parametrize("ingested", [False, True])
def test_a_store_knows_the_length_of_its_bars(tmp_path: Path, ingested: bool) -> None:
    path, config = written(tmp_path), BarsConfig(path=str(written(tmp_path)), resample="5min", instrument="all")
    bars = read(path, resample="5min")
    if ingested:
        ingest_bars(config, tmp_path / "bars.moolabars")
    else:
        write_store(bars, tmp_path / "bars.moolabars", config.max_gap_minutes)
    stored = read(tmp_path / "bars.moolabars", minutes=5)
    assert (stored.sha256, stored.minutes, stored.head(200).minutes) == (bars.sha256, 5, 5)
    assert np.array_equal(segments(stored, 25), segments(bars, 25))
    with pytest.raises(UserError, match=r"holds bars of 5 minutes; set bars.minutes=5"):
        read(tmp_path / "bars.moolabars")


def test_a_written_parquet_of_longer_bars_asks_for_their_length(tmp_path: Path) -> None:
    bars = read(written(tmp_path), resample="15min")
    write_parquet(bars, tmp_path / "b.parquet")
    assert read(tmp_path / "b.parquet", minutes=15).sha256 == bars.sha256
    with pytest.raises(UserError, match=r"--bars\.minutes 15"):
        read(tmp_path / "b.parquet")


def test_a_segment_may_hold_gaps_of_five_bars_unless_told_otherwise(tmp_path: Path) -> None:
    assert BarsConfig(minutes=5).max_gap_minutes == 25
    assert BarsConfig(resample="15min").max_gap_minutes == 75
    assert BarsConfig(resample="15min", max_gap_minutes=20).max_gap_minutes == 20
    assert BarsConfig().max_gap_minutes == 5
    with pytest.raises(ValueError, match="less than a bar of 15 minutes"):
        BarsConfig(minutes=15, max_gap_minutes=5)
    bars = read(written(tmp_path), resample="15min")
    assert len(segments(bars)) == len(segments(bars, 15)) < 20


def test_what_resample_makes_is_the_length_and_another_is_refused() -> None:
    assert BarsConfig(resample="5min").minutes == 5
    with pytest.raises(ValueError, match="leave one of the two out"):
        BarsConfig(resample="5min", minutes=1)
    with pytest.raises(UserError, match=r"bars.minutes"):
        make_config(DataKeys, {}, {"bars.minutes": "7"})
    for value in ([5], {"a": 1}, "9" * 5_000, "5.0", None):
        with pytest.raises(ValueError, match="resample"):
            BarsConfig.model_validate({"resample": [value], "minutes": value})
        with pytest.raises(UserError, match=r"bars\.resample"):
            make_config(DataKeys, {"bars": {"resample": [value]}}, {})
    config = make_config(DataKeys, {}, {"bars.minutes": "5"})
    again = make_config(DataKeys, config.model_dump(mode="json"), {})
    assert (again.bars.minutes, again.bars.max_gap_minutes) == (5, 25)


def test_clock_and_stamps_are_looked_at_with_the_length_of_a_bar() -> None:
    days = np.arange(20)
    opens = pd.Timestamp("2024-01-08 14:30", tz="UTC").value + days * 24 * 60 * MINUTE_NS
    times = (opens[:, None] + 5 * MINUTE_NS * np.arange(78)).ravel()
    one = np.zeros(len(times), np.int64)
    assert market_zone(times, one, 5) == "America/New_York"
    assert stamp_warning(times, one, "start", 5) is None
    assert "set --bars.stamp end" in str(stamp_warning(times + 5 * MINUTE_NS, one, "start", 5))
    assert "set --bars.stamp start" in str(stamp_warning(times - 5 * MINUTE_NS, one, "end", 5))
    assert stamp_warning(times + 5 * MINUTE_NS, one, "start", 15) is None
