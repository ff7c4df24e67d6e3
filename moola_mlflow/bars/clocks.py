"""Compare the session breaks of bars with those of exchanges, and say which clock the times fit."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from moola_mlflow.bars.columns import take_rows
from moola_mlflow.bars.store import find_segments
from moola_mlflow.bars.zones import MINUTE_NS, read_zone

PAUSE_MINUTES = 45
"""After a longer pause a new session begins: the daily break of futures lasts an hour."""
MIN_SESSIONS = 3
MIN_SHARE = 0.6
"""Share of the sessions that must begin and end at a market's hours."""
LATE_MINUTES = 3
DAY = 24 * 60


class Market(NamedTuple):
    """Hours of a market on the clock of its zone, in minutes of the day."""

    zone: str
    begins: int
    ends: int
    text: str


def _market(zone: str, begins: str, ends: str) -> Market:
    first, last = (int(text[:2]) * 60 + int(text[3:]) for text in (begins, ends))
    return Market(zone, first, last, f"{begins} to {ends}")


MARKETS = (
    _market("America/New_York", "18:00", "17:00"),
    _market("America/New_York", "09:30", "16:00"),
    _market("America/Chicago", "17:00", "16:00"),
    _market("America/Chicago", "08:30", "15:00"),
    _market("America/Chicago", "08:30", "15:15"),
    _market("Europe/London", "08:00", "16:30"),
    _market("Europe/Berlin", "09:00", "17:30"),
    _market("Europe/Berlin", "08:00", "22:00"),
    _market("America/New_York+7", "01:00", "00:00"),
)


def clock_hint(time_ns: np.ndarray, instrument: np.ndarray, zone: str, minutes: int = 1) -> str | None:
    """Return a warning if the sessions fit the clock of another market than the one that was assumed, else None.

    Bars of a market begin and end at its hours. If the clock of ``zone`` shows these hours, and the clock of the market
    does not, the file was probably written on the market's clock. ``minutes`` is the length of a bar.

    Shapes: time_ns, instrument [N].
    """
    runs = find_segments(time_ns, instrument, PAUSE_MINUTES)
    if len(runs) < MIN_SESSIONS:
        return None
    first, last = _ends(time_ns, runs, minutes)
    shown = _clock(first, zone), _clock(last, zone)
    for market in MARKETS:
        share = _share(*shown, market)
        if share < MIN_SHARE:
            continue
        if any(_share(_clock(first, m.zone), _clock(last, m.zone), m) >= MIN_SHARE for m in MARKETS):
            return None
        return (
            f"the times were read as {zone}, but {share:.0%} of {len(runs):,} sessions run from {market.text}, the "
            f"hours of a market on the clock of {market.zone}. If the file has that clock, every time is hours off: "
            f"set --bars.timezone {market.zone}"
        )
    return None


def market_zone(time_ns: np.ndarray, instrument: np.ndarray, minutes: int = 1) -> str:
    """Return the clock of the market whose hours the sessions have, or UTC if there are none such.

    ``minutes`` is the length of a bar.

    Shapes: time_ns, instrument [N].
    """
    runs = find_segments(time_ns, instrument, PAUSE_MINUTES)
    if len(runs) < MIN_SESSIONS:
        return "UTC"
    first, last = _ends(time_ns, runs, minutes)
    of_towns = (market for market in MARKETS if "+" not in market.zone)
    fits = (m.zone for m in of_towns if _share(_clock(first, m.zone), _clock(last, m.zone), m) >= MIN_SHARE)
    return next(fits, "UTC")


def _ends(time_ns: np.ndarray, runs: np.ndarray, minutes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the last minute of each session. Shapes: runs [S, 2] -> int64 [S], [S]."""
    return take_rows(time_ns, runs[:, 0]), take_rows(time_ns, runs[:, 1] - 1) + (minutes - 1) * MINUTE_NS


def _clock(time_ns: np.ndarray, zone: str) -> np.ndarray:
    """Return the minute of the day that a clock shows. Shapes: [N]."""
    iana, shift = read_zone(zone)
    utc = pd.DatetimeIndex((time_ns).view("datetime64[ns]"), tz="UTC")
    local = utc.tz_convert(iana).tz_localize(None).as_unit("ns").asi8 + shift
    return np.asarray(local // MINUTE_NS % DAY)


def _share(first: np.ndarray, last: np.ndarray, market: Market) -> float:
    """Return the share of sessions that begin and end at a market's hours, to within 3 minutes.

    The first or last minutes may have no trade, and a stamp may be the end of a bar.
    """
    begins = (first - market.begins) % DAY <= LATE_MINUTES
    ends = (market.ends - last) % DAY <= LATE_MINUTES
    return float((begins & ends).mean())
