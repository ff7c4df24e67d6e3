"""The features once more, one bar and one plain float at a time, to hold the vectorised ones against.

Written from the tables of docs/reference/features.md and not from the package: it shares no code with it.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

K, TIE = 1.2, 1e-9


def clip(x, lower, upper):
    return min(max(x, lower), upper)


def ratio(numerator, denominator, when_zero):
    return when_zero if denominator == 0 else numerator / denominator


def clearly_larger(a, b):
    return a > b * (1 + TIE)


def reaches(move, multiple, atr):
    return atr > 0 and move >= multiple * atr * (1 - TIE)


def average_true_ranges(bars):
    """ATR of each bar: mean of the last min(t, 10) true ranges; the window's first bar has none."""
    true_ranges, atrs = [], [0.0]
    for (_, _, _, previous_close), (_, h, l, _) in pairwise(bars):  # noqa: E741
        true_ranges.append(max(h - l, abs(h - previous_close), abs(l - previous_close)))
        last = true_ranges[-10:]
        atrs.append(sum(last) / len(last))
    return atrs


def zigzag(bars, atrs, lookback, min_retrace, same_bar):
    """Yield (leg, (SH, t_SH) or None, (SL, t_SL) or None, flipped) after each bar."""
    leg, swing_high, swing_low = 0, None, None
    extreme = None  # (price, bar) of the running leg
    highest, lowest = (bars[0][1], 0), (bars[0][2], 0)  # candidates before the first leg
    yield leg, swing_high, swing_low, False

    for t in range(1, len(bars)):
        _, h, l, c = bars[t]  # noqa: E741
        atr, flipped = atrs[t], False
        if leg == 0:
            if h > highest[0]:
                highest = (h, t)
            if l < lowest[0]:
                lowest = (l, t)
            rise, drop = c - lowest[0], highest[0] - c
            if reaches(rise, K, atr) and clearly_larger(rise, drop):
                leg, swing_low, extreme, flipped = 1, lowest, highest, True
            elif reaches(drop, K, atr) and clearly_larger(drop, rise):
                leg, swing_high, extreme, flipped = -1, highest, lowest, True
        elif leg == 1:
            if h > extreme[0]:
                extreme = (h, t)
            age = t - extreme[1]
            soon = lookback > 0 and age <= lookback and (age > 0 or same_bar)
            if reaches(extreme[0] - c, K, atr) or (soon and reaches(extreme[0] - l, min_retrace, atr)):
                leg, swing_high, extreme, flipped = -1, extreme, (l, t), True
        else:
            if l < extreme[0]:
                extreme = (l, t)
            age = t - extreme[1]
            soon = lookback > 0 and age <= lookback and (age > 0 or same_bar)
            if reaches(c - extreme[0], K, atr) or (soon and reaches(h - extreme[0], min_retrace, atr)):
                leg, swing_low, extreme, flipped = 1, extreme, (h, t), True
        yield leg, swing_high, swing_low, flipped


def reference_features(window, lookback=0, min_retrace=0.5, same_bar=False):
    """Return the twelve features of one window [T, 4] as float64 [T, 12], and its flips as bool [T]."""
    bars = [tuple(float(price) for price in bar) for bar in window]
    atrs = average_true_ranges(bars)
    states = list(zigzag(bars, atrs, lookback, min_retrace, same_bar))
    rows, ema = [], None
    for t, ((o, h, l, c), atr, (leg, sh, sl, _)) in enumerate(zip(bars, atrs, states, strict=True)):  # noqa: E741
        span = h - l
        ema = span if ema is None else (2 / 21) * span + (1 - 2 / 21) * ema
        body = clip(ratio(c - o, span, 0.0), -1, 1)
        range_z = clip(ratio(span, ema, 0.0), 0, 3)
        since_sh = clip((t - sh[1]) / 105, 0, 3) if sh else 0.0
        since_sl = clip((t - sl[1]) / 105, 0, 3) if sl else 0.0
        rows.append(
            (
                clip(ratio(o - l, span, 0.5), 0, 1),
                clip(ratio(c - l, span, 0.5), 0, 1),
                body,
                clip(ratio(h - max(o, c), span, 0.0), 0, 1),
                clip(ratio(min(o, c) - l, span, 0.0), 0, 1),
                range_z,
                clip(ratio(sh[0] - c, atr, 0.0), -3, 3) if sh else 0.0,
                clip(ratio(c - sl[0], atr, 0.0), -3, 3) if sl else 0.0,
                since_sh,
                since_sl,
                clip(range_z * leg * body, -2, 2),
                clip((1 - range_z / 3) * (1 - abs(body)) * (since_sh + since_sl) / 2, 0, 3),
            )
        )
    return np.array(rows), np.array([flipped for *_, flipped in states])
