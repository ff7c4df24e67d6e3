"""Find impossible prices: 0, -1, ten or a hundred times the price of the rows around them."""

from __future__ import annotations

import itertools

import numpy as np

FACTOR = 4.0
"""A price may be wrong if it is 4 times its neighbours' or a quarter of them. No market moves so far in a minute."""
REACH = 20
"""Rows before a bar, and after it, that give its usual price."""
SPREADS = 20.0
"""A wrong price is this many usual moves away. A spread near zero often moves to 4 times its price."""
MIN_NEAR = 10
BLOCK = 2**15
SCALE_SLACK = 0.02
"""Tolerance of the decimal logarithm. It is 5 % of the price: more than a market moves in a minute."""


def find_spikes(prices: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return which bars have a price far from those of the bars around them, on both sides.

    A price that stays at its new level is no spike: it is a split, or the next expiry. Prices below zero are legal.

    Shapes: prices [4, N], codes int64 [N], ordered by instrument and then by time -> bool [N].
    """
    found = np.zeros(prices.shape[1], bool)
    low, high, close = prices[2], prices[1], prices[3]
    if len(close) < 3 or (low.min() > 0 and high.max() < FACTOR * low.min()):
        return found
    suspects = _suspects(prices, codes)
    solid = close[~_placeholders(prices)]
    steps = np.abs(np.diff(solid))
    tick = float(steps[steps > 0].min(initial=np.inf))
    if np.isinf(tick) and len(solid) < 0.75 * len(close):  # a spread that mostly rests at zero
        return found
    found |= _scaled_runs(close, codes, tick)
    for lo in range(0, len(suspects), BLOCK):
        rows = suspects[lo : lo + BLOCK]
        found[rows] |= _is_far(prices, codes, rows, tick)
    return found


def _scaled_runs(close: np.ndarray, codes: np.ndarray, tick: float) -> np.ndarray:
    """Return the rows between a step to ten, a hundred ... times the price and the step back. A split has no step back.

    Prices of a few ticks, such as those of a spread, may make such steps. They are left out.

    Shapes: close, codes [N] -> bool [N].
    """
    found = np.zeros(len(close), bool)
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.log10(np.abs(close))
    with np.errstate(invalid="ignore"):  # zeros give steps that are infinite
        step = np.diff(size)
        tens = np.round(step)
        large = np.maximum(np.abs(close[1:]), np.abs(close[:-1])) > SPREADS * tick
        at = np.flatnonzero(np.isfinite(step) & (tens != 0) & (np.abs(step - tens) < SCALE_SLACK) & large)
    for one, other in itertools.pairwise(at.tolist()):
        outside = min(abs(close[one]), abs(close[other + 1]))
        is_same = codes[one] == codes[other + 1]
        if tens[one] == -tens[other] and not found[one] and is_same and outside > SPREADS * tick:
            found[one + 1 : other + 1] = True
    return found


def _placeholders(prices: np.ndarray) -> np.ndarray:
    """Return which bars are 0 or -1 in all four prices. Shapes: bool [N]."""
    close = prices[3]
    return ((close == 0) | (close == -1)) & (prices[0] == close) & (prices[1] == prices[2])


def _suspects(prices: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return the rows that differ by the factor from the close before them or after them, and those between such rows.

    Shapes: int64 [S].
    """
    _, high, low, close = prices
    change = np.zeros(len(close), bool)
    before = close[:-1]
    size = np.abs(before)
    change[1:] = (high[1:] - before > (FACTOR - 1) * size) | (before - low[1:] > (1 - 1 / FACTOR) * size)
    change[1:] |= size > FACTOR * np.maximum(np.abs(high[1:]), np.abs(low[1:]))
    change[0] = True  # the first row has none before it
    change |= high - low > (FACTOR - 1) * np.minimum(np.abs(high), np.abs(low))
    if codes.max(initial=0) > 0:
        change[1:] |= codes[1:] != codes[:-1]
    change |= _placeholders(prices)  # in runs of any length
    edges = np.flatnonzero(change)
    gaps = np.diff(edges, append=edges[-1:] + REACH + 1)
    short = np.where(gaps <= REACH, gaps, 1)
    rows = np.repeat(edges, short) + np.arange(short.sum()) - np.repeat(np.cumsum(short) - short, short)
    return rows[rows < len(close)]


def _is_far(prices: np.ndarray, codes: np.ndarray, rows: np.ndarray, tick: float) -> np.ndarray:
    _, high, low, close = prices
    holder = _placeholders(prices)
    solid = np.flatnonzero(~holder)
    if len(solid) < 3:
        return np.zeros(len(rows), bool)
    # Look only at rows before and after that are not placeholders.
    at = np.searchsorted(solid, rows)
    offsets = np.concatenate([np.arange(-REACH, 0), np.arange(1, REACH + 1)])
    steps = offsets + np.where((offsets > 0) & holder[rows][:, None], -1, 0)
    near = at[:, None] + steps
    there = (near >= 0) & (near < len(solid))
    near = solid[np.clip(near, 0, len(solid) - 1)]
    there &= codes[near] == codes[rows][:, None]
    values = np.where(there, close[near], np.nan)
    ranges = np.where(there, high[near] - low[near], np.nan)
    far = np.zeros(len(rows), bool)
    k = np.flatnonzero(there.sum(1) >= MIN_NEAR)
    if not len(k):
        return far
    row, off = rows[k], np.ones(len(k), bool)
    sides = [_level(values[k][:, part], ranges[k][:, part]) for part in (slice(0, REACH), slice(REACH, None))]
    for level, spread in sides:
        high_is = _is_beyond(high[row], level, spread, tick, holder[row])
        low_is = _is_beyond(low[row], level, spread, tick, holder[row])
        off &= np.isnan(level) | high_is | low_is
    # Both sides must agree on the price: otherwise it moved to a new level.
    (one, _), (other, _) = sides
    agree = (
        np.isnan(one) | np.isnan(other) | (np.abs(one - other) <= (FACTOR - 1) * np.fmin(np.abs(one), np.abs(other)))
    )
    far[k] = off & (agree | (np.sign(one) * np.sign(other) <= 0))
    return far


def _is_beyond(price: np.ndarray, level: np.ndarray, spread: np.ndarray, tick: float, holder: np.ndarray) -> np.ndarray:
    """Return which prices are far from a level: by a factor, and by more than the market moves. Shapes: [N]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = price / level
        tens = np.nan_to_num(np.log10(np.abs(ratio)), nan=0.5, posinf=0.5, neginf=0.5)
    by_factor = (level == 0) | ~((ratio < FACTOR) & (ratio > 1 / FACTOR))
    apart = np.abs(price - level)
    moved = apart > SPREADS * np.maximum(spread, tick)
    # If the price rests, its only steps are those of the bad rows. Then ten or a hundred times the price, or a
    # placeholder, is far without any other move to compare with.
    scaled = (np.abs(tens - np.round(tens)) < 0.05) & (np.round(tens) != 0) & (ratio > 0)
    holder = holder & (moved | np.isinf(tick))
    return by_factor & (moved | ((scaled | holder) & (level != 0) & (apart > SPREADS * spread)))


def _level(values: np.ndarray, ranges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the usual price of some rows and how far it spreads, NaN if fewer than two are there. Shapes: [N]."""
    few = np.isfinite(values).sum(1) < 2
    filled = np.where(few[:, None], 0.0, values)
    level = np.nanmedian(filled, axis=1)
    spread = np.maximum(
        np.nanmedian(np.abs(filled - level[:, None]), axis=1), np.nanmedian(np.where(few[:, None], 0.0, ranges), axis=1)
    )
    return np.where(few, np.nan, level), np.where(few, 0.0, spread)
