"""Ranges of a rule's parameters. To draw a rule, each parameter is drawn from its range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, TypeVar

import numpy as np

T = TypeVar("T")
EXCLUDED = (0.4, 0.6)
"""Drawn fractions avoid this range: labellers 1 and 2 of our tests decide at half of a move."""


class Range(Protocol):
    """A set of values that a parameter may take."""

    def draw(self, rng: np.random.Generator) -> Any:
        """Return one value at random."""
        ...

    def holds(self, value: Any) -> bool:
        """Return whether a value lies in the range."""
        ...


@dataclass(frozen=True)
class Real:
    """Numbers from ``low`` to ``high``, without those between the two ends of ``gap``."""

    low: float
    high: float
    gap: tuple[float, float] | None = None

    def draw(self, rng: np.random.Generator) -> float:
        low, high = self.gap or (self.high, self.high)
        value = float(rng.uniform(self.low, self.high - (high - low)))
        return value if value <= low else value + (high - low)

    def holds(self, value: Any) -> bool:
        return self.low <= value <= self.high and not (self.gap and self.gap[0] < value < self.gap[1])


@dataclass(frozen=True)
class Whole:
    """Whole numbers from ``low`` to ``high``, both included."""

    low: int
    high: int

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(self.low, self.high + 1))

    def holds(self, value: Any) -> bool:
        return isinstance(value, int) and self.low <= value <= self.high


@dataclass(frozen=True)
class Choice:
    """One of several values. A value listed twice is drawn twice as often."""

    values: tuple[Any, ...]

    def draw(self, rng: np.random.Generator) -> Any:
        return self.values[int(rng.integers(len(self.values)))]

    def holds(self, value: Any) -> bool:
        return value in self.values


def real(low: float, high: float, gap: tuple[float, float] | None = None) -> Any:
    """Return a dataclass field for a number in a range."""
    return field(metadata={"range": Real(low, high, gap)})


def whole(low: int, high: int) -> Any:
    """Return a dataclass field for a whole number in a range."""
    return field(metadata={"range": Whole(low, high)})


def choice(*values: Any) -> Any:
    """Return a dataclass field for one of several values."""
    return field(metadata={"range": Choice(values)})


def ranges(kind: type) -> Mapping[str, Range]:
    """Return the range of each parameter of a dataclass, in the order in which they are drawn."""
    return {one.name: one.metadata["range"] for one in fields(kind) if "range" in one.metadata}


def drawn(kind: type[T], rng: np.random.Generator) -> T:
    """Return an instance of a dataclass whose parameters are drawn from their ranges."""
    return kind(**{name: one.draw(rng) for name, one in ranges(kind).items()})
