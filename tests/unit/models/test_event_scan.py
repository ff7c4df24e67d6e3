"""A scan of bars with an event detector: a table of events, with the bar at whose end each is known."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from small_events import looked_at, random_event_detector, sample

from moola_mlflow.bars.reader import Bars
from moola_mlflow.core.errors import UserError
from moola_mlflow.models.events.cross_fit import EventSource, fit_event_detector
from moola_mlflow.models.events.event_detector import EventDetector
from moola_mlflow.models.events.event_scan import EVENT_COLUMNS, EventScan, scan_events
from moola_mlflow.models.events.fitting import EventSettings

MINUTE_NS = 60_000_000_000


def _utc(time_ns: int) -> pd.Timestamp:
    return pd.Timestamp(int(time_ns), tz="UTC")


@pytest.fixture(scope="module")
def detector() -> EventDetector:
    return fit_event_detector(looked_at(), EventSource(), EventSettings(folds=2), 1).detector


@pytest.fixture(scope="module")
def bars() -> Bars:
    return sample(6000, seed=43)


@pytest.fixture(scope="module")
def found(bars: Bars, detector: EventDetector) -> EventScan:
    return scan_events(bars, detector, threshold=0.0)


def test_the_table_has_a_row_for_each_event_in_order_of_time(found: EventScan) -> None:
    table = found.table()
    assert tuple(table.columns) == EVENT_COLUMNS
    assert len(table) == len(found.events) > 20
    assert (table["start"] <= table["end"]).all()
    assert (table["end"] < table["known_at"]).all()
    middle = table["start"] + (table["end"] - table["start"]) / 2
    assert (middle.diff().dt.total_seconds().iloc[1:] > -10 * 60).all(), "two classes at about the same bars"
    assert set(table["label"]) == {"consolidation", "retracement"}
    assert table["score"].between(0, 1).all()


@pytest.mark.parametrize("cores", ["2", "3"])
def test_several_cores_read_windows_at_once_and_find_the_same(
    bars: Bars, monkeypatch: pytest.MonkeyPatch, cores: str
) -> None:
    detector, seen = random_event_detector(1), list[tuple[int, int]]()
    alone = scan_events(bars, detector, threshold=0.0)
    monkeypatch.setenv("OMP_NUM_THREADS", cores)
    monkeypatch.setattr("moola_mlflow.models.events.event_scan.CHUNK", 16)
    shared = scan_events(bars, detector, threshold=0.0, on_windows=lambda done, of: seen.append((done, of)))
    np.testing.assert_allclose(shared.probability, alone.probability, atol=1e-6)
    pd.testing.assert_frame_equal(shared.table(), alone.table(), check_exact=False, atol=1e-6)
    num = len(shared.windows)
    assert seen == [(min(lo + 16, num), num) for lo in range(0, num, 16)]


def test_an_interrupt_ends_the_threads_of_a_scan(bars: Bars, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr("moola_mlflow.models.events.event_scan.CHUNK", 16)

    def stop(done: int, of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan_events(bars, random_event_detector(1), on_windows=stop)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("scan")]


def test_the_threshold_keeps_the_events_at_or_above_it(bars: Bars, detector: EventDetector, found: EventScan) -> None:
    at = float(np.median(found.events.score))
    kept = scan_events(bars, detector, threshold=at)
    assert len(kept.events) == (found.events.score >= at).sum()
    assert len(scan_events(bars, detector).events) == (found.events.score >= detector.threshold).sum()


def test_no_event_lies_in_two_segments_and_no_map_outside_of_the_windows(bars: Bars, found: EventScan) -> None:
    time = bars.time_ns
    assert (time[found.events.end] - time[found.events.start] < 60 * 60 * 10**9).all()
    read = np.zeros(len(bars), bool)
    for start in found.windows.starts:
        read[start + 20 : start + 85] = True
    assert (found.probability[:, ~read] == 0).all()
    assert (found.probability[:, read] > 0).all()


def test_events_are_known_before_the_last_bar_that_could_change_them(found: EventScan) -> None:
    wait = found.known_ns - found.windows.bars.time_ns[found.events.end]
    assert (wait > MINUTE_NS).all()
    assert np.median(wait) < 106 * MINUTE_NS


def test_an_event_that_a_further_window_would_change_waits_until_no_bar_can_continue_the_segment() -> None:
    detector = random_event_detector()
    bars = replace(sample(), index=None).rows(slice(0, 500))
    clock = bars.time_ns[0] + MINUTE_NS * (np.arange(500) + 60 * (np.arange(500) >= 250))
    bars = replace(bars, time_ns=clock)
    table = scan_events(bars, detector, 0.0).table()
    first, last = (table[table["start"] < _utc(clock[250])], table[table["start"] >= _utc(clock[250])])
    assert first["final"].all()
    waited = first["known_at"] > _utc(clock[249] + MINUTE_NS)
    assert waited.any()
    assert (first["known_at"][waited] == _utc(clock[249] + 6 * MINUTE_NS)).all(), "the longest gap is 5 minutes"
    assert not last["final"].all()
    assert (last["known_at"][~last["final"]] == _utc(clock[-1] + MINUTE_NS)).all()
    # Without the second segment, nobody knows that the first one has ended.
    alone = scan_events(bars.head(250), detector, 0.0).table()
    assert alone["final"].tolist() == (~waited).tolist()


def test_two_instruments_do_not_share_events(detector: EventDetector, bars: Bars, found: EventScan) -> None:
    both = {name: np.concatenate([getattr(bars, name)] * 2) for name in ("time_ns", "ohlc", "volume")}
    twice = replace(bars, **both, instrument=np.repeat([1, 2], len(bars)), symbols={1: "AA", 2: "BB"})
    table = scan_events(twice, detector, threshold=0.0).table()
    one, other = (table[table["instrument"] == name].reset_index(drop=True) for name in ("AA", "BB"))
    assert one.drop(columns=["instrument", "score"]).equals(other.drop(columns=["instrument", "score"]))
    np.testing.assert_allclose(one["score"], other["score"], atol=1e-5)
    assert len(one) == len(found.events)


@pytest.mark.parametrize("stride", [0, 66])
def test_a_stride_that_leaves_bars_unread_is_refused(bars: Bars, detector: EventDetector, stride: int) -> None:
    with pytest.raises(UserError, match="the middle 65 bars of each window"):
        scan_events(bars, detector, stride=stride)


def test_the_caller_sees_how_many_windows_are_done(bars: Bars, detector: EventDetector) -> None:
    seen = list[tuple[int, int]]()
    scan = scan_events(bars, replace(detector, threshold=1.0), on_windows=lambda done, of: seen.append((done, of)))
    assert seen[-1] == (len(scan.windows), len(scan.windows))
    assert len(scan.table()) == len(scan.events)


def test_what_is_known_at_a_time_is_found_by_a_scan_of_the_bars_up_to_then() -> None:
    detector, columns = random_event_detector(), ["start", "end", "label", "known_at"]
    whole = scan_events(sample().head(1500), detector, 0.0).table()
    for num in (983, 991, 1040):
        early = scan_events(sample().head(num), detector, 0.0).table()
        assert not early["final"].all()
        known = whole[whole["known_at"] <= early["known_at"].max()]
        both = known.merge(early, on=columns, how="left", suffixes=("", "_early"))
        assert len(both) > 10
        np.testing.assert_allclose(both["score_early"], both["score"], atol=1e-9)
