"""Times of bars in whatever form a file writes them become UTC nanoseconds, and none is guessed at."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moola_mlflow.bars.times import check_zone, localise, parse_times, trade_date, utc
from moola_mlflow.core import UserError

AT = pd.Timestamp("2024-03-05 14:30", tz="UTC")


def parsed(values: object, kind: pa.DataType | None = None) -> tuple[list[int], list[bool], bool]:
    ns, bad, aware = parse_times(pa.chunked_array([pa.array(values, kind)]), "bars.csv")
    return ns.tolist(), bad.tolist(), aware


@pytest.mark.parametrize(
    ("values", "kind", "aware"),
    [
        ([AT.value // 10**9], pa.timestamp("s"), False),
        ([AT.value], pa.timestamp("ns", "America/New_York"), True),
        ([AT.value // 10**9], pa.int64(), True),
        ([AT.value // 10**6], pa.int64(), True),
        ([AT.value // 10**3], pa.int64(), True),
        ([AT.value], pa.int64(), True),
        ([float(AT.value // 10**9)], pa.float64(), True),
        ([202403051430], pa.int64(), False),
        ([20240305143000], pa.int64(), False),
        (["1709649000"], None, True),
        (["2024-03-05 14:30"], None, False),
        (["20240305 143000"], None, False),
        (["2024-03-05T14:30:00Z"], None, True),
        (["2024-03-05T09:30:00-05:00"], None, True),
        ([" 03/13/2024 2:30 PM "], None, False),
        (["13.03.2024 14:30"], None, False),
    ],
)
def test_every_form_is_the_same_instant(values: list[object], kind: pa.DataType | None, aware: bool) -> None:
    ns, bad, has_zone = parsed(values, kind)
    day = AT.replace(day=13) if "13" in str(values[0])[:6] else AT
    assert (ns, bad, has_zone) == ([day.value], [False], aware)


def test_no_rows_are_no_times() -> None:
    assert parsed([], pa.string()) == ([], [], True)


@pytest.mark.parametrize("values", [[None, AT.value // 10**9], [10**11, AT.value // 10**9, 1]])
def test_a_number_that_is_missing_or_out_of_range_is_marked(values: list[int]) -> None:
    ns, bad, _ = parsed(values, pa.int64())
    assert (ns[:2], bad[:2]) == ([0, AT.value], [True, False])


def test_a_text_that_is_no_time_is_marked() -> None:
    ns, bad, _ = parsed(["soon", "2024-03-05 14:30", None])
    assert (ns, bad) == ([0, AT.value, 0], [True, False, True])


def test_a_time_without_offset_among_times_with_one_is_not_guessed_at() -> None:
    ns, bad, aware = parsed(["2024-03-05T14:30:00Z", "2024-03-05 14:30", "2024-03-05T14:30:00Z"])
    assert (bad, aware, ns[1]) == ([False, True, False], True, 0)


def test_days_decide_between_month_first_and_day_first() -> None:
    ns, bad, _ = parsed(["01/02/2024 10:00", "13/02/2024 10:00"])
    assert pd.to_datetime(ns).month.tolist() == [2, 2]
    assert bad == [False, False]
    with pytest.raises(UserError, match="equally well month first and day first"):
        parsed(["01/02/2024 10:00", "03/04/2024 10:00"])


def test_utc_needs_no_change() -> None:
    ns = np.array([AT.value, 0])
    found, ambiguous, skipped = localise(ns, np.zeros(2, int), "UTC")
    assert (found is ns, ambiguous.any(), skipped.any()) == (True, False, False)


def clock(*texts: str) -> np.ndarray:
    return pd.DatetimeIndex(list(texts)).as_unit("ns").asi8


def test_the_two_passes_of_the_autumn_hour_are_told_apart_by_the_jump_of_each_instrument() -> None:
    times = clock("2024-11-03 01:10", "2024-11-03 01:50", "2024-11-03 01:10", "2024-11-03 01:50")
    found, ambiguous, _ = localise(times, np.zeros(4, int), "America/New_York")
    assert (np.diff(found) // 60_000_000_000).tolist() == [40, 20, 40]
    assert not ambiguous.any()
    _, ambiguous, _ = localise(times, np.array([0, 0, 1, 1]), "America/New_York")  # no instrument's clock jumps back
    assert ambiguous.all()


def test_the_hour_that_spring_skips_is_marked() -> None:
    found, _, skipped = localise(clock("2024-03-10 02:30", "2024-03-10 03:30"), np.zeros(2, int), "America/New_York")
    assert (skipped.tolist(), found.tolist()) == ([True, False], [0, pd.Timestamp("2024-03-10 07:30").value])


@pytest.mark.parametrize(
    ("zone", "words"), [("America/New_Yrok", "did you mean 'America/New_York'"), ("", "IANA name")]
)
def test_an_unknown_zone_is_refused_with_the_nearest(zone: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_zone(zone)
    check_zone("America/Chicago")


def test_a_trade_date_begins_on_the_evening_before_in_winter_and_in_summer() -> None:
    times = ["2024-01-08 22:59", "2024-01-08 23:00", "2024-07-08 21:59", "2024-07-08 22:00"]
    days = trade_date(clock(*times))
    assert np.array(days, "datetime64[D]").astype(str).tolist() == [
        *("2024-01-08", "2024-01-09", "2024-07-08", "2024-07-09"),
    ]


@given(st.integers(pd.Timestamp("1970-01-02").value, pd.Timestamp("2199-12-31").value))
def test_the_text_of_a_time_is_read_back_to_the_minute(ns: int) -> None:
    found, bad, aware = parsed([utc(ns)])
    assert (found, bad, aware) == ([ns // 60_000_000_000 * 60_000_000_000], [False], True)
