"""What is true in bars if a rule is the judge: the events that windows at stride 1 name, and how many agree.

Shape legend: N windows, E events.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from moola_mlflow.bars import Bars, segments
from moola_mlflow.labels import WAIT, DrawnRule, Rule, RuleWindows
from moola_mlflow.models import EventTable
from moola_mlflow.windows import make_windows

CHUNK = 2000
TRUE_SHARE, UNCLEAR_SHARE = 0.5, 0.1
SURGE_MARGINS = (20, WAIT)
"""Bars that a window must have before and after an event, for the rule surge-1."""


@dataclass(frozen=True)
class RuleTruth:
    """Events that a rule names in bars, in order of time.

    ``true`` holds those that at least half of the windows able to name them do, ``unclear`` those that at least a tenth
    do: these are neither right nor wrong. Starts and ends are rows of the bars, scores are the shares.
    """

    true: EventTable
    unclear: EventTable
    classes: tuple[str, ...]


def true_by_rule(
    bars: Bars,
    rule: Rule,
    margins: tuple[int, int] = SURGE_MARGINS,
    length: int = 105,
    max_gap_minutes: int = 5,
    on_windows: Callable[[int, int], None] | None = None,
) -> RuleTruth:
    """Apply a rule to windows at stride 1 and count for each event the share of windows that name it.

    A window is able to name an event if it holds the event with ``margins`` bars before and after it. ``on_windows`` is
    called with the number of windows done and of all windows.

    Raises: UserError if no window fits.
    Source: SPEC.md section 8.3.
    """
    windows = make_windows(bars, length, 1, max_gap_minutes)
    rows = []
    for lo in range(0, len(windows), CHUNK):
        index = np.arange(lo, min(lo + CHUNK, len(windows)))
        marked = rule.apply(RuleWindows(windows.gather(index), windows.start_ns[index]))
        kept, first = np.flatnonzero(marked.labelled), windows.starts[index]
        spans = (marked.start[kept] + first[kept], marked.end[kept] + first[kept])
        rows.append(np.stack([marked.outcome[kept], *spans], 1))
        if on_windows is not None:
            on_windows(lo + len(index), len(windows))
    named, count = np.unique(np.concatenate(rows), axis=0, return_counts=True)
    label, start, end = named.T
    runs = segments(bars, max_gap_minutes)
    own = runs[np.searchsorted(runs[:, 0], start, side="right") - 1]
    first_able = np.maximum(own[:, 0], end + margins[1] - length + 1)
    last_able = np.minimum(own[:, 1] - length, start - margins[0])
    share = count / np.maximum(1, last_able - first_able + 1)
    table = EventTable(label, start, end, share)
    table = table.select(np.argsort(start + end, kind="stable"))
    unclear = (table.score >= UNCLEAR_SHARE) & (table.score < TRUE_SHARE)
    is_true = np.flatnonzero(table.score >= TRUE_SHARE)
    return RuleTruth(table.select(is_true), table.select(np.flatnonzero(unclear)), rule.classes)


def margins_of(rule: Rule) -> tuple[int, int]:
    """Return the bars that a window must have before and after an event so that the rule can name it.

    Rules with a file of their own do not say it: they count as ``surge-1``.
    """
    return (rule.selector.lead, rule.selector.wait) if isinstance(rule, DrawnRule) else SURGE_MARGINS
