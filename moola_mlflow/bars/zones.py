"""Read the name of a clock: an IANA zone, a fixed offset, or a zone with hours added, as brokers' servers have."""

from __future__ import annotations

import re
import zoneinfo
from typing import NamedTuple

from moola_mlflow.core import UserError, nearest_name

MINUTE_NS = 60_000_000_000
SHORT = {
    "et": "America/New_York",
    "ny": "America/New_York",
    "ct": "America/Chicago",
    "mt": "America/Denver",
    "pt": "America/Los_Angeles",
    "utc": "UTC",
    "gmt": "UTC",
    "z": "UTC",
    "jst": "Asia/Tokyo",
    "hkt": "Asia/Hong_Kong",
}
"""Short names that mean one clock only."""
FIXED = {
    "EST": ("America/New_York", "-05:00"),
    "EDT": ("America/New_York", "-04:00"),
    "CST": ("America/Chicago", "-06:00"),
    "CDT": ("America/Chicago", "-05:00"),
    "MST": ("America/Denver", "-07:00"),
    "MDT": ("America/Denver", "-06:00"),
    "PST": ("America/Los_Angeles", "-08:00"),
    "PDT": ("America/Los_Angeles", "-07:00"),
    "HST": ("Pacific/Honolulu", "-10:00"),
    "BST": ("Europe/London", "+01:00"),
    "CEST": ("Europe/Berlin", "+02:00"),
    "IST": ("Asia/Kolkata", "+05:30"),
}
"""Names of winter or summer time: the clock that people usually mean, and the offset that the name stands for."""
OFFSET = re.compile(r"(?:UTC|GMT)?([+-])(\d{1,2})(?::?([0-5]\d))?h?", re.IGNORECASE)
BROKER = "a broker's clock that follows New York is America/New_York+7"


class Zone(NamedTuple):
    """A clock: ``shift_ns`` ahead of the clock of an IANA zone."""

    iana: str
    shift_ns: int


def check_zone(name: str) -> None:
    """Check that a clock's name can be read. Raises: UserError with the nearest name, or with the two it may mean."""
    read_zone(name)


def read_zone(name: str) -> Zone:
    """Return the clock that a name stands for: ``America/Chicago``, ``CT``, ``+02:00`` or ``America/New_York+7``.

    Raises: UserError with the nearest IANA name, or with what to write instead of a name that may mean two clocks.
    """
    if name.upper() in FIXED:
        iana, offset = FIXED[name.upper()]
        raise UserError(
            f"bars.timezone='{name}' may mean two clocks: set {iana} for a clock that changes between summer and "
            f"winter, or '{offset}' for one that keeps this offset all year"
        )
    if name.lower() == "local":
        raise UserError(
            "bars.timezone='local' names no clock: set the IANA name of the exchange's zone, such as "
            "America/New_York, or of the zone of the computer that wrote the file"
        )
    if name.lower() in SHORT:
        return Zone(SHORT[name.lower()], 0)
    if found := OFFSET.fullmatch(name):
        return Zone("UTC", _shift(*found.groups()))
    if _is_iana(name):
        return Zone(name, 0)
    base, sign, shift = re.fullmatch(r"(.*?)(?:([+-])(.*))?", name, re.DOTALL).groups()  # type: ignore[union-attr]
    base = SHORT.get(base.lower(), base)
    if sign and (found := OFFSET.fullmatch(sign + shift)) and _is_iana(base):
        return Zone(base, _shift(*found.groups()))
    raise UserError(
        f"bars.timezone='{name}' is not a time zone{nearest_name(name, zoneinfo.available_timezones())} Use an IANA "
        f"name such as UTC, America/New_York or America/Chicago, or an offset such as +02:00; {BROKER}"
    )


def names_clock(name: str) -> bool:
    """Return whether a text is the name of one clock."""
    return name.lower() in SHORT or _is_iana(name)


def _shift(sign: str, hours: str, minutes: str | None) -> int:
    total = (int(hours) * 60 + int(minutes or 0)) * MINUTE_NS
    if total > 24 * 60 * MINUTE_NS:
        raise UserError(f"bars.timezone: {sign}{hours} hours is not a clock's offset; at most 24 hours are allowed")
    return total if sign == "+" else -total


def _is_iana(name: str) -> bool:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True
