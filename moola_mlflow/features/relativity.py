"""Relativity features: describe a bar relative to its own range, to recent ranges and to the last swings.

Each feature is a quotient of price differences, so scaling or shifting all prices does not change it. At bar t it reads
the window's bars 0 to t only. Names end in their shape: N windows, T bars, F features, 4 = open, high, low, close.
Inside, arrays are time-major [T, N] float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from moola_mlflow.core import UserError, nearest_name
from moola_mlflow.features.zigzag import PRIMARY, Floats, Hybrid, Swings, walk

ATR_BARS = 10
EMA_SPAN = 20
BARS_NORM = 105
"""This many bars count as 1 in bars_since_*. It is the published window length, also if a run uses another."""
CHUNK = 1000
"""Number of windows computed together: enough to hide numpy's call overhead, few enough to stay in cache."""


@dataclass
class State:
    """Input of the feature functions: bars of some windows, with their averages and swings.

    A divisor (``*_div``) is infinity where its value is 0, so that a quotient by it is 0 without a branch. It stays NaN
    where a price is NaN.

    Shapes: every array [T, N].
    """

    o: Floats
    h: Floats
    l: Floats  # noqa: E741 - the field's own name for a bar's low
    c: Floats
    range: Floats
    range_div: Floats
    ema_div: Floats
    atr_div: Floats
    swings: Swings
    done: dict[str, Floats] = field(default_factory=dict)

    def feature(self, name: str) -> Floats:
        """Return a feature, clipped to its bounds. It is computed once."""
        if name not in self.done:
            row = _ROWS[name]
            values_TN = row.compute(self)
            self.done[name] = np.clip(values_TN, row.lower, row.upper, out=values_TN)
        return self.done[name]


def _divisor(x_TN: Floats) -> Floats:
    return np.where(x_TN == 0, np.inf, x_TN)


def true_range_mean(h_TN: Floats, l_TN: Floats, c_TN: Floats) -> Floats:
    """Return the ATR: at bar t the mean of the last min(t, 10) true ranges, 0 at bar 0. Shapes: [T, N].

    Each mean is a sum of its own. A running sum would keep the rounding error of a jump long after the jump, and an ATR
    that should be exactly 0 would not be 0.
    """
    true_TN = np.zeros_like(h_TN)
    # max(h - l, |h - c'|, |l - c'|) in one subtraction
    np.subtract(np.maximum(h_TN[1:], c_TN[:-1]), np.minimum(l_TN[1:], c_TN[:-1]), out=true_TN[1:])
    total_TN = true_TN.copy()
    for lag in range(1, ATR_BARS):
        total_TN[lag:] += true_TN[:-lag]
    total_TN /= np.clip(np.arange(len(h_TN)), 1, ATR_BARS)[:, None]
    return total_TN


def _range_ema(range_TN: Floats) -> Floats:
    alpha = 2 / (EMA_SPAN + 1)
    ema_TN = alpha * range_TN
    ema_TN[0] = range_TN[0]
    for t in range(1, len(range_TN)):
        ema_TN[t] += (1 - alpha) * ema_TN[t - 1]
    return ema_TN


def make_state(ohlc_NT4: Floats, hybrid: Hybrid) -> State:
    """Return the input of the feature functions for some windows. Shapes: ohlc [N, T, 4] -> fields [T, N]."""
    o, h, low, c = np.ascontiguousarray(ohlc_NT4.transpose(2, 1, 0), np.float64)
    range_TN = h - low
    atr_div = _divisor(true_range_mean(h, low, c))
    return State(
        o=o,
        h=h,
        l=low,
        c=c,
        range=range_TN,
        range_div=_divisor(range_TN),
        ema_div=_divisor(_range_ema(range_TN)),
        atr_div=atr_div,
        swings=walk(h, low, c, atr_div, hybrid),
    )


def _open_norm(s: State) -> Floats:
    return np.where(s.range == 0, 0.5, (s.o - s.l) / s.range_div)


def _close_norm(s: State) -> Floats:
    return np.where(s.range == 0, 0.5, (s.c - s.l) / s.range_div)


def _body_pct(s: State) -> Floats:
    return (s.c - s.o) / s.range_div


def _upper_wick_pct(s: State) -> Floats:
    return (s.h - np.maximum(s.o, s.c)) / s.range_div


def _lower_wick_pct(s: State) -> Floats:
    return (np.minimum(s.o, s.c) - s.l) / s.range_div


def _range_z(s: State) -> Floats:
    return s.range / s.ema_div


def _dist_to_prev_sh(s: State) -> Floats:
    return np.where(s.swings.t_sh < 0, 0.0, (s.swings.sh - s.c) / s.atr_div)


def _dist_to_prev_sl(s: State) -> Floats:
    return np.where(s.swings.t_sl < 0, 0.0, (s.c - s.swings.sl) / s.atr_div)


def _bars_since(t_swing_TN: Floats) -> Floats:
    t_T1 = np.arange(len(t_swing_TN), dtype=np.float64)[:, None]
    return np.where(t_swing_TN < 0, 0.0, (t_T1 - t_swing_TN) / BARS_NORM)


def _bars_since_sh_norm(s: State) -> Floats:
    return _bars_since(s.swings.t_sh)


def _bars_since_sl_norm(s: State) -> Floats:
    return _bars_since(s.swings.t_sl)


def _expansion_proxy(s: State) -> Floats:
    return s.feature("range_z") * s.swings.leg * s.feature("body_pct")


def _consol_proxy(s: State) -> Floats:
    since_TN = (s.feature("bars_since_SH_norm") + s.feature("bars_since_SL_norm")) / 2
    return (1 - s.feature("range_z") / 3) * (1 - np.abs(s.feature("body_pct"))) * since_TN


@dataclass(frozen=True)
class Feature:
    """One row of the feature table: a name, the bounds to clip to, and the formula."""

    name: str
    lower: float
    upper: float
    compute: Callable[[State], Floats]
    """Returns a new [T, N] array, which is then clipped in place."""


TABLE: tuple[Feature, ...] = (
    Feature("open_norm", 0, 1, _open_norm),
    Feature("close_norm", 0, 1, _close_norm),
    Feature("body_pct", -1, 1, _body_pct),
    Feature("upper_wick_pct", 0, 1, _upper_wick_pct),
    Feature("lower_wick_pct", 0, 1, _lower_wick_pct),
    Feature("range_z", 0, 3, _range_z),
    Feature("dist_to_prev_SH", -3, 3, _dist_to_prev_sh),
    Feature("dist_to_prev_SL", -3, 3, _dist_to_prev_sl),
    Feature("bars_since_SH_norm", 0, 3, _bars_since_sh_norm),
    Feature("bars_since_SL_norm", 0, 3, _bars_since_sl_norm),
    Feature("expansion_proxy", -2, 2, _expansion_proxy),
    Feature("consol_proxy", 0, 3, _consol_proxy),
)
_ROWS = {row.name: row for row in TABLE}

FEATURE_SETS: dict[str, tuple[str, ...]] = {
    f"relativity{count}": tuple(row.name for row in TABLE[:count]) for count in range(10, len(TABLE) + 1)
}
"""A set is the first rows of the table, so a new row makes a new set."""

OWN: dict[str, tuple[str, ...]] = {}
"""Names of the features that other files of this folder add, by file name."""


def extend(file: str, rows: tuple[Feature, ...]) -> None:
    """Add the features of a file. A feature set selects them by the file's name after a ``+``.

    Raises: ValueError if a name is already taken.
    """
    for row in rows:
        if row.name in _ROWS:
            raise ValueError(f"features/{file}.py: a feature is already called '{row.name}'; choose another name")
        _ROWS[row.name] = row
    OWN[file] = tuple(row.name for row in rows)


def feature_names(feature_set: str) -> tuple[str, ...]:
    """Return the feature names of a set, in the order of the last axis: table rows first, then files after a ``+``.

    Raises: UserError for an unknown set or file, and for a file named twice.
    """
    base, *files = feature_set.split("+")
    if base not in FEATURE_SETS:
        raise UserError(
            f"features.set={feature_set!r} is not a feature set; allowed: {', '.join(FEATURE_SETS)}"
            f"{nearest_name(base, FEATURE_SETS)}"
        )
    for file in files:
        if file not in OWN or files.count(file) > 1:
            raise UserError(
                f"features.set={feature_set!r}: write after a + the name of a file in moola_mlflow/features/ that "
                f"holds ROWS, each once. Files: {', '.join(OWN) or 'none yet'}{nearest_name(file, OWN)}"
            )
    return (*FEATURE_SETS[base], *(name for file in files for name in OWN[file]))


def feature_bounds(names: Iterable[str]) -> Floats:
    """Return the lower and upper bound of each feature. Shapes: [F, 2].

    Raises: UserError for an unknown name.
    """
    names = list(names)
    for name in names:
        if name not in _ROWS:
            raise UserError(f"{name!r} is not a feature; allowed: {', '.join(_ROWS)}{nearest_name(name, _ROWS)}")
    return np.array([(_ROWS[name].lower, _ROWS[name].upper) for name in names], np.float64).reshape(-1, 2)


def _chunks(ohlc_NT4: Floats, hybrid: Hybrid) -> Iterator[tuple[slice, State]]:
    if ohlc_NT4.ndim != 3 or ohlc_NT4.shape[2] != 4 or ohlc_NT4.shape[1] == 0:
        raise UserError(
            f"features need windows of open, high, low, close, shape [N, T, 4] with T >= 1; got {ohlc_NT4.shape}"
        )
    for start in range(0, len(ohlc_NT4), CHUNK):
        part = slice(start, min(start + CHUNK, len(ohlc_NT4)))
        yield part, make_state(ohlc_NT4[part], hybrid)


def compute_features(
    ohlc_NT4: Floats, feature_set: str = "relativity11", hybrid: Hybrid = PRIMARY
) -> NDArray[np.float32]:
    """Return the features of each window. They depend on that window's own bars alone.

    Parameters
    ----------
    ohlc_NT4
        Open, high, low and close of N windows of T bars, shape [N, T, 4]. A NaN price gives NaN features.
    feature_set
        ``relativity10``, ``relativity11`` (default) or ``relativity12``; ``+file`` adds the features of a file.
    hybrid
        Second rule that may end a zigzag leg; off by default.

    Returns
    -------
    float32 array [N, T, F]
        Features in the order of ``feature_names(feature_set)``. They have no unit.

    Raises
    ------
    UserError
        For an unknown set, or for another shape.

    Examples
    --------
    >>> import numpy as np
    >>> close = 100 + np.arange(5.0)
    >>> ohlc = np.stack([close - 0.5, close + 1, close - 1, close], axis=-1)[None]
    >>> compute_features(ohlc, "relativity10").shape
    (1, 5, 10)
    >>> compute_features(ohlc, "relativity10")[0, 0, :3].tolist()
    [0.25, 0.5, 0.25]

    Source: docs/reference/features.md, "The features".
    """
    names = feature_names(feature_set)
    ohlc_NT4 = np.asarray(ohlc_NT4)
    out_NTF = np.empty((*ohlc_NT4.shape[:2], len(names)), np.float32)
    for part, state in _chunks(ohlc_NT4, hybrid):
        for f, name in enumerate(names):
            out_NTF[part, :, f] = state.feature(name).T
    return out_NTF


def compute_swings(ohlc_NT4: Floats, hybrid: Hybrid = PRIMARY) -> Swings:
    """Return the zigzag of each window. Shapes: ohlc [N, T, 4] -> fields [N, T], window-major.

    Raises: UserError for any other shape.
    """
    parts = [vars(state.swings) for _, state in _chunks(np.asarray(ohlc_NT4), hybrid)]
    return Swings(**{key: np.concatenate([part[key].T for part in parts]) for key in parts[0]})


def flip_rate(ohlc_NT4: Floats, warmup: int = 20, hybrid: Hybrid = PRIMARY) -> float:
    """Return the share of bars after the warm-up that confirm a swing, where the leg flips. Shapes: ohlc [N, T, 4].

    Raises: UserError for any other shape.
    """
    ohlc_NT4 = np.asarray(ohlc_NT4)
    flips = sum(int(np.count_nonzero(s.swings.flip[warmup:])) for _, s in _chunks(ohlc_NT4, hybrid))
    return flips / max(1, len(ohlc_NT4) * (ohlc_NT4.shape[1] - warmup))
