"""The name of a clock stands for one clock, or is refused with the clocks that it may mean."""

from __future__ import annotations

import pytest

from moola_mlflow.bars.zones import MINUTE_NS, read_zone
from moola_mlflow.core import UserError


@pytest.mark.parametrize(
    ("name", "iana", "minutes"),
    [
        ("UTC", "UTC", 0),
        ("gmt", "UTC", 0),
        ("America/Chicago", "America/Chicago", 0),
        ("US/Eastern", "US/Eastern", 0),
        ("EST5EDT", "EST5EDT", 0),
        ("ET", "America/New_York", 0),
        ("ct", "America/Chicago", 0),
        ("+02:00", "UTC", 120),
        ("-0530", "UTC", -330),
        ("UTC+2", "UTC", 120),
        ("GMT-5", "UTC", -300),
        ("Etc/GMT+5", "Etc/GMT+5", 0),
        ("America/New_York+7", "America/New_York", 420),
        ("ET+07:00", "America/New_York", 420),
    ],
)
def test_a_name_stands_for_one_clock(name: str, iana: str, minutes: int) -> None:
    assert read_zone(name) == (iana, minutes * MINUTE_NS)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("EST", "set America/New_York .* or '-05:00'"),
        ("edt", "set America/New_York .* or '-04:00'"),
        ("CST", "set America/Chicago .* or '-06:00'"),
        ("local", "names no clock: set the IANA name"),
        ("+30:00", "at most 24 hours"),
        ("America/New_York+x", "is not a time zone"),
        ("+", "is not a time zone"),
        ("Nowhere/City+2", "is not a time zone"),
        ("../etc", "is not a time zone"),
    ],
)
def test_a_name_of_no_clock_or_of_two_is_refused(name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_zone(name)
