"""Session breaks tell which clock a file has; bars that were read on the right clock get no advice."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from moola_mlflow.bars.clocks import clock_hint, market_zone
from moola_mlflow.bars.sample import generate_bars
from moola_mlflow.bars.times import localise


def sessions(zone: str, begins: str, ends: str, days: int = 30, start: str = "2024-02-20") -> np.ndarray:
    """Return the UTC times of bars of a market with these hours on the clock of its zone."""
    parts = []
    for day in pd.bdate_range(start, periods=days):
        first = day + pd.Timedelta(f"{begins}:00")
        last = day + pd.Timedelta(f"{ends}:00")
        last += pd.Timedelta(days=1 if last <= first else 0)
        parts.append(pd.date_range(first, last, freq="min", inclusive="left"))
    clock = pd.DatetimeIndex(np.concatenate(parts)).as_unit("ns").asi8
    return localise(clock, np.zeros(len(clock), np.int64), zone)[0]


def hint(time_ns: np.ndarray, zone: str = "UTC") -> str | None:
    return clock_hint(time_ns, np.zeros(len(time_ns), np.int64), zone)


MARKETS = [
    ("America/New_York", "18:00", "17:00"),
    ("America/New_York", "09:30", "16:00"),
    ("America/Chicago", "17:00", "16:00"),
    ("America/Chicago", "08:30", "15:15"),
    ("Europe/Berlin", "09:00", "17:30"),
]


@pytest.mark.parametrize(("zone", "begins", "ends"), MARKETS)
def test_clock_times_that_were_read_as_utc_are_named(zone: str, begins: str, ends: str) -> None:
    found = hint(sessions("UTC", begins, ends))
    assert found is not None
    assert f"set --bars.timezone {zone}" in found


@pytest.mark.parametrize(("zone", "begins", "ends"), MARKETS)
def test_the_right_clock_gets_no_advice(zone: str, begins: str, ends: str) -> None:
    times = sessions(zone, begins, ends)
    assert hint(times) is None
    assert hint(times, zone) is None


def test_new_york_named_for_a_file_with_chicagos_clock_is_seen() -> None:
    found = hint(sessions("America/New_York", "17:00", "16:00"), "America/New_York")
    assert found is not None
    assert "set --bars.timezone America/Chicago" in found


def test_an_end_stamp_a_thin_minute_and_a_short_day_do_not_hide_it() -> None:
    times = sessions("UTC", "09:30", "16:00")
    kept = np.random.default_rng(0).random(len(times)) < 0.9
    assert "America/New_York" in str(hint(times[kept] + 60_000_000_000))


def test_days_and_nights_without_a_break_and_the_sample_say_nothing() -> None:
    assert hint(np.arange(20_000, dtype=np.int64) * 60_000_000_000) is None
    sample = pd.DatetimeIndex(generate_bars(40_000, 1).index).as_unit("ns").asi8
    assert hint(sample) is None


@pytest.mark.parametrize(("zone", "begins", "ends"), MARKETS)
def test_the_hours_of_sessions_tell_the_clock_of_the_exchange(zone: str, begins: str, ends: str) -> None:
    time_ns = sessions(zone, begins, ends)
    same_hours = {"17:00": "America/New_York", "09:00": "Europe/London"}  # the hours of two towns may be one session
    assert market_zone(time_ns, np.zeros(len(time_ns), np.int64)) == same_hours.get(begins, zone)


def test_a_few_bars_are_shown_in_utc() -> None:
    time_ns = sessions("America/New_York", "09:30", "16:00", days=1)
    assert market_zone(time_ns, np.zeros(len(time_ns), np.int64)) == "UTC"
