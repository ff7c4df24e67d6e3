"""Choose the columns of a file that hold time, prices, volume and instrument, by their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from moola_mlflow.core import UserError, nearest_name

PRICES = ("open", "high", "low", "close")
Roles = dict[str, list[str]]
"""Names of the columns that hold a role: time, open, symbol ..."""
# Names are compared without letter case, spaces, dots and underscores. A pair is a date and a time of the day.
PAIRS = (("date", "time"), ("date", "timestamp"), ("dtyyyymmdd", "time"), ("day", "time"))
TIME_NAMES = (
    *("tsevent", "date+timestamp", "timestamp", "datetime", "date+time", "dtyyyymmdd+time", "day+time", "time", "ts"),
    *("opentime", "gmttime", "utctime", "timeutc", "timestamputc", "datetimeutc", "dateutc", "windowstart"),
    *("starttime", "bartime", "barstart", "localtime", "snapshottime", "klineopentime", "unix", "unixtime"),
    *("unixtimestamp", "epoch", "timestampms", "t", "date"),
)
INDEX_NAMES = ("indexlevel0", "", "index", "unnamed:0")
"""pandas writes an index without a name as '' to CSV, and as __index_level_0__ to parquet."""
SHOWN_TIMES = "ts_event, timestamp, datetime, date+time, time, ts, date, open_time, window_start, unix, t"
UTC_NAMES = ("gmttime", "utctime", "timeutc", "timestamputc", "datetimeutc", "dateutc")
ALIASES = {
    "open": ("open", "o", "openprice", "first"),
    "high": ("high", "h", "highprice", "max"),
    "low": ("low", "l", "lowprice", "min"),
    "close": ("close", "c", "closeprice", "last", "latest"),
    "volume": ("volume", "vol", "v", "realvolume", "totalvolume"),
    "tick_volume": ("tickvolume", "tickvol"),
    "instrument_id": ("instrumentid",),
    "symbol": ("symbol", "ticker", "instrument"),
    "rtype": ("rtype",),
    "publisher_id": ("publisherid",),
}
TICK_PRICES = ("price", "last", "tradeprice", "px", "close")
TICK_SIZES = ("volume", "size", "qty", "quantity", "vol", "lastsize", "lastvolume", "amount", "v", "q", "s")
UP_AND_DOWN = (("up", "down"), ("upvolume", "downvolume"), ("upvol", "downvol"), ("upticks", "downticks"))
MONEY = ("usd", "usdt", "usdc", "busd", "eur", "gbp", "jpy", "quote")
DATE_ONLY = re.compile(
    r"\d{6}|\d{8}(\.0)?|\d{4}[-./]\d\d?[-./]\d\d?|\d\d?[-./]\d\d?[-./](\d{4}|\d\d)|\d\d?[- /][A-Za-z]{3}[- /]\d{2,4}"
)
TIME_ONLY = re.compile(r"\d\d?:\d\d.*|\d{1,9}(\.0)?")
LIKE_TIME = re.compile(r"\d{4}[-/.]?\d\d[-/.]?\d\d.*|\d\d?[-/.]\d\d?[-/.]\d{2,4}\b.*|\d{9,19}(\.\d*)?")


def cleaned(name: str) -> str:
    """Return a column's name as it is compared with known names.

    >>> cleaned(" <Gmt Time>"), cleaned("1. open"), cleaned("Time (UTC)")
    ('gmttime', 'open', 'timeutc')
    """
    name = re.sub(r"^\d+\.\s*", "", name.strip(' <>"\ufeff#').lower())
    return re.sub(r"[\s_.()\[\]-]", "", name)


def find_columns(
    names: list[str],
    where: str,
    sample: Callable[[str], Sequence[str]] | None = None,
    given: Mapping[str, str] | None = None,
    ticks: bool = False,
) -> Roles:
    """Return the columns that hold time, prices, volume and instrument. The time may be in two, date and time.

    ``sample`` returns some cells of a column as text. ``given`` names columns by hand, ``bars.columns``. With
    ``ticks``, one price may stand for all four.

    Raises: UserError with the missing columns and the columns that were found.
    """
    by_clean: dict[str, list[str]] = {}
    for name in names:
        by_clean.setdefault(cleaned(name), []).append(name)
    found = {role: next((by_clean[a] for a in options if a in by_clean), []) for role, options in ALIASES.items()}
    found["volume"] = found["volume"] or _other_volume(by_clean)
    found["time"] = _time(by_clean, sample)
    if ticks and not any(found[role] for role in PRICES[:3]):
        one = next((by_clean[name] for name in TICK_PRICES if name in by_clean), [])
        found |= dict.fromkeys(PRICES, one)
        found["volume"] = next((by_clean[name] for name in TICK_SIZES if name in by_clean), [])
    found |= _by_hand(names, where, given or {})
    shown = ", ".join(map(repr, names))[:300]
    if not found["time"]:
        hint = next((n for n in names if sample and any(map(LIKE_TIME.fullmatch, sample(n)[:1]))), None)
        cure = f". Column '{hint}' looks like times: --bars.columns \"{{time: {hint}}}\"" if hint else ""
        raise UserError(f"{where}: no time column; looked for {SHOWN_TIMES} in any letter case; found: {shown}{cure}")
    if missing := [role for role in PRICES if not found[role]]:
        hint = nearest_name(missing[0], by_clean)
        if not ticks and len(missing) == len(PRICES) and any(name in by_clean for name in TICK_PRICES):
            raise UserError(
                f"{where}: no column {', '.join(missing)}. Found: {shown}. If these are ticks, make bars of them: "
                "--bars.resample 1min"
            )
        raise UserError(
            f"{where}: no column {', '.join(missing)}{hint} Found: {shown}. Rename the columns in the file, or name "
            f'them: --bars.columns "{{{missing[0]}: NAME}}"'
        )
    for role, columns in found.items():
        if len(columns) > (2 if role in ("time", "volume") and len({*map(cleaned, columns)}) == 2 else 1):
            raise UserError(f"{where}: {len(columns)} columns could be the {role}: {columns}; keep one of them")
    return {role: columns for role, columns in found.items() if columns}


def _time(by_clean: dict[str, list[str]], sample: Callable[[str], Sequence[str]] | None) -> list[str]:
    for date, time in PAIRS:
        if date in by_clean and time in by_clean:
            pair = by_clean[date] + by_clean[time]
            cells = [sample(name) for name in pair[:2]] if sample and len(pair) == 2 else []
            if all(TIME_ONLY.fullmatch(text.strip()) for text in (cells[1] if cells else [])) and (
                cells or time == "time"
            ):
                by_clean[f"{date}+{time}"] = pair
    for name in TIME_NAMES:
        if name in by_clean:
            return by_clean[name]
    for name in INDEX_NAMES:
        if name in by_clean and (sample is None or all(map(LIKE_TIME.fullmatch, sample(by_clean[name][0])))):
            return by_clean[name]
    return []


def _other_volume(by_clean: dict[str, list[str]]) -> list[str]:
    """Return the two columns whose sum is the volume, or the volume in units of the instrument: Volume BTC."""
    for pair in UP_AND_DOWN:
        if all(name in by_clean for name in pair):
            return by_clean[pair[0]] + by_clean[pair[1]]
    named = [name for name in by_clean if name.startswith("volume")]
    named.sort(key=lambda name: name.removeprefix("volume") in MONEY)
    return by_clean[named[0]] if named else []


def _by_hand(names: list[str], where: str, given: Mapping[str, str]) -> Roles:
    allowed = ("time", *PRICES, "volume", "symbol", "instrument_id")
    roles = {}
    for role, text in given.items():
        if role not in allowed:
            raise UserError(f"bars.columns names '{role}'{nearest_name(role, allowed)} Allowed: {', '.join(allowed)}")
        wanted = [text] if text in names else [part.strip() for part in text.split("+")]
        for name in wanted:
            if name not in names:
                shown = ", ".join(map(repr, names))[:300]
                raise UserError(f"{where}: bars.columns names '{name}'{nearest_name(name, names)} Found: {shown}")
        roles[role] = wanted
    return roles
