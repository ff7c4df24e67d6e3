"""Refuse bars that are not all of the expected length: another one, a mix, seconds, ticks, bars by volume."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from moola_mlflow.core import UserError

SECOND_NS = 1_000_000_000
MINUTE_NS = 60 * SECOND_NS
MIN_STEPS = 30
"""With fewer steps the length of a bar is unclear: a far expiry trades only now and then."""
BLOCK = MIN_STEPS // 2
MIN_SHARE = {2: 30, 3: 27, 5: 27}
"""How many of 30 steps must be multiples of 2, 3 or 5 bars. Bars with random gaps reach it once in a billion."""
PAUSE_BARS = 61
PHASE_SECONDS, MIN_PHASE = 21, 0.8
"""This share of one-minute bars has stamps within 21 seconds of each other. Bars by volume have any second."""
LENGTHS = (1, 5, 15)
"""Lengths of bars in minutes that ``bars.minutes`` may name."""
LONGER_NS = [minutes * MINUTE_NS for minutes in LENGTHS[1:]]


def length_text(minutes: int) -> str:
    """Return the length of a bar in words.

    >>> length_text(1), length_text(5)
    ('one minute', '5 minutes')
    """
    return "one minute" if minutes == 1 else f"{minutes} minutes"


def check_cadence(time_ns: np.ndarray, codes: np.ndarray, where: str, minutes: int = 1) -> None:
    """Refuse bars that have not so many minutes: by the share of steps, and in each stretch of time.

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
    check = _Check(where, minutes)
    check.usual(step)
    check.phase(time_ns)
    check.stretches(time_ns, step, rows)


@dataclass(frozen=True)
class _Check:
    """Checks of the bars of one source against the length that they should have."""

    where: str
    minutes: int

    @property
    def length_ns(self) -> int:
        return self.minutes * MINUTE_NS

    def refusal(self, found: str, cure: str = "") -> UserError:
        length = length_text(self.minutes)
        return UserError(f"{self.where}: these are not {self.kind} bars ({found}); give bars of {length}{cure}")

    @property
    def kind(self) -> str:
        return "one-minute" if self.minutes == 1 else f"{self.minutes}-minute"

    @property
    def resample(self) -> str:
        return f", or make {self.kind} bars of them with --bars.resample {self.minutes}min"

    def usual(self, step: np.ndarray) -> None:
        """Refuse another usual step, shorter or longer."""
        length = self.length_ns
        if 2 * np.count_nonzero(step == length) > len(step):
            return
        usual = float(np.median(step))
        if usual < length - 5 * SECOND_NS:
            raise self.refusal(f"the usual step is {usual / SECOND_NS:g} s", self.resample)
        # Minutes without a trade have no row, so long steps are normal. Steps that are nearly all multiples of more
        # than a bar are not. The common divisor of the middle 90 % of the steps is the length of a bar.
        grid = int(np.gcd.reduce(np.sort(step)[len(step) // 20 : len(step) - len(step) // 20]))
        whole = float((step % max(grid, 1) == 0).mean())
        if grid > length and whole >= 0.95:
            found, verb = ("every step", "is") if whole == 1 else (f"{whole:.1%} of the steps", "are")
            cure = f", or say so with --bars.minutes {grid // MINUTE_NS}" if grid in LONGER_NS else ""
            raise self.refusal(f"{found} {verb} a multiple of {grid / SECOND_NS:g} s", cure)

    def phase(self, time_ns: np.ndarray) -> None:
        """Refuse times that lie at any second of the minute."""
        if not ((time_ns - time_ns[0]) % MINUTE_NS).any():
            return
        counts = np.bincount(time_ns // SECOND_NS % 60, minlength=60)
        around = np.convolve(
            np.concatenate([counts, counts[: PHASE_SECONDS - 1]]), np.ones(PHASE_SECONDS, int), "valid"
        )
        if around.max() < MIN_PHASE * len(time_ns):
            found = "their times lie at any second of the minute, like those of ticks or of bars by volume"
            raise self.refusal(found, self.resample)

    def stretches(self, time_ns: np.ndarray, step: np.ndarray, rows: np.ndarray | None) -> None:
        """Refuse a stretch of 30 steps that are nearly all multiples of 2, 3 or 5 bars."""
        bars = (step + self.length_ns // 2) // self.length_ns
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
                usual = step[counted[hits[0] : hits[0] + MIN_STEPS]]
                length = round(float(np.median(usual)) / MINUTE_NS)
                at, until = (pd.Timestamp(int(time_ns[k]), tz="UTC") for k in (first, last + 1))
                found = (
                    f"from {at:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC the bars are {length_text(length)} apart"
                )
                raise self.refusal(found)
