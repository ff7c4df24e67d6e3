"""What follows events is measured from the first open after they are known, in one segment, beside random moments."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from small_events import random_event_detector, sample

from moola_mlflow.bars.reader import Bars
from moola_mlflow.evaluation.after_events import (
    AFTER_COLUMNS,
    HORIZONS,
    MEASURES,
    AfterEvents,
    events_with_moves,
    first_rows,
    follow_events,
    moves_after,
)
from moola_mlflow.models.events.event_scan import EventScan, scan_events

MINUTE_NS = 60_000_000_000
CLOCK = "America/New_York"


def with_gap(num: int = 600, at: int = 400) -> Bars:
    """Bars of two segments."""
    bars = replace(sample().rows(slice(0, num)), index=None)
    return replace(bars, time_ns=bars.time_ns[0] + MINUTE_NS * (np.arange(num) + 60 * (np.arange(num) >= at)))


@pytest.fixture(scope="module")
def scan() -> EventScan:
    return scan_events(sample().rows(slice(0, 12_000)), random_event_detector(), 0.0)


@pytest.fixture(scope="module")
def after(scan: EventScan) -> AfterEvents:
    return follow_events(scan)


def test_a_move_begins_at_the_first_open_at_or_after_known_at_and_ends_at_a_later_close() -> None:
    bars = with_gap()
    known = np.array([bars.time_ns[200], bars.time_ns[200] + 1, bars.time_ns[399] + 1, bars.time_ns[599] + MINUTE_NS])
    row = first_rows(bars, np.array([150, 150, 390, 590]), known)
    assert row.tolist() == [200, 201, -1, -1]
    moves = moves_after(bars, row, 105)
    ranges = bars.ohlc[95:200, 1] - bars.ohlc[95:200, 2]
    assert moves.unit[0] == np.median(ranges), "the window of bars before the open"
    for k, horizon in enumerate(HORIZONS):
        wanted = (bars.ohlc[200 + horizon - 1, 3] - bars.ohlc[200, 0]) / np.median(ranges)
        assert moves.move[0, k] == pytest.approx(wanted)
    assert np.isnan(moves.move[2:]).all()


@pytest.mark.parametrize(("row", "known"), [(340, 4), (341, 3), (380, 3), (381, 2), (395, 1), (396, 0)])
def test_no_move_crosses_a_gap_or_the_end(row: int, known: int) -> None:
    for bars in (with_gap(), with_gap().head(400)):
        moves = moves_after(bars, np.array([row]), 105)
        assert (~np.isnan(moves.move[0])).tolist() == [k < known for k in range(4)]


def test_a_bar_without_a_window_before_it_in_its_segment_has_no_move() -> None:
    moves = moves_after(with_gap(), np.array([104, 105, 504, 505]), 105)
    assert np.isnan(moves.move[:, 0]).tolist() == [True, False, True, False]


def test_later_prices_change_no_unit_and_prices_before_known_at_no_move(scan: EventScan) -> None:
    bars = scan.windows.bars
    row = np.array([3000])
    usual = moves_after(bars, row, 105)
    later, earlier = bars.ohlc.copy(), bars.ohlc.copy()
    later[3000:] += 50
    earlier[:3000] += 50
    assert moves_after(replace(bars, ohlc=later), row, 105).unit == usual.unit
    np.testing.assert_allclose(moves_after(replace(bars, ohlc=earlier), row, 105).move, usual.move)


def test_random_moments_share_the_hours_of_the_events_and_have_a_window_before_them(
    scan: EventScan, after: AfterEvents
) -> None:
    bars = scan.windows.bars
    hour = pd.DatetimeIndex(bars.time_ns.view("datetime64[ns]"), tz="UTC").tz_convert(CLOCK).hour.to_numpy()
    assert (hour[after.random.row] == after.hour[after.random_of]).all()
    assert (np.bincount(after.random_of) == 20).all()
    assert not np.isnan(after.random.unit).any()
    assert len(after.label) == int(scan.final.sum())
    other = follow_events(scan)
    np.testing.assert_array_equal(after.random.row, other.random.row)


def test_the_table_has_every_class_and_hour_and_its_means_are_those_of_the_moves(after: AfterEvents) -> None:
    table = after.table
    assert tuple(table.columns) == AFTER_COLUMNS
    names = {"all", *(after.classes[k] for k in np.unique(after.label))}
    assert set(table["label"]) == names
    assert set(table.loc[table["label"] == "all", "hour"]) == {"all", *map(str, np.unique(after.hour))}
    assert len(table) == (len(names) + len(np.unique(after.hour))) * len(HORIZONS) * len(MEASURES)
    move = after.moves.move[after.label == 0, 2]
    size = table[
        (table["label"] == after.classes[0]) & (table["bars"] == 20) & (table["measure"] == "size")
    ].iloc[0]  # fmt: skip
    assert size["value"] == pytest.approx(np.nanmean(np.abs(move)))
    assert (size["num"], size["left_out"]) == ((~np.isnan(move)).sum(), np.isnan(move).sum())
    assert size["difference"] == pytest.approx(size["value"] - size["random"])
    known = table[table["num"] > 30]
    assert (known["lo"] <= known["value"]).all()
    assert (known["value"] <= known["hi"]).all()
    assert (known["random_hi"] - known["random_lo"]).median() < (known["hi"] - known["lo"]).median()
    assert after.num_left_out()[60] >= after.num_left_out()[5]


def test_events_at_random_moments_differ_from_random_moments_by_no_more_than_chance(scan: EventScan) -> None:
    rng = np.random.default_rng(3)
    rows = rng.choice(np.arange(200, 11_000), 400)
    events = replace(scan.events.select(np.zeros(400, np.int64)), start=rows, end=rows + 5)
    chance = replace(
        scan, events=events, known_ns=scan.windows.bars.time_ns[rows] + 30 * MINUTE_NS, final=np.ones(400, bool),
        support=np.ones(400, np.int64),
    )  # fmt: skip
    table = follow_events(chance).table
    own = table[table["hour"] == "all"]
    covers = (own["difference_lo"] <= 0) & (own["difference_hi"] >= 0)
    assert covers.mean() > 0.8


def test_without_an_event_the_table_is_empty(scan: EventScan) -> None:
    none = follow_events(scan.at(1.1))
    assert none.table.empty
    assert tuple(none.table.columns) == AFTER_COLUMNS
    assert none.num_left_out() == dict.fromkeys(HORIZONS, 0)


def test_the_table_of_events_says_where_one_may_enter_and_what_followed(scan: EventScan) -> None:
    table = events_with_moves(scan)
    assert len(table) == len(scan.events)
    known = table.dropna(subset=["tradable_at"])
    assert (known["tradable_at"] >= known["known_at"]).all()
    assert known["tradable_at"].notna().sum() > 0.9 * len(table)
    assert table.loc[~table["final"], "tradable_at"].isna().all()
    bars = scan.windows.bars
    at = np.searchsorted(bars.time_ns, pd.DatetimeIndex(known["tradable_at"]).as_unit("ns").asi8)
    np.testing.assert_array_equal(known["tradable_open"], bars.ohlc[at, 0])
    whole = known.dropna(subset=["move_60"])
    assert len(whole) > 100
