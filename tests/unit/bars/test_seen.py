"""Bars that came one by one are a table like any other: one instrument behind another, with a hash."""

from __future__ import annotations

import numpy as np

from moola_mlflow.bars.live_lines import LiveBar
from moola_mlflow.bars.seen import SeenBars

MINUTE_NS = 60_000_000_000


def test_instruments_lie_one_behind_another_whatever_came_first_within_a_minute() -> None:
    rows = [LiveBar(name, t * MINUTE_NS, np.array([t, t + 1, t - 1, t + 0.5]), 3.0) for t in (5, 6) for name in "AB"]
    one, other = SeenBars(), SeenBars()
    for row in rows:
        one.add(row)
    for row in [rows[0], rows[1], rows[3], rows[2]]:
        other.add(row)
    bars = one.bars("live")
    assert len(one) == len(bars) == 4
    assert [bars.symbols[key] for key in bars.instrument.tolist()] == ["A", "A", "B", "B"]
    assert bars.time_ns.tolist() == [5 * MINUTE_NS, 6 * MINUTE_NS] * 2
    assert bars.sha256 == other.bars("live").sha256
