"""Times that are text are read whatever their spelling; the order of dates is never a guess."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from moola_mlflow.bars.epochs import ReadTimes
from moola_mlflow.bars.time_text import AmbiguousDates, read_text

AT = pd.Timestamp("2021-03-16 15:04:05")


def read(*texts: str, dates: str = "auto") -> ReadTimes:
    return read_text(pa.chunked_array([pa.array(texts, pa.string())]), dates, "a.csv")


@pytest.mark.parametrize("date", ["%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "%d-%m-%Y", "%Y%m%d", "%d-%b-%Y", "%m/%d/%y",
                                  "%b %d, %Y", "%A, %d %B %Y"])  # fmt: skip
@pytest.mark.parametrize("between", [" ", "  ", ", "])
@pytest.mark.parametrize("clock", ["%H:%M:%S", "%H%M%S", "%I:%M:%S %p", "%I:%M:%S%p", "%H:%M:%S.000", "%H:%M:%S,000"])
def test_every_spelling_of_date_and_clock_is_read(date: str, between: str, clock: str) -> None:
    found = read(AT.strftime(f"{date}{between}{clock}"))
    assert (found.ns.tolist(), found.bad.tolist(), found.aware) == ([AT.value], [False], False)


@pytest.mark.parametrize(
    ("suffix", "hours", "zone"),
    [(" UTC", 0, None), (" GMT", 0, None), (" (UTC)", 0, None), (" EST", 5, None), (" EDT", 4, None),
     (" GMT+0100", -1, None), (" UTC+2", -2, None), (" America/New_York", None, "America/New_York"),
     (" ET", None, "ET")],
)  # fmt: skip
def test_a_zone_behind_the_time_counts(suffix: str, hours: int | None, zone: str | None) -> None:
    found = read(f"03/16/2021 15:04:05{suffix}")
    assert (found.aware, found.zone, found.bad.any()) == (hours is not None, zone, np.False_)
    assert found.ns[0] == AT.value + (hours or 0) * 3_600_000_000_000


def test_four_digits_are_hours_and_minutes_and_six_are_seconds_too() -> None:
    assert read("03/16/2021 1504").ns[0] == AT.replace(second=0).value
    assert read("03/16/2021 150405").ns[0] == AT.value


def test_a_name_of_a_zone_on_some_rows_only_is_not_guessed_at() -> None:
    assert read("03/16/2021 15:04:05 US/Eastern", "03/16/2021 15:04:05").bad.any()


def test_the_key_settles_dates_that_read_both_ways() -> None:
    with pytest.raises(AmbiguousDates, match=r"set --bars\.dates"):
        read("03/04/2021 10:00", "05/04/2021 10:00")
    months = [pd.to_datetime(read("03/04/2021 10:00", dates=d).ns).month[0] for d in ("month_first", "day_first")]
    assert months == [3, 4]


def test_one_row_far_from_the_sample_settles_the_order() -> None:
    texts = ["03/04/2021 10:00"] * 999 + ["03/13/2021 10:00"]
    assert read(*texts).order == "month_first"
