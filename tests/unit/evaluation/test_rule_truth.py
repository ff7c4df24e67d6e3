"""The events that a rule names in bars: true if half of the windows that can see them agree."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from small_events import sample

from moola_mlflow.bars.reader import segments
from moola_mlflow.evaluation.rule_truth import SURGE_MARGINS, margins_of, true_by_rule
from moola_mlflow.labels import DrawnRule, Marked, RuleWindows, find_rule
from moola_mlflow.models.events.matching import EventTable

LEAD, WAIT, BARS = 20, 20, 6
CLASSES = ("consolidation", "retracement")


@dataclass(frozen=True)
class Stub:
    """Names spans of six bars whose first close is one of given prices, if the window's number fits."""

    prices: tuple[float, ...]
    every: int = 1
    name: str = "stub"
    classes: tuple[str, ...] = CLASSES
    shortest: int = 50

    def apply(self, w: RuleWindows) -> Marked:
        allowed = np.isin(w.close, self.prices)
        allowed[:, :LEAD], allowed[:, w.length - WAIT - BARS + 1 :] = False, False
        found = allowed.any(1) & (w.key // (60 * 10**9) % self.every == 0)
        start = allowed.argmax(1)
        return Marked(found, start, start + BARS - 1, np.ones(w.num, np.int64), np.where(found, 1, -1))

    def describe(self) -> str:
        return "spans of six bars"


def stubbed(every: int = 1) -> tuple[EventTable, EventTable, int]:
    """Return what is true and unclear of the one bar whose close no other bar has, and that bar."""
    bars = sample(4000, 44)
    ohlc = bars.ohlc.copy()
    lo, _ = segments(bars)[0]
    bar = int(lo) + 200
    ohlc[bar, 3] += 1e-7
    truth = true_by_rule(replace(bars, ohlc=ohlc), Stub((float(ohlc[bar, 3]),), every))
    assert truth.classes == CLASSES
    return truth.true, truth.unclear, bar


def test_an_event_that_every_able_window_names_is_true_with_share_one() -> None:
    true, unclear, bar = stubbed()
    assert (true.start.tolist(), true.end.tolist(), true.label.tolist()) == ([bar], [bar + BARS - 1], [1])
    assert true.score == pytest.approx([1.0])
    assert len(unclear) == 0


def test_an_event_that_a_third_of_the_windows_name_is_neither_true_nor_absent() -> None:
    true, unclear, bar = stubbed(every=3)
    assert len(true) == 0
    assert unclear.start.tolist() == [bar]
    assert unclear.score == pytest.approx([1 / 3], abs=0.03)


def test_an_event_that_one_window_in_twenty_names_is_absent() -> None:
    true, unclear, _ = stubbed(every=20)
    assert (len(true), len(unclear)) == (0, 0)


def test_surges_of_the_sample_are_as_frequent_as_the_specification_says() -> None:
    truth = true_by_rule(sample(30_000), find_rule("surge-1"))
    assert 150 < len(truth.true) < 260
    assert ((truth.true.score >= 0.5) & (truth.true.score <= 1)).all()
    assert ((truth.unclear.score >= 0.1) & (truth.unclear.score < 0.5)).all()
    length = truth.true.end - truth.true.start + 1
    assert ((length >= 5) & (length <= 12)).all()
    assert (np.diff(truth.true.start + truth.true.end) >= 0).all()


def test_a_drawn_rule_says_how_many_bars_it_needs_before_and_after_a_span() -> None:
    drawn = find_rule("strict-0-12")
    assert isinstance(drawn, DrawnRule)
    assert margins_of(drawn) == (drawn.selector.lead, drawn.selector.wait)
    assert margins_of(find_rule("surge-1")) == SURGE_MARGINS


def test_who_waits_is_told_of_every_window() -> None:
    said: list[tuple[int, int]] = []
    bars = sample(4000, 44)
    true_by_rule(bars, Stub(()), on_windows=lambda done, total: said.append((done, total)))
    assert [done for done, _ in said] == sorted({done for done, _ in said})
    assert said[-1][0] == said[-1][1] > 3000
