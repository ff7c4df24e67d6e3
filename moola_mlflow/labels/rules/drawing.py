"""Draw rules of a family from a seed, and keep those that find enough in given windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from moola_mlflow.core import TrainingError, UserError
from moola_mlflow.labels.rules.outcomes import OUTCOMES
from moola_mlflow.labels.rules.parameters import drawn, ranges
from moola_mlflow.labels.rules.rule import DrawnRule, Marked, Rule, Selector, joined
from moola_mlflow.labels.rules.windows import RuleWindows

LEAST_FOUND = 0.35
"""A rule is kept if it finds a span in this share of the windows or more."""
MOST_OF_ONE_CLASS = 0.88
"""A rule is kept if its largest class has at most this share of the spans."""
JUDGED_WINDOWS = 1000
"""Most windows that decide whether a rule is kept. So the cost does not grow with the number of bars."""
CHUNK = 1024
"""Windows that all rules read at a time. Their arrays then stay in cache."""
MOST_TRIES = 20
"""Rules that are drawn, at most, for each one that is wanted."""


@dataclass(frozen=True)
class Family:
    """Selectors and outcomes that rules are drawn from. A name listed twice is drawn twice as often."""

    selectors: tuple[str, ...]
    outcomes: tuple[str, ...]


_STRICT = ("zigzag", "trend", "activity", "run", "breakout", "spike", "squeeze", "vee", "level_shift", "ema_gap")
_OUTCOMES = ("touch", "touch", "touch", "net", "volatility", "range", "excursions", "adverse", "mean")
FAMILIES = {
    "strict": Family(_STRICT, _OUTCOMES),
    "broad": Family((*_STRICT, *["displacement"] * 4), _OUTCOMES),
    "shapes": Family((*_STRICT, *["double", "wedge", "flag"] * 2), _OUTCOMES),
    "ultra": Family(
        tuple(name for name in _STRICT if name not in ("level_shift", "ema_gap")),
        tuple(name for name in _OUTCOMES if name != "touch"),
    ),
}
"""strict: no selector that searches as the sample's label rule does; broad: with it; shapes: strict with double
tops, wedges and flags; ultra: fewer, for tests."""


def draw_rule(selectors: dict[str, type[Selector]], family: str, seed: int, number: int) -> DrawnRule:
    """Return one rule. Family, seed and number alone decide it, and make its name.

    Raises: UserError for an unknown family.
    """
    if family not in FAMILIES:
        raise UserError(f"rule family '{family}' is unknown; allowed: {', '.join(FAMILIES)}")
    rng, kinds = np.random.default_rng([seed, number]), FAMILIES[family]
    selector = drawn(selectors[kinds.selectors[rng.integers(len(kinds.selectors))]], rng)
    kind = OUTCOMES[kinds.outcomes[rng.integers(len(kinds.outcomes))]]
    parameters: dict[str, Any] = {name: one.draw(rng) for name, one in ranges(kind).items()}
    outcome = kind(wait=selector.wait, **parameters)
    return DrawnRule(f"{family}-{seed}-{number}", selector, outcome, int(rng.integers(2**40)))


def is_kept(marked: Marked) -> bool:
    """Return whether a rule finds enough spans, and not nearly all in one class."""
    if marked.found.mean() < LEAST_FOUND:
        return False
    return np.bincount(marked.outcome[marked.found]).max() <= MOST_OF_ONE_CLASS * marked.found.sum()


def draw_rules(
    selectors: dict[str, type[Selector]], ohlc_NT4: np.ndarray, num: int, family: str, seed: int
) -> list[DrawnRule]:
    """Draw rules until ``num`` are kept. At most 1,000 windows, evenly spaced, decide whether a rule is.

    Shapes: float64 [N, T, 4].
    Raises: UserError for an unknown family; TrainingError if too few rules find enough in the windows.
    """
    chosen = np.linspace(0, len(ohlc_NT4) - 1, min(len(ohlc_NT4), JUDGED_WINDOWS)).astype(np.int64)
    windows = RuleWindows(ohlc_NT4[chosen], chosen)
    kept: list[DrawnRule] = []
    for number in range(MOST_TRIES * num):
        rule = draw_rule(selectors, family, seed, number)
        if is_kept(rule.apply(windows)):
            kept.append(rule)
            if len(kept) == num:
                return kept
    raise TrainingError(
        f"{len(kept)} of {MOST_TRIES * num:,} drawn rules find a span in {LEAST_FOUND:.0%} of the windows; needed: "
        f"{num}. Give bars that move, or lower objective.num_rules"
    )


def apply_rules(rules: Sequence[Rule], ohlc_NT4: np.ndarray, key_N: np.ndarray | None = None) -> list[Marked]:
    """Return the spans and classes of each rule. Shapes: float64 [N, T, 4], key int64 [N]."""
    key_N = np.arange(len(ohlc_NT4)) if key_N is None else key_N
    parts: list[list[Marked]] = [[] for _ in rules]
    for lo in range(0, max(len(ohlc_NT4), 1), CHUNK):
        windows = RuleWindows(ohlc_NT4[lo : lo + CHUNK], key_N[lo : lo + CHUNK])
        for rule, mine in zip(rules, parts, strict=True):
            mine.append(rule.apply(windows))
    return [joined(mine) for mine in parts]
