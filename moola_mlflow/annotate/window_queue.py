"""Which window comes next: random ones first, then some that the detector orders, and always some random, blind ones.

The share of each kind is kept exactly at every count, so an interrupted session goes on where it was.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from moola_mlflow.core import AnnotateConfig

RANDOM, UNCERTAIN, TOP, LISTED = "random", "uncertain", "top", "listed"
SHARED, OWN = 0, 1
"""Purposes of seeds."""
AHEAD = 64
"""Random windows whose suggestions are computed ahead."""


@dataclass(frozen=True)
class NextWindow:
    """A window that is to be shown: the row of its first bar, how it was chosen, and whether no suggestion is shown."""

    row: int
    drawn: str
    blind: bool


@dataclass
class WindowQueue:
    """The windows of one annotator, in the order in which they are shown.

    Every annotator of a seed is shown the same part of the windows, in the same order. The rest has an order of the
    annotator's own, without the windows that others have decided.
    """

    config: AnnotateConfig
    shared: list[int]
    own: list[int]
    listed: list[int] = field(default_factory=list)
    hits: Container[int] = ()
    """Windows that are listed because a detector has found something: a query chose them, and no fair draw."""
    ordered: list[int] = field(default_factory=list)
    """Windows in the order of the detector, the first to be shown first; empty before it is fitted."""
    _next: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls, config: AnnotateConfig, starts: np.ndarray, listed: Sequence[int] = (), hits: Container[int] = ()
    ) -> WindowQueue:
        """Return the queue of an annotator over windows that begin at these rows. Shapes: int64 [N]."""
        everyone = np.random.default_rng([config.seed, SHARED]).permutation(starts)
        num_shared = math.ceil(len(starts) * config.overlap)
        name = zlib.crc32(config.annotator.encode())
        own = np.random.default_rng([config.seed, OWN, name]).permutation(everyone[num_shared:])
        return cls(config, everyone[:num_shared].tolist(), own.tolist(), list(listed), hits)

    def draw(self, number: int, mine: Container[int], anybody: Container[int]) -> NextWindow | None:
        """Return the next window of an annotator who has decided ``number`` windows; None if none is left.

        ``mine``: rows that this annotator has decided. ``anybody``: rows that somebody has decided.
        """
        if self.config.order == "list" or self.config.review:
            found = self._first("listed", self.listed, mine.__contains__, NextWindow(-1, LISTED, False))
            return replace(found, drawn=TOP) if found and found.row in self.hits else found
        for kind in self._kinds(number):
            if found := kind(mine, anybody):
                return found
        return None

    def ahead(self, anybody: Container[int], num: int = AHEAD) -> list[int]:
        """Return the next random windows, which nobody has decided."""
        found: list[int] = []
        for row in self.own[self._next.get("own", 0) :]:
            if len(found) == num:
                break
            if row not in anybody:
                found.append(row)
        return found

    def undecided(self, anybody: Container[int]) -> Iterator[int]:
        """Yield all windows that nobody has decided, in random order."""
        return (row for row in self.own if row not in anybody)

    def fair(self, at_random: Container[int], anybody: Container[int]) -> set[int]:
        """Return the windows that the random order has passed: a fair sample of all windows.

        Some of them had been taken by a query before the random order came to them. Without these the sample would lack
        what queries like: hard windows.

        ``at_random``: rows that this annotator has decided and that were drawn at random.
        """
        num = 0
        for place, row in enumerate(self.own):
            if row not in anybody:
                break
            if row in at_random:
                num = place + 1
        return set(self.own[:num])

    def reorder(self, rows: Iterable[int]) -> None:
        """Take over the order of a detector."""
        self.ordered = list(rows)
        self._next["ordered"] = 0

    def _kinds(self, number: int) -> list[Callable[[Container[int], Container[int]], NextWindow | None]]:
        """Return the ways to draw this window, the first one that finds a window is used."""

        def shared(mine: Container[int], anybody: Container[int]) -> NextWindow | None:
            return self._first("shared", self.shared, mine.__contains__, NextWindow(-1, RANDOM, True))

        def at_random(blind: bool) -> Callable[[Container[int], Container[int]], NextWindow | None]:
            return lambda mine, anybody: self._first(
                "own", self.own, anybody.__contains__, NextWindow(-1, RANDOM, blind)
            )

        def by_detector(mine: Container[int], anybody: Container[int]) -> NextWindow | None:
            like = NextWindow(-1, TOP if self.config.order == "top" else UNCERTAIN, False)
            return self._first("ordered", self.ordered, anybody.__contains__, like)

        config, later = self.config, number - self.config.first_random
        blind = later < 0 or _is_turn(later, config.blind_share)
        ways = [at_random(blind), shared]
        if _is_turn(number, config.overlap):
            return [shared, at_random(True)]
        if not blind and config.order in ("uncertain", "top"):
            others = later - math.floor((later + 1) * config.blind_share + 1e-9)
            share = min(1.0, config.ordered_share / max(1 - config.blind_share, 1e-9))
            if _is_turn(others, share):
                return [by_detector, *ways]
        return ways

    def _first(
        self, name: str, rows: Sequence[int], is_decided: Callable[[int], bool], like: NextWindow
    ) -> NextWindow | None:
        """Return the first window that is not decided. Decided ones at the start are never looked at again."""
        place = self._next.get(name, 0)
        while place < len(rows) and is_decided(rows[place]):
            place += 1
        self._next[name] = place
        return NextWindow(rows[place], like.drawn, like.blind) if place < len(rows) else None


def _is_turn(count: int, share: float) -> bool:
    """Return whether the item after ``count`` others is one of a share that is spread evenly."""
    return math.floor((count + 1) * share + 1e-9) > math.floor(count * share + 1e-9)
