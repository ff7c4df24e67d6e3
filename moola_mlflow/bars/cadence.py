"""Refuse bars that are not all of one length: five-minute bars, a mix of lengths, seconds, ticks, bars by volume."""

from __future__ import annotations

import numpy as np
import pandas as pd

from moola_mlflow.core import UserError

SECOND_NS = 1_000_000_000
MINUTE_NS = 60 * SECOND_NS
MIN_STEPS = 30
"""With fewer steps the length of a bar is unclear: a far expiry trades only now and then."""
BLOCK = MIN_STEPS // 2
MIN_SHARE = {2: 30, 3: 27, 5: 27}
"""How many of 30 steps must be multiples of 2, 3 or 5 minutes. Bars with random gaps reach it once in a billion."""
PAUSE_BARS = 61
PHASE_SECONDS, MIN_PHASE = 21, 0.8
"""This share of one-minute bars has stamps within 21 seconds of each other. Bars by volume have any second."""
RESAMPLE = ", or make one-minute bars of them with --bars.resample 1min"


def check_cadence(time_ns: np.ndarray, codes: np.ndarray, where: str) -> None:
    """Refuse bars that are not of one minute: by the share of steps, and in each stretch of time.

    Shapes: time_ns, codes int64 [N], ordered by instrument and then by time.
    Raises: UserError that says what the steps are, and where.
    """
    step = np.diff(time_ns)
    inside = step > 0
    if codes.max(initial=0) > 0:
        inside &= codes[1:] == codes[:-1]
    rows = np.flatnonzero(inside) if not inside.all() else None
    step = step if rows is None else step[rows]
    if len(step) < MIN_STEPS:
        return
    _check_usual(step, where)
    _check_phase(time_ns, where)
    _check_stretches(time_ns, step, rows, where)


def _refusal(where: str, found: str, cure: str = "") -> UserError:
    return UserError(f"{where}: these are not one-minute bars ({found}); give bars of one minute{cure}")


def _check_usual(step: np.ndarray, where: str) -> None:
    if 2 * np.count_nonzero(step == MINUTE_NS) > len(step):
        return
    usual = float(np.median(step))
    if usual < MINUTE_NS - 5 * SECOND_NS:
        raise _refusal(where, f"the usual step is {usual / SECOND_NS:g} s", RESAMPLE)
    # Minutes without a trade have no row, so long steps are normal. Steps that are nearly all multiples of more than
    # a minute are not. The common divisor of the middle 90 % of the steps is the length of a bar.
    grid = int(np.gcd.reduce(np.sort(step)[len(step) // 20 : len(step) - len(step) // 20]))
    whole = float((step % max(grid, 1) == 0).mean())
    if grid > MINUTE_NS and whole >= 0.95:
        found, verb = ("every step", "is") if whole == 1 else (f"{whole:.1%} of the steps", "are")
        raise _refusal(where, f"{found} {verb} a multiple of {grid / SECOND_NS:g} s")


def _check_phase(time_ns: np.ndarray, where: str) -> None:
    """Refuse times that lie at any second of the minute."""
    if not ((time_ns - time_ns[0]) % MINUTE_NS).any():
        return
    counts = np.bincount(time_ns // SECOND_NS % 60, minlength=60)
    around = np.convolve(np.concatenate([counts, counts[: PHASE_SECONDS - 1]]), np.ones(PHASE_SECONDS, int), "valid")
    if around.max() < MIN_PHASE * len(time_ns):
        found = "their times lie at any second of the minute, like those of ticks or of bars by volume"
        raise _refusal(where, found, RESAMPLE)


def _check_stretches(time_ns: np.ndarray, step: np.ndarray, rows: np.ndarray | None, where: str) -> None:
    """Refuse a stretch of 30 steps that are nearly all multiples of 2, 3 or 5 bars."""
    bars = (step + MINUTE_NS // 2) // MINUTE_NS
    ones = (bars == 1)[: len(bars) // BLOCK * BLOCK].reshape(-1, BLOCK).sum(1)
    if (ones > MIN_STEPS - min(MIN_SHARE.values())).all():
        return
    counted = np.flatnonzero(bars < PAUSE_BARS)  # a longer step is a pause
    inner = bars[counted]
    if len(inner) < MIN_STEPS:
        return
    for factor, most in MIN_SHARE.items():
        total = np.concatenate([[0], np.cumsum(inner % factor == 0)])
        hits = np.flatnonzero(total[MIN_STEPS:] - total[:-MIN_STEPS] >= most)
        if len(hits):
            begin, end = counted[hits[0]], counted[hits[0] + MIN_STEPS - 1]
            first, last = (int(k if rows is None else rows[k]) for k in (begin, end))
            length = int(np.median(inner[hits[0] : hits[0] + MIN_STEPS]))
            at, until = (pd.Timestamp(int(time_ns[k]), tz="UTC") for k in (first, last + 1))
            found = f"from {at:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC the bars are {length} minutes apart"
            raise _refusal(where, found)
