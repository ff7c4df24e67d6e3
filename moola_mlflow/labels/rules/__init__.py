"""Labelling rules by name. A rule finds a span in a window and names a class of what follows it.

A new selector is one file in this folder with ``SELECTOR``, a new rule one with ``RULE``. Drawn rules are named
``<family>-<seed>-<number>``, such as ``strict-0-12``.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import numpy as np

from moola_mlflow.core import UserError, find_plugins, nearest_name
from moola_mlflow.labels.rules import drawing
from moola_mlflow.labels.rules.drawing import FAMILIES, apply_rules, is_kept
from moola_mlflow.labels.rules.outcomes import OUTCOMES
from moola_mlflow.labels.rules.rule import DrawnRule, Marked, Rule, Selector, Spans, check_length
from moola_mlflow.labels.rules.windows import RuleWindows

__all__ = [
    "FAMILIES", "OUTCOMES", "RULES", "SELECTORS", "DrawnRule", "Marked", "Rule", "RuleWindows", "Selector", "Spans",
    "apply_rules", "check_length", "draw_rules", "find_rule", "is_kept", "rules_version",
]  # fmt: skip

SELECTORS: dict[str, type[Selector]] = find_plugins(__name__, __path__, "SELECTOR")
"""Selectors by the name of their file."""
RULES: dict[str, Rule] = {rule.name: rule for rule in find_plugins(__name__, __path__, "RULE").values()}
"""Rules with a file of their own, by their names."""


def draw_rules(ohlc_NT4: np.ndarray, num: int, family: str = "strict", seed: int = 0) -> list[DrawnRule]:
    """Draw ``num`` rules that find spans of several classes in the windows. Shapes: float64 [N, T, 4].

    Raises: UserError for an unknown family; TrainingError if too few rules find enough in the windows.
    """
    return drawing.draw_rules(SELECTORS, ohlc_NT4, num, family, seed)


@cache
def rules_version() -> str:
    """Return a hash of the code of all rules, files of one's own among them: what it makes may differ with it."""
    digest = hashlib.sha256(np.__version__.encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def find_rule(name: str) -> Rule:
    """Return a rule by its name. Raises: UserError for an unknown one."""
    if name in RULES:
        return RULES[name]
    family, _, rest = name.partition("-")
    seed, _, number = rest.partition("-")
    if family in FAMILIES and seed.isdecimal() and number.isdecimal() and len(rest) <= 20:
        return drawing.draw_rule(SELECTORS, family, int(seed), int(number))
    raise UserError(
        f"rule '{name}' is unknown{nearest_name(name, RULES)} Allowed: {', '.join(RULES)}, or a drawn rule such as "
        f"strict-0-12 (family {' | '.join(FAMILIES)}, seed, number)"
    )
