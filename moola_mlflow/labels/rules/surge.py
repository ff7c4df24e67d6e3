"""The rule surge-1 for the registry: the strongest surge, and whether price came back or paused after it."""

from __future__ import annotations

import numpy as np

from moola_mlflow.labels import surge_rule
from moola_mlflow.labels.rules.rule import Marked
from moola_mlflow.labels.rules.windows import RuleWindows


class Surge:
    """The strongest surge of 5 to 12 bars (docs/reference/labels.md). If price goes on first, it has no class."""

    name = surge_rule.RULE
    classes = surge_rule.CLASSES
    shortest = surge_rule.SHORTEST

    def apply(self, w: RuleWindows) -> Marked:
        """Return span and class of each window, from that window's own bars alone."""
        outcome, start, end = surge_rule.apply_rule(np.stack([w.open, w.high, w.low, w.close], axis=-1))
        found = outcome != surge_rule.NO_SURGE
        end = np.where(found, end, start + 1)
        direction = np.sign(w.close[w.rows, end] - w.open[w.rows, start]).astype(np.int64)
        return Marked(found, start, end, direction, np.where(outcome < len(self.classes), outcome, -1))

    def describe(self) -> str:
        """Return one sentence: which span, and which classes."""
        return "the strongest surge of 5 to 12 bars; price first gives half back, or touches neither side in 20 bars"


RULE = Surge()
