"""The embedded sample bars: reproducible, on the exchange's clock, and rich enough to learn and label from."""

from __future__ import annotations

import hashlib
import runpy
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import ROOT

from moola_mlflow.bars.sample import TICK, generate_bars

# Belongs to the numpy pinned in pyproject.toml: another numpy may draw other numbers from the same seed. A change here
# changes everybody's default bars: say so in the CHANGELOG, and make the table of docs/explanation/sample.md anew.
SAMPLE_SHA256 = "5addf16111672300bef1795df4384574a68d7ba608fea3635fe1547e2d536ec3"
PRICES = ["open", "high", "low", "close"]


@pytest.fixture(scope="module")
def sample() -> pd.DataFrame:
    return generate_bars()


@pytest.fixture(scope="module")
def realism() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "benchmarks" / "science" / "realism.py"))


def sha256(frame: pd.DataFrame) -> str:
    digest = hashlib.sha256(pd.DatetimeIndex(frame.index).asi8.tobytes())
    for name in frame.columns:
        column = frame[name]
        digest.update("\n".join(column).encode() if name == "symbol" else column.to_numpy().tobytes())
    return digest.hexdigest()


def new_york(frame: pd.DataFrame) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(frame.index).tz_convert("America/New_York")


def test_the_same_seed_gives_the_same_bytes_today_and_in_every_release(sample: pd.DataFrame) -> None:
    assert sha256(generate_bars()) == sha256(sample)
    assert sha256(sample) == SAMPLE_SHA256


@given(st.integers(0, 2**32), st.integers(0, 2**32))
@settings(max_examples=10, deadline=None)
def test_two_seeds_give_two_series_on_one_clock(one: int, other: int) -> None:
    a, b = generate_bars(500, one), generate_bars(500, other)
    assert a.index.equals(b.index)
    assert (one == other) == a.equals(b)


def test_the_global_random_state_is_neither_read_nor_moved() -> None:
    before = repr(np.random.get_state())  # noqa: NPY002
    first = generate_bars(100)
    assert repr(np.random.get_state()) == before  # noqa: NPY002
    assert generate_bars(100).equals(first)


def test_the_layout_is_the_one_of_databento_to_df(sample: pd.DataFrame) -> None:
    assert sample.index.name == "ts_event"
    assert str(sample.index.dtype) == "datetime64[ns, UTC]"
    assert {name: str(kind) for name, kind in sample.dtypes.items()} == {
        "rtype": "uint8",
        "publisher_id": "uint16",
        "instrument_id": "uint32",
        **dict.fromkeys(PRICES, "float64"),
        "volume": "uint64",
        "symbol": "str",
    }
    assert set(sample["rtype"]) == {33}
    assert not sample.isna().to_numpy().any()


@given(st.integers(1, 4_500), st.integers(0, 1_000))
@settings(max_examples=25, deadline=None)
def test_any_number_of_bars_is_met_exactly_and_every_bar_is_sound(num_bars: int, seed: int) -> None:
    bars = generate_bars(num_bars, seed)
    assert len(bars) == num_bars
    assert bars.index.is_monotonic_increasing
    assert bars.index.is_unique
    assert_sound(bars)


def test_the_whole_sample_is_sound(sample: pd.DataFrame) -> None:
    assert len(sample) == 200_000
    assert_sound(sample)


def assert_sound(bars: pd.DataFrame) -> None:
    prices = bars[PRICES].to_numpy()
    assert (prices > 0).all()
    assert (prices / TICK == np.rint(prices / TICK)).all(), "off the tick grid"
    assert (bars["high"] == bars[PRICES].max(axis=1)).all()
    assert (bars["low"] == bars[PRICES].min(axis=1)).all()
    assert (bars["volume"] >= 1).all()


def test_fewer_bars_than_one_are_refused_with_the_value() -> None:
    with pytest.raises(ValueError, match="num_bars is 0: at least 1"):
        generate_bars(0)


def test_sessions_run_from_18_to_17_in_new_york_all_through_the_year() -> None:
    bars = generate_bars(320_000)  # from January past both changes of daylight saving
    local = new_york(bars)
    assert {t.strftime("%z") for t in local[::1380]} == {"-0500", "-0400"}
    assert local[-1] > pd.Timestamp("2023-11-06", tz="America/New_York")

    is_open = np.diff(local.asi8, prepend=0) != 60_000_000_000
    opens = local[is_open]
    assert ((opens.hour == 18) & (opens.minute == 0)).all()
    assert (np.diff(np.flatnonzero(is_open)) == 23 * 60).all(), "a session lacks minutes"
    assert not (local.hour == 17).any(), "bars in the daily break"


def test_weekends_are_shut(sample: pd.DataFrame) -> None:
    local = new_york(sample)
    assert not (local.day_of_week == 5).any()
    assert (local.hour[local.day_of_week == 6] >= 18).all()
    assert (local.hour[local.day_of_week == 4] < 17).all()


def test_the_sample_rolls_exactly_twice_each_time_at_an_open_and_with_a_price_step(sample: pd.DataFrame) -> None:
    rolls = np.flatnonzero(np.diff(sample["instrument_id"].to_numpy().astype(np.int64)))
    assert list(dict.fromkeys(sample["symbol"])) == ["SYNH3", "SYNM3", "SYNU3"]
    assert sample.groupby("symbol")["instrument_id"].nunique().eq(1).all()
    assert len(rolls) == 2
    opens = new_york(sample)[rolls + 1]
    assert [str(day) for day in opens.date] == ["2023-03-12", "2023-06-11"]
    assert (opens.hour == 18).all()
    steps = sample["open"].to_numpy()[rolls + 1] - sample["close"].to_numpy()[rolls]
    assert (np.abs(steps) > 20).all(), "the new expiry trades at another price"


@pytest.mark.parametrize("seed", [1, 2, 17])
def test_about_a_tenth_of_the_minutes_have_no_range_and_most_of_them_are_at_night(seed: int) -> None:
    bars = generate_bars(seed=seed)
    still = bars["high"] == bars["low"]
    hour = new_york(bars).hour
    assert 0.05 < still.mean() < 0.16
    assert ((hour >= 18) | (hour < 3))[still].mean() > 0.6


def test_volatility_has_the_days_shape_and_a_long_memory(sample: pd.DataFrame, realism: dict[str, Any]) -> None:
    row = realism["measure"](sample)
    assert row["range 09:30-10:00 / day's mean"] > 1.5 > row["range 12:00-13:30 / day's mean"] > 1
    assert row["range 20:00-24:00 / day's mean"] < 0.6
    memory = [row[f"autocorrelation of log range, lag {lag}"] for lag in (1, 20, 120)]
    assert memory == sorted(memory, reverse=True)
    assert memory[-1] > 0.2
    assert row["kurtosis of return / half-hour profile"] > 4, "tails are fat: jumps"


def test_the_past_says_next_to_nothing_about_the_next_move(sample: pd.DataFrame, realism: dict[str, Any]) -> None:
    in_sample, held_out = realism["predictability"](realism["to_bars"](sample))
    assert in_sample < 0.05
    assert held_out < 0.05


@pytest.mark.parametrize("seed", [1, 2, 17])
def test_the_weak_label_rule_finds_plenty_of_both_classes(seed: int, realism: dict[str, Any]) -> None:
    bars = realism["to_bars"](generate_bars(seed=seed))
    found = realism["weak_labels"](realism["windows"](bars, 105, 105))
    counts = {name: int((found == name).sum()) for name in ("retracement", "consolidation")}
    assert sum(counts.values()) >= 400
    assert 0.25 < counts["retracement"] / sum(counts.values()) < 0.75
