"""Signals beside bars stand at the bar after which an event is known, and one enters at the next open."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from small_events import random_event_detector, sample

from moola_mlflow.bars.reader import Bars
from moola_mlflow.core.errors import UserError
from moola_mlflow.models.events.event_scan import scan_events
from moola_mlflow.models.events.signals import PRICE_COLUMNS, event_signals

MINUTE = pd.Timedelta("1min")


@pytest.fixture(scope="module")
def bars() -> Bars:
    return sample().rows(slice(0, 4000))


def test_a_signal_is_at_the_last_bar_before_known_at_and_the_entry_at_the_next(bars: Bars) -> None:
    scan = scan_events(bars, random_event_detector(), 0.0)
    events = scan.table()
    table = event_signals(bars, events)
    assert list(table.columns[:5]) == list(PRICE_COLUMNS)
    np.testing.assert_array_equal(table[["Open", "High", "Low", "Close"]], bars.ohlc)
    final = events[events["final"]]
    for label in set(events["label"]):
        known = final.loc[final["label"] == label, "known_at"].dt.tz_localize(None)
        signal, entry = (table.index[table[f"{kind}_{label}"]] for kind in ("signal", "entry"))
        assert 0 < len(signal) <= len(known)
        assert all((known == t + MINUTE).any() or (known > t + MINUTE).any() for t in signal)
        assert set(entry) == {table.index[table.index >= t][0] for t in known if (table.index >= t).any()}
        assert (np.flatnonzero(table[f"entry_{label}"]) - 1).tolist() == [
            row for row in np.flatnonzero(table[f"signal_{label}"]) if row + 1 < len(table)
        ]
        assert (table[f"score_{label}"] > 0).tolist() == table[f"signal_{label}"].tolist()


def test_an_event_that_is_known_after_the_last_bar_or_is_not_final_has_no_entry(bars: Bars) -> None:
    last = pd.Timestamp(int(bars.time_ns[-1]), tz="UTC") + MINUTE
    events = pd.DataFrame({"label": ["a", "a"], "score": [0.5, 0.9], "known_at": [last, last - 9 * MINUTE]})
    table = event_signals(bars, events.assign(final=[True, False]))
    assert np.flatnonzero(table["signal_a"]).tolist() == [len(bars) - 1]
    assert not table["entry_a"].any()
    assert table["score_a"].max() == 0.5


def test_several_instruments_need_a_name(bars: Bars) -> None:
    columns = {name: np.concatenate([getattr(bars, name)] * 2) for name in ("time_ns", "ohlc", "volume")}
    both = replace(bars, **columns, instrument=np.repeat([1, 2], len(bars)), symbols={1: "AA", 2: "BB"})
    at = pd.Timestamp(int(bars.time_ns[100]), tz="UTC")
    events = pd.DataFrame({"instrument": ["AA", "BB"], "label": "x", "score": 0.5, "known_at": [at, at + 9 * MINUTE]})
    assert np.flatnonzero(event_signals(both, events, "AA")["entry_x"]).tolist() == [100]
    assert np.flatnonzero(event_signals(both, events, "BB")["entry_x"]).tolist() == [109]
    with pytest.raises(UserError, match=r"the bars hold several instruments \(AA, BB\); name one"):
        event_signals(both, events)
    with pytest.raises(UserError, match="instrument='CC' is not in the bars; there are: AA, BB"):
        event_signals(both, events, "CC")
    with pytest.raises(UserError, match="events lack the columns label, score, known_at"):
        event_signals(bars, pd.DataFrame())


def test_backtesting_py_enters_at_the_open_of_the_entry_bar(bars: Bars) -> None:
    backtesting = pytest.importorskip("backtesting", reason="the extra [backtesting] is not installed")
    events = scan_events(bars, random_event_detector(), 0.0).table()
    label = str(events["label"].iloc[0])
    table = event_signals(bars, events)

    class Follow(backtesting.Strategy):  # type: ignore[misc]
        """Buy one unit after each event, and sell it at once."""

        def init(self) -> None:
            pass

        def next(self) -> None:
            if self.position:
                self.position.close()
            elif self.data[f"signal_{label}"][-1]:
                self.buy(size=1)

    result = backtesting.Backtest(table, Follow, cash=1e6, commission=0, finalize_trades=True).run()
    trades = result["_trades"]
    assert len(trades) > 3
    entry = table[table[f"entry_{label}"]]
    assert set(trades["EntryTime"]) <= set(entry.index)
    np.testing.assert_allclose(trades["EntryPrice"], table.loc[trades["EntryTime"], "Open"])
