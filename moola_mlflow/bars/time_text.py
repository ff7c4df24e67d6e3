"""Read times that are text, in the forms that vendors write: any order of the date, zone names, AM and PM."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from moola_mlflow.bars.epochs import UNITS, ReadTimes, scaled
from moola_mlflow.bars.zones import FIXED, names_clock
from moola_mlflow.core import UserError

ISO = "ISO8601"  # pandas' lenient one: also 20240301 093000, 2024/03/01 09:30 and 2024.03.01 09:30
ORDERS = {"month_first": "%m/%d", "day_first": "%d/%m"}
DATES = (
    *("%Y/%m/%d", "%m/%d/%Y", "%d/%m/%Y", "%m/%d/%y", "%d/%m/%y"),
    *("%d/%b/%Y", "%b/%d/%Y", "%Y/%b/%d", "%d/%b/%y"),
)
CLOCKS = tuple(
    f"{time}{half}{offset}"
    for time in ("%H:%M:%S", "%H:%M", "%H:%M:%S.%f", "%I:%M:%S", "%I:%M", "%I:%M:%S.%f")
    for half in (("",) if time[1] == "H" else (" %p",))
    for offset in ("", "%z")
)
SAMPLE = 200
MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
WITH_OFFSET = r"(Z|:\d\d(\.\d*)?\s*[+-]\d\d(:?\d\d)?)$"
ZONE = r"[A-Za-z]{2,5}|[A-Z][A-Za-z]+/[A-Za-z_/]+|(?:UTC|GMT)[+-]\d\d?:?(?:\d\d)?"
ZONE_NAME = rf"^(?P<time>.*[\d.mM])[\s(\[]+(?P<zone>{ZONE})[)\]]?$"
# Spellings that are all written one way before a format is chosen: what, and what instead.
SPELLINGS = (
    (r"(?i)^(mon|tue|wed|thu|fri|sat|sun)[a-z]*[,.]?\s+", ""),
    (r"(?i)\b(" + MONTHS + r")[a-z]*\.?", r"\1"),
    (r"(?i)\s*\b([ap])\.?m\.?(\s|$)", r" \1M\2"),
    (r"(\d)([apAP]M)\b", r"\1 \2"),
    # Between date and time: a space. 20210316-15:00:00, 16/Mar/2021:15:00, 03/16/2021, 15:00
    (r"^(\d{8}|\w+[-/. ]\w+[-/. ,]+\d+)(?:[-:,;_T]\s*|\s+)(\d{1,2}:?\d\d)", r"\1 \2"),
    (r"^(\d{4})(\d\d)(\d\d) ", r"\1/\2/\3 "),
    (r"^(\w+)[-/. ](\w+)[-/. ,]+(\d+)", r"\1/\2/\3"),
    (r" (\d\d)(\d\d)(\d\d)(\.\d+)?$", r" \1:\2:\3\4"),
    (r" (\d{1,2})(\d\d)$", r" \1:\2"),
    (r"(:\d\d)[.,]0+\b", r"\1"),
    (r"(:\d\d),(\d+)", r"\1.\2"),
    (r"(:\d\d)(\.\d+)? ?([+-]\d\d:?\d\d)$", r"\1\2\3"),
    (r"^(\S+)$", r"\1 00:00"),
)


class AmbiguousDates(UserError):
    """Dates that read equally well month first and day first."""


def read_text(text: pa.ChunkedArray, dates: str, where: str) -> ReadTimes:
    """Return the times that a column of trimmed text holds.

    Raises: AmbiguousDates if as many times can be read month first as day first, and ``dates`` does not say which.
    """
    step = max(1, len(text) // SAMPLE)
    rows = np.unique(np.append(np.arange(0, len(text), step), len(text) - 1))
    sample = text.take(pa.array(rows)).to_pandas()
    num_iso = _num_read(sample, ISO)
    if num_iso == len(sample):
        return _iso(text)
    spelled, zone, names = _spelled(text)
    sample = spelled.take(pa.array(rows)).to_pandas()
    forms = _fitting(sample)
    if not forms or _num_read(sample, forms[0]) < num_iso:
        return _iso(text)
    form, order = _decided(spelled, forms[0], dates, where, str(text[0]))
    stamps = _parsed(spelled, form)
    if zone is None or not zone.startswith(("+", "-")):
        read = _with_offsets(spelled, stamps, form)
    else:
        read = ReadTimes(*_from_stamps(stamps), True, form)
    form, notes = f"text such as '{text[0]}'", tuple(_offset_notes(names, where))
    return read._replace(form=form, order=order, zone=zone, notes=notes)


def _offset_notes(names: set[str], where: str) -> list[str]:
    """Return what to tell about names of one half of a year, which some vendors write all year."""
    return [
        f"{where}: times say {name}, which was read as {FIXED[name.upper()][1]} all year; if the file has the clock of "
        f"{FIXED[name.upper()][0]}, take the name away and set --bars.timezone"
        for name in sorted(names)
        if name.upper() in FIXED
    ]


def _iso(text: pa.ChunkedArray) -> ReadTimes:
    stamps = pd.to_datetime(text.to_pandas(), format=ISO, errors="coerce", utc=True)
    return _with_offsets(text, stamps, f"text such as '{text[0]}'")


def _parsed(text: pa.ChunkedArray, form: str) -> pd.Series:
    values = text.to_pandas()
    if "%z" in form:
        without = form.replace("%z", "")
        bare = pd.to_datetime(values, format=without, errors="coerce", utc=True)
        return pd.to_datetime(values, format=form, errors="coerce", utc=True).fillna(bare)
    read = pd.to_datetime(values, format=form, errors="coerce", utc=True)
    bad = read.isna()
    if bad.any() and "%S" in form:  # seconds with a fraction on some rows only
        other = form.replace("%S.%f", "%S") if ".%f" in form else form.replace("%S", "%S.%f")
        read = read.where(~bad, pd.to_datetime(values[bad], format=other, errors="coerce", utc=True))
    return read


def _with_offsets(text: pa.ChunkedArray, stamps: pd.Series, form: str) -> ReadTimes:
    ns, bad = _from_stamps(stamps)
    # If most times have an offset, one without it is bad, and the reverse: its zone would be a guess.
    offset = pc.match_substring_regex(text, WITH_OFFSET).fill_null(False).to_numpy()
    aware = bool(2 * offset[~bad].sum() > (~bad).sum())
    bad = bad | (offset != aware)
    return ReadTimes(np.where(bad, 0, ns), bad, aware, form)


def _from_stamps(stamps: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    index = pd.DatetimeIndex(stamps)
    return scaled(index.asi8, np.asarray(index.isna()), UNITS[index.unit])


def _num_read(values: pd.Series, form: str) -> int:
    return int(pd.to_datetime(values, format=form, errors="coerce", utc=True).notna().sum())


def _spelled(text: pa.ChunkedArray) -> tuple[pa.ChunkedArray, str | None, set[str]]:
    """Return the times in one spelling, the zone that all rows name if it is no offset, and the names of zones."""
    text = pc.replace_substring_regex(text, r"\s+", " ")
    found = pc.extract_regex(text, ZONE_NAME)
    zone = None
    named = pc.struct_field(found, "zone")
    names = {str(name) for name in named.unique().to_pylist() if name is not None and name.upper() not in ("AM", "PM")}
    if names:
        is_zone = pc.is_in(named, pa.array(sorted(names), pa.string()))
        body = pc.if_else(is_zone, pc.struct_field(found, "time"), text)
        offsets = {name: _offset_of(name) for name in names}
        if all(offset is not None for offset in offsets.values()):
            suffix = pc.fill_null(pc.if_else(is_zone, named, ""), "")
            for name, offset in offsets.items():
                suffix = pc.if_else(pc.equal(suffix, name), str(offset), suffix)
            body = pc.binary_join_element_wise(body, suffix, "")
        elif len(names) == 1 and names_clock(next(iter(names))) and is_zone.null_count == 0 and pc.all(is_zone).as_py():
            zone = next(iter(names))
        else:
            body = text  # no zone, names of several zones, or a name on some rows only: no row reads
        text = body
    for pattern, instead in SPELLINGS:
        text = pc.replace_substring_regex(text, pattern, instead)
    return text, zone, names


def _offset_of(name: str) -> str | None:
    """Return the offset that a short name of a zone stands for, None for the name of a clock that changes."""
    if name.upper() in ("UTC", "GMT", "Z", "ETC/UTC"):
        return "+00:00"
    if found := re.fullmatch(r"(?:UTC|GMT)([+-])(\d\d?):?(\d\d)?", name):
        return f"{found[1]}{int(found[2]):02}:{found[3] or '00'}"
    return FIXED[name.upper()][1] if name.upper() in FIXED else None


def _fitting(sample: pd.Series) -> list[str]:
    """Return the formats that read the sample best, the best first."""
    shapes = sample.dropna()
    if shapes.empty:
        return []
    counts = {}
    for clock in CLOCKS:
        if (":%S" in clock) != bool(re.search(r":\d+:", str(shapes.iloc[0]))):
            continue
        for date in DATES:
            counts[f"{date} {clock}"] = _num_read(sample, f"{date} {clock}")
    best = max(counts.values(), default=0)
    return [form for form, count in counts.items() if count == best > 0]


def _decided(text: pa.ChunkedArray, form: str, dates: str, where: str, shown: str) -> tuple[str, str | None]:
    """Return the format in the order of dates that fits the whole column, and that order."""
    if form[:5] not in ORDERS.values():
        return form, None
    rest = form[5:]
    if dates in ORDERS:
        return ORDERS[dates] + rest, dates
    fields = {"month_first": r"^\d+/(1[3-9]|[23]\d)/", "day_first": r"^(1[3-9]|[23]\d)/\d"}
    counts = {
        order: pc.sum(pc.match_substring_regex(text, sign).fill_null(False)).as_py() for order, sign in fields.items()
    }
    if counts["month_first"] == counts["day_first"]:
        raise AmbiguousDates(
            f"{where}: the times, such as '{shown}', read equally well month first and day first; write them as "
            "yyyy-mm-dd hh:mm, or set --bars.dates to month_first or day_first"
        )
    order = max(counts, key=lambda name: counts[name])
    return ORDERS[order] + rest, order
