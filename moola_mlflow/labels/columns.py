"""Read and check each column of a labels file. An error names the first bad row, its value and the cure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from moola_mlflow.bars import MINUTE_NS, PRICES, parse_times, price_fault
from moola_mlflow.core import UserError

NONE = "none"
"""The label of a window without an event. No class may be called so."""
TIMES = ("start_time", "end_time")
# In usual bar ranges. A limit-down day of an index moves 300 ticks. A zero or a shifted decimal point moves thousands.
FARTHEST = 1000
# Up to this price the sums over a window stay finite.
HIGHEST = 1e306


@dataclass(frozen=True)
class LabelRows:
    """The rows of a file. ``refuse`` raises an error for the first bad one."""

    path: str | Path
    ids: list[str]
    """What names a row in an error."""
    called: str = "window_id"

    def refuse(self, bad: np.ndarray, reason: str | Callable[[int], str]) -> None:
        rows = np.flatnonzero(bad)
        if len(rows):
            i = int(rows[0])
            others = f" (the first of {len(rows):,} such rows)" if len(rows) > 1 else ""
            said = reason if isinstance(reason, str) else reason(i)
            raise UserError(f"labels: {self.path}: row {i + 1} ({self.called} '{self.ids[i]}'): {said}{others}")


def decoded(table: pa.Table, name: str) -> pa.ChunkedArray:
    """Return a column without dictionary encoding, as which pandas writes categories."""
    column = table[name]
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def read_texts(table: pa.Table, name: str) -> list[str]:
    """Return a column of names, with '' for an empty one."""
    column = decoded(table, name)
    kind = column.type
    if not (pa.types.is_integer(kind) or str(kind) in ("string", "large_string", "string_view", "null")):
        raise UserError(f"labels: column '{name}' is of type {kind}; allowed: text or whole numbers")
    texts = column.cast(pa.string()).fill_null("").to_pylist()
    return [text if text.strip() else "" for text in texts]


def read_classes(names: list[str], check: LabelRows) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the position of each label in the sorted classes, -1 for ``none``, and the classes. Shapes: int64 [R]."""
    check.refuse(
        np.array([name == "" for name in names]),
        f"label is empty; give it a class, write {NONE} if nothing is there, or leave it out",
    )
    counts = {name: names.count(name) for name in sorted(set(names))}
    spelling = {NONE: NONE}
    for name in sorted(counts, key=lambda name: -counts[name]):
        spelling.setdefault(name.strip().casefold(), name)
    usual = [spelling[name.strip().casefold()] for name in names]

    def reason(i: int) -> str:
        why = "which says that the window holds no event" if usual[i] == NONE else "as other rows do"
        return f"label '{names[i]}' is an unknown class; write '{usual[i]}', {why}"

    check.refuse(np.array([a != b for a, b in zip(names, usual, strict=True)]), reason)
    classes = tuple(name for name in counts if name != NONE)
    position = {NONE: -1, **{name: k for k, name in enumerate(classes)}}
    return np.array([position[name] for name in names], np.int64), classes


def read_pointers(table: pa.Table, name: str, length: int, check: LabelRows, none_R: np.ndarray) -> np.ndarray:
    """Return a column of bars' numbers, counted from 0 in their window, -1 in rows of windows without an event.

    Shapes: bool [R] -> int64 [R].
    """
    values = _numbers(decoded(table, name), name)
    check.refuse(
        none_R & ~np.isnan(values),
        lambda i: (
            f"label is '{NONE}', a window without an event, and {name} is {values[i]:g}; empty expansion_start and "
            "expansion_end, or name the event's class"
        ),
    )
    check.refuse(
        ~none_R & ~(np.isfinite(values) & (values == np.floor(values))),
        lambda i: f"{name} is {'empty' if np.isnan(values[i]) else values[i]}; give a bar's number, 0 to {length - 1}",
    )
    check.refuse(
        ~none_R & ((values < 0) | (values > length - 1)),
        lambda i: f"{name} {values[i]:.0f} lies outside the window; bars are counted from 0 to {length - 1}",
    )
    return np.where(none_R, -1, np.nan_to_num(values)).astype(np.int64)


def read_prices(table: pa.Table, length: int, check: LabelRows) -> np.ndarray:
    """Return the prices of all windows. Shapes: one list of bars in a row, each a list of four -> float64 [N, T, 4]."""
    column = decoded(table, "features")
    form = f"a list of {length} bars, each a list [{', '.join(PRICES)}]"
    if not (_is_list(column.type) and _is_list(column.type.value_type)):
        raise UserError(f"labels: column 'features' is of type {column.type}; needed: {form}")
    num_bars = np.asarray(pc.list_value_length(column).fill_null(0))
    check.refuse(
        num_bars != length,
        lambda i: f"features holds {num_bars[i]} bars; a window has exactly {length}, no more, no less",
    )
    bars = pc.list_flatten(column)
    num_prices = np.asarray(pc.list_value_length(bars).fill_null(0)).reshape(-1, length)
    check.refuse(
        (num_prices != 4).any(axis=1),
        lambda i: f"bar {np.argmax(num_prices[i] != 4)} of features (from 0) does not hold 4 prices; needed: {form}",
    )
    ohlc = _numbers(pc.list_flatten(bars), "features").reshape(-1, length, 4) + 0.0
    o, h, low, c = np.moveaxis(ohlc, 2, 0)
    bad = ~np.isfinite(ohlc).all(axis=2) | (h < np.maximum(o, c)) | (low > np.minimum(o, c))
    check.refuse(
        bad.any(axis=1),
        lambda i: (
            f"bar {np.argmax(bad[i])} of features (from 0): {price_fault(ohlc[i, np.argmax(bad[i])])}; "
            "correct its prices or remove the row"
        ),
    )
    return ohlc


def refuse_broken_windows(ohlc_NT4: np.ndarray, check: LabelRows) -> None:
    """Refuse windows that hold nothing to learn from, although each of their bars is valid.

    Shapes: [N, T, 4].
    """
    huge_NT4 = np.abs(ohlc_NT4) > HIGHEST

    def named(bad_T4: np.ndarray, ohlc_T4: np.ndarray) -> str:
        t, k = np.argwhere(bad_T4)[0]
        return f"bar {t} of features (from 0): {PRICES[k]} {ohlc_T4[t, k]:.12g}"

    check.refuse(
        huge_NT4.any(axis=(1, 2)),
        lambda i: (
            f"{named(huge_NT4[i], ohlc_NT4[i])} is too large to compute with; allowed: {-HIGHEST:g} to "
            f"{HIGHEST:g}; correct it or remove the row"
        ),
    )
    range_NT = ohlc_NT4[..., 1] - ohlc_NT4[..., 2]
    check.refuse(
        (ohlc_NT4 == ohlc_NT4[:, :1, :1]).all(axis=(1, 2)),
        lambda i: (
            f"all prices of the window are {ohlc_NT4[i, 0, 0]:.12g}: nothing moves in it; remove the row or give the "
            "window's prices"
        ),
    )
    usual_N = np.median(range_NT, axis=1)
    usual_N = np.where(usual_N > 0, usual_N, np.inf)  # a window whose price mostly stands still has no usual range
    middle_N = np.median(ohlc_NT4.reshape(len(ohlc_NT4), -1), axis=1)[:, None, None]
    far_NT4 = (
        np.abs(ohlc_NT4 - middle_N) / FARTHEST > usual_N[:, None, None]
    )  # divided, because a thousand ranges can overflow
    check.refuse(
        far_NT4.any(axis=(1, 2)),
        lambda i: (
            f"{named(far_NT4[i], ohlc_NT4[i])} is more than {FARTHEST:,} of the window's usual bar ranges away from "
            f"its prices around {middle_N[i, 0, 0]:.12g}; correct it or remove the row"
        ),
    )


def refuse_conflicts(ohlc_NT4: np.ndarray, names: list[str], check: LabelRows) -> None:
    """Refuse a window that occurs twice, with different classes. Shapes: [N, T, 4], N names."""
    first: dict[bytes, int] = {}
    same_N = [first.setdefault((window + 0.0).tobytes(), i) for i, window in enumerate(ohlc_NT4)]
    check.refuse(
        np.array([names[i] != names[k] for i, k in enumerate(same_N)], bool),
        lambda i: (
            f"the same prices are row {same_N[i] + 1} (window_id '{check.ids[same_N[i]]}'), labelled "
            f"'{names[same_N[i]]}' there and '{names[i]}' here; keep one of the two rows"
        ),
    )


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _numbers(column: pa.ChunkedArray, name: str) -> np.ndarray:
    """Return a column of numbers, NaN for an empty cell. Shapes: float64 [N]."""
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
        raise UserError(f"labels: column '{name}' holds {kind}; allowed: numbers")
    return np.array(column.cast(pa.float64(), safe=False).to_numpy(), np.float64)


def read_instruments(table: pa.Table, check: LabelRows) -> np.ndarray | None:
    """Return the instruments, or None if the file has none. Shapes: text [N]."""
    names = read_texts(table, "instrument") if "instrument" in table.column_names else []
    if not any(names):
        return None
    check.refuse(np.array([name == "" for name in names]), "instrument is empty; name all of them, or none")
    return np.array(names)


def read_times(table: pa.Table, length: int, check: LabelRows) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return when the first and the last bar of each window start, or None if the file has no times.

    Shapes: int64 [N] each.
    Units: ns since 1970 UTC.
    """
    there = [name for name in TIMES if name in table.column_names]
    if len(there) == 1:
        other = TIMES[1 - TIMES.index(there[0])]
        raise UserError(f"labels: {check.path}: {there[0]} without {other}; give both, or neither")
    if not there or all(table[name].null_count == len(table) for name in TIMES):
        return None, None
    both = []
    for name in TIMES:
        # A time without an offset is UTC.
        time_ns, bad, _ = parse_times(decoded(table, name), f"{check.path}: {name}")
        check.refuse(bad, f"{name} is empty or no time; write yyyy-mm-dd hh:mm in UTC")
        both.append(time_ns)
    check.refuse(both[0] >= both[1], "start_time is not before end_time; they are those of the window's bars")
    # A time may lie anywhere in its minute, so a span may be a minute too short. Breaks only make it longer.
    span = both[1] - both[0]
    check.refuse(
        span <= (length - 2) * MINUTE_NS,
        lambda i: (
            f"end_time is {span[i] / MINUTE_NS:g} minutes after start_time; the first and the last of {length} "
            f"one-minute bars start {length - 1} minutes apart or more; give the times at which those two bars start, "
            "or leave out both columns"
        ),
    )
    return both[0], both[1]
