"""Events of bars that come one by one are those of a scan, each reported once, at the moment that it names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_events import random_event_detector, sample

from moola_mlflow.bars.reader import Bars
from moola_mlflow.core.errors import UserError
from moola_mlflow.models.events.event_scan import EVENT_COLUMNS, scan_events
from moola_mlflow.models.events.live import KEPT_BARS, LateBarError, LiveEvent, LiveScan

DETECTOR = random_event_detector()
MINUTE_NS = 60_000_000_000


def with_gaps(bars: Bars, places: list[int], minutes: int = 10) -> Bars:
    """Return the same prices on a clock that stops at some places."""
    step = np.full(len(bars), MINUTE_NS)
    step[places] += minutes * MINUTE_NS
    return replace(bars, time_ns=bars.time_ns[0] + np.cumsum(step), index=None)


def replay(bars: Bars, live: LiveScan) -> list[tuple[int, LiveEvent]]:
    """Return each event with the number of bars that were read when it was reported."""
    names = {key: bars.symbols[key] for key in bars.symbols}
    out = []
    for row in np.argsort(bars.time_ns, kind="stable").tolist():
        name = names[int(bars.instrument[row])]
        out += [(live.num_bars, event) for event in live.add(name, int(bars.time_ns[row]), bars.ohlc[row])]
    return out


def table_of(events: list[LiveEvent]) -> pd.DataFrame:
    """Return events as the table of a scan."""
    frame = pd.DataFrame(events, columns=list(EVENT_COLUMNS))
    for name in ("start", "end", "known_at"):
        frame[name] = pd.DatetimeIndex(frame[name].to_numpy(np.int64).view("datetime64[ns]"), tz="UTC")
    return frame


def assert_same(live: pd.DataFrame, scan: pd.DataFrame) -> None:
    order = ["instrument", "start", "label"]
    live, scan = (one.sort_values(order, kind="stable").reset_index(drop=True) for one in (live, scan))
    exact = [name for name in EVENT_COLUMNS if name != "score"]
    pd.testing.assert_frame_equal(live[exact], scan[exact], check_dtype=False)
    # A window that is read alone and one of a batch differ by the last digit of a float32.
    np.testing.assert_allclose(live["score"], scan["score"], atol=2e-6)


@settings(max_examples=12)
@given(
    num=st.integers(90, 900),
    gaps=st.lists(st.integers(1, 880), max_size=3, unique=True),
    stride=st.sampled_from([11, 21, 65]),
    seed=st.integers(0, 3),
)
def test_at_any_bar_reported_and_open_events_together_are_those_of_a_scan(num, gaps, stride, seed) -> None:
    bars = with_gaps(sample(3000).rows(slice(700 * seed, 700 * seed + 900)), gaps).head(num)
    live = LiveScan(DETECTOR, 0.0, stride)
    reported = [event for _, event in replay(bars, live)]
    assert all(event.final for event in reported)
    if num < DETECTOR.length:
        assert reported == live.open_events() == []
        return
    try:
        scan = scan_events(bars, DETECTOR, 0.0, stride).table()
    except UserError:  # every segment is shorter than a window
        assert reported == live.open_events() == []
        return
    assert_same(table_of([*reported, *live.open_events()]), scan)


def test_an_event_is_reported_at_the_bar_that_makes_it_known_and_never_taken_back() -> None:
    bars = with_gaps(sample(3000), [500, 1400])
    scan = scan_events(bars, DETECTOR, 0.0).table()
    final = scan[scan["final"]]
    reported = replay(bars, LiveScan(DETECTOR, 0.0))
    assert_same(table_of([event for _, event in reported]), final)
    ends = bars.time_ns + MINUTE_NS
    for num_bars, event in reported:
        assert event.known_at <= ends[num_bars - 1], "nothing is known before its time"
        if event.known_at in ends:
            assert event.known_at == ends[num_bars - 1]
        else:  # a gap has ended the segment
            assert event.known_at == ends[num_bars - 2] + 5 * MINUTE_NS


def test_bars_of_five_minutes_give_the_events_of_single_minutes_on_their_own_clock() -> None:
    bars = with_gaps(sample(3000).rows(slice(0, 900)), [500])
    first = int(bars.time_ns[0])
    longer = replace(bars, time_ns=first + 5 * (bars.time_ns - first), minutes=5)
    live = LiveScan(DETECTOR, 0.0, max_gap_minutes=25, minutes=5)
    reported = [event for _, event in replay(longer, live)]
    scan = scan_events(longer, DETECTOR, 0.0, max_gap_minutes=25).table()
    assert_same(table_of([*reported, *live.open_events()]), scan)
    of_minutes = scan_events(bars, DETECTOR, 0.0).table()
    for name in ("start", "end", "known_at"):
        ns, short_ns = (pd.DatetimeIndex(table[name]).as_unit("ns").asi8 for table in (scan, of_minutes))
        np.testing.assert_array_equal(ns - first, 5 * (short_ns - first))


def test_a_long_segment_drops_old_bars_and_finds_the_same() -> None:
    bars = with_gaps(sample(30_000).rows(slice(0, 6000)), [])
    detector = replace(DETECTOR, threshold=0.3)
    live = LiveScan(detector)
    reported = [event for _, event in replay(bars, live)]
    assert live.segments[next(iter(live.segments))].dropped > KEPT_BARS
    assert_same(table_of([*reported, *live.open_events()]), scan_events(bars, detector).table())


def test_instruments_keep_their_own_segments_and_one_that_falls_silent_has_ended() -> None:
    bars = sample(3000).rows(slice(0, 700))
    columns = {name: np.concatenate([getattr(bars, name)] * 2) for name in ("time_ns", "ohlc", "volume")}
    both = replace(bars, **columns, instrument=np.repeat([1, 2], 700), symbols={1: "AA", 2: "BB"}, index=None)
    silent = both.rows(np.r_[0:400, 700:1400])
    for one in (both, silent):
        live = LiveScan(DETECTOR, 0.0)
        reported = [event for _, event in replay(one, live)]
        assert {event.instrument for event in reported} == {"AA", "BB"}
        assert_same(table_of([*reported, *live.open_events()]), scan_events(one, DETECTOR, 0.0).table())
    with pytest.raises(LateBarError, match="its segment has ended"):
        live.add("AA", int(bars.time_ns[401]), bars.ohlc[401])


@pytest.mark.parametrize(("back", "reason"), [(0, "its time has been read already"), (1, "a later bar has been read")])
def test_a_bar_that_comes_twice_or_too_late_is_refused_and_changes_nothing(back: int, reason: str) -> None:
    bars, live = sample(3000).rows(slice(0, 400)), LiveScan(DETECTOR, 0.0)
    reported = []
    for row in range(400):
        reported += live.add("ES", int(bars.time_ns[row]), bars.ohlc[row])
        if row in (105, 230):
            with pytest.raises(LateBarError, match=reason):
                live.add("ES", int(bars.time_ns[row - back]), bars.ohlc[row - back])
    assert live.num_bars == 400
    scan = scan_events(bars, DETECTOR, 0.0).table().assign(instrument="ES")
    assert_same(table_of([*reported, *live.open_events()]), scan)


def test_a_stride_that_leaves_bars_unread_is_refused() -> None:
    with pytest.raises(UserError, match="the middle 65 bars of each window"):
        LiveScan(DETECTOR, stride=66)
