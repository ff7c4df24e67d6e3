"""The parts of a rule: a selector finds one span in a window, an outcome names a class of what follows it.

Shape legend: N windows, T bars, P candidate positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from moola_mlflow.core import UserError
from moola_mlflow.labels.rules.parameters import choice, whole
from moola_mlflow.labels.rules.windows import UNITS, RuleWindows


@dataclass(frozen=True)
class Spans:
    """The span that a selector finds in each window. If it finds none, start, end and direction mean nothing.

    Shapes: found bool [N]; start, end (both included) and direction (1 up, -1 down) int64 [N].
    """

    found: np.ndarray
    start: np.ndarray
    end: np.ndarray
    direction: np.ndarray

    def within(self, w: RuleWindows) -> Spans:
        """Return spans cut to two bars or more, with one bar left after them. A window without moves has none."""
        start = np.clip(self.start, 0, w.length - 3)
        end = np.clip(self.end, start + 1, w.length - 2)
        direction = np.sign(self.direction).astype(np.int64)
        return Spans(self.found & w.moves & (direction != 0), start, end, direction)


@dataclass(frozen=True)
class Marked(Spans):
    """Spans with their class. Shapes: outcome int64 [N], a position in the rule's classes; -1: no class."""

    outcome: np.ndarray

    @property
    def labelled(self) -> np.ndarray:
        """Whether a window has a span and a class. Shapes: bool [N]."""
        return self.found & (self.outcome >= 0)


@dataclass(frozen=True)
class Selector:
    """Base of selectors: the parameters that all of them share, and ``find``.

    A span has at least ``lead`` bars of the window before it and ``wait`` bars after it. Some selectors move its ends
    by a few bars.
    """

    lead: int = whole(10, 24)
    """Bars of the window before a span."""
    wait: int = whole(12, 30)
    """Bars after the span that decide its outcome."""
    unit: str = choice(*UNITS)
    """What thresholds are multiples of: see ``RuleWindows.unit``."""
    noise: float = choice(0.0, 0.0, 0.1, 0.2)
    """Sigma of the noise exp(sigma N) on each candidate's score."""
    pick: str = choice("best", "best", "best", "first", "last")
    """Which of several candidates counts."""

    family: ClassVar[str]

    def find(self, w: RuleWindows, salt: int) -> Spans:
        """Return the span of each window. ``salt`` chooses the rule's noise."""
        raise NotImplementedError

    def positions(self, w: RuleWindows, bars: int) -> np.ndarray:
        """Return the possible starts of a span of ``bars`` bars, given lead and wait. Shapes: int64 [P]."""
        return np.arange(self.lead, w.length - self.wait - bars + 1)

    def chosen(
        self, w: RuleWindows, score: np.ndarray, allowed: np.ndarray, salt: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the position of the best, first or last allowed candidate, and whether any is allowed.

        Shapes: score and allowed [N, P] -> int64 [N], bool [N].
        """
        score = np.where(allowed, score * w.noise(salt, self.noise, score.shape[1]), -np.inf)
        if self.pick == "best":
            at = score.argmax(axis=1)
        elif self.pick == "first":
            at = allowed.argmax(axis=1)
        else:
            at = score.shape[1] - 1 - allowed[:, ::-1].argmax(axis=1)
        return at, np.isfinite(score.max(axis=1))


class Best:
    """The best span of each window so far. Candidates come one batch after another; of equal ones the first stays."""

    def __init__(self, num: int) -> None:
        self.score = np.full(num, -np.inf)
        self.start, self.end, self.direction = (np.zeros(num, np.int64) for _ in range(3))

    def offer(
        self, score: np.ndarray, start: np.ndarray | int, end: np.ndarray | int, direction: np.ndarray | int
    ) -> None:
        """Keep a window's candidate if its score is higher. Shapes: [N] each; the score -inf is no candidate."""
        better = score > self.score
        self.score = np.where(better, score, self.score)
        self.start, self.end = np.where(better, start, self.start), np.where(better, end, self.end)
        self.direction = np.where(better, direction, self.direction)

    def spans(self) -> Spans:
        """Return the best spans."""
        return Spans(np.isfinite(self.score), self.start, self.end, self.direction)


class Outcome(Protocol):
    """Names what follows a span."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their numbers."""
        ...

    def apply(self, w: RuleWindows, spans: Spans) -> np.ndarray:
        """Return the class of each window's span. Shapes: int64 [N]."""
        ...


class Rule(Protocol):
    """A labelling rule: it finds at most one span in each window and names a class of what follows."""

    @property
    def name(self) -> str: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def shortest(self) -> int:
        """Fewest bars that a window may have."""
        ...

    def apply(self, w: RuleWindows) -> Marked:
        """Return span and class of each window, from that window's own bars alone."""
        ...

    def describe(self) -> str:
        """Return one sentence: which span, and which classes."""
        ...


@dataclass(frozen=True)
class DrawnRule:
    """A rule made of a selector and an outcome. ``salt`` chooses its noise."""

    name: str
    selector: Selector
    outcome: Outcome
    salt: int
    shortest: ClassVar[int] = 90
    """Bars that the largest lead, span and wait need."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the outcome's classes."""
        return self.outcome.classes

    def apply(self, w: RuleWindows) -> Marked:
        """Return span and class of each window, from that window's own bars alone."""
        check_length(self, w.length)
        spans = self.selector.find(w, self.salt).within(w)
        outcome = np.where(spans.found, self.outcome.apply(w, spans), -1)
        return Marked(spans.found, spans.start, spans.end, spans.direction, outcome)

    def describe(self) -> str:
        """Return one sentence: which span, and which classes."""
        return f"{self.selector!r}; {self.outcome!r}"


def check_length(rule: Rule, length: int) -> None:
    """Refuse windows that are too short for a rule. Raises: UserError."""
    if length < rule.shortest:
        raise UserError(
            f"windows.length={length}; the label rule {rule.name} needs {rule.shortest} bars or more; "
            "105 is the default"
        )


def joined(parts: list[Marked]) -> Marked:
    """Return the marks of several batches of windows as one."""
    names = ("found", "start", "end", "direction", "outcome")
    return Marked(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
