"""Causal zigzag: find the swing highs and lows of many windows at once. A bar sees only the bars before it.

Arrays are time-major [T, N] (T bars, N windows), so that one step of the walk reads contiguous memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

REACH_ATR = 1.2
"""A retracement of this many ATR against the leg confirms a swing."""
TIE = 1e-9
"""Relative tolerance of every comparison that may confirm a swing. Prices are decimal ticks, so two moves that are
equal in ticks differ by binary rounding, in a direction that depends on the price level. The tolerance makes them
equal again."""


@dataclass(frozen=True)
class Hybrid:
    """Settings of the second rule that may end a leg: a smaller retracement shortly after the extreme.

    It is off by default. The published features use ``Hybrid(lookback=5, min_retrace=0.5, same_bar=True)``, which ends
    a leg on nearly every bar. The rule exists to reproduce them.
    """

    lookback: int = 0
    """The rule may end a leg up to this many bars after the extreme; 0 turns the rule off."""
    min_retrace: float = 0.5
    """Retracement from the extreme to the bar's low (up leg) or high (down leg), in ATR."""
    same_bar: bool = False
    """Whether the bar of the extreme itself may end the leg."""


PRIMARY = Hybrid()
"""The default: only the primary rule ends a leg."""


@dataclass(frozen=True)
class Swings:
    """State of the zigzag after each bar.

    ``leg`` is +1 (up), -1 (down) or 0 (before the first leg). ``flip`` marks the bars that confirm a swing, where
    ``leg`` changes. ``sh`` and ``sl`` are the prices of the last confirmed swing high and low, 0 while there is none.

    Shapes: every field [T, N].
    Units: prices as given; ``t_sh`` and ``t_sl`` in bars from the window's first bar, -1 while there is none.
    """

    leg: NDArray[np.int8]
    sh: Floats
    t_sh: Floats
    sl: Floats
    t_sl: Floats
    flip: NDArray[np.bool_]


def walk(h_TN: Floats, l_TN: Floats, c_TN: Floats, atr_TN: Floats, hybrid: Hybrid) -> Swings:
    """Walk the zigzag over all windows together, one bar at a time.

    Shapes: high, low, close and ATR [T, N].
    Units: prices. Pass an ATR of 0 as infinity, which no move reaches.
    Source: docs/reference/features.md, "The zigzag".
    """
    num_bars, num_windows = h_TN.shape
    reach_TN = atr_TN * (REACH_ATR * (1 - TIE))
    retrace_TN = atr_TN * (hybrid.min_retrace * (1 - TIE)) if hybrid.lookback > 0 else None

    # Both extremes are tracked at all times. Before the first leg both are candidates. Inside a leg the flip overwrites
    # the extreme of the other side, so tracking it is harmless and avoids a branch per window.
    hi, lo = h_TN[0].copy(), l_TN[0].copy()
    t_hi, t_lo = np.zeros(num_windows), np.zeros(num_windows)
    up, down = np.zeros(num_windows, bool), np.zeros(num_windows, bool)
    waiting: NDArray[np.bool_] | None = np.ones(num_windows, bool)

    swings = Swings(
        leg=np.zeros((num_bars, num_windows), np.int8),
        sh=np.zeros((num_bars, num_windows)),
        t_sh=np.full((num_bars, num_windows), -1.0),
        sl=np.zeros((num_bars, num_windows)),
        t_sl=np.full((num_bars, num_windows), -1.0),
        flip=np.zeros((num_bars, num_windows), bool),
    )
    for t in range(1, num_bars):
        h, low, c = h_TN[t], l_TN[t], c_TN[t]
        np.copyto(t_hi, t, where=h > hi)
        np.maximum(hi, h, out=hi)
        np.copyto(t_lo, t, where=low < lo)
        np.minimum(lo, low, out=lo)

        drop, rise = hi - c, c - lo
        drops, rises = drop >= reach_TN[t], rise >= reach_TN[t]
        ends_up, ends_down = up & drops, down & rises
        if retrace_TN is not None:
            first_bar = 0 if hybrid.same_bar else 1
            age_hi, age_lo = t - t_hi, t - t_lo
            ends_up |= up & (hi - low >= retrace_TN[t]) & (age_hi >= first_bar) & (age_hi <= hybrid.lookback)
            ends_down |= down & (h - lo >= retrace_TN[t]) & (age_lo >= first_bar) & (age_lo <= hybrid.lookback)

        new_sh, new_sl = ends_up, ends_down
        if waiting is not None:
            new_sh = ends_up | (waiting & drops & (drop > rise * (1 + TIE)))
            new_sl = ends_down | (waiting & rises & (rise > drop * (1 + TIE)))

        swings.sh[t], swings.t_sh[t] = swings.sh[t - 1], swings.t_sh[t - 1]
        swings.sl[t], swings.t_sl[t] = swings.sl[t - 1], swings.t_sl[t - 1]
        np.copyto(swings.sh[t], hi, where=new_sh)
        np.copyto(swings.t_sh[t], t_hi, where=new_sh)
        np.copyto(swings.sl[t], lo, where=new_sl)
        np.copyto(swings.t_sl[t], t_lo, where=new_sl)

        # A leg after another leg starts from this bar. The first leg keeps the extreme tracked so far.
        np.copyto(lo, low, where=ends_up)
        np.copyto(t_lo, t, where=ends_up)
        np.copyto(hi, h, where=ends_down)
        np.copyto(t_hi, t, where=ends_down)

        up, down = (up & ~new_sh) | new_sl, (down & ~new_sl) | new_sh
        np.subtract(up, down, out=swings.leg[t], dtype=np.int8)
        np.logical_or(new_sh, new_sl, out=swings.flip[t])
        if waiting is not None:
            waiting = ~(up | down)
            waiting = waiting if waiting.any() else None
    return swings
