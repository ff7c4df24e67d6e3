"""Events given by their times: windows around them, what they hold, and spans that no window can hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moola_mlflow import labels_from_spans
from moola_mlflow.bars import MINUTE_NS, Bars, bars_from_table, generate_bars, read_bars, segments
from moola_mlflow.core import BarsConfig, UserError
from moola_mlflow.labels import EventLabels
from moola_mlflow.labels.timed_spans import CutOptions, TimedSpans, labels_of_spans

BARS = read_bars(BarsConfig(sample_bars=3000, sample_seed=4))
PARTS = segments(BARS)


def frame(*spans: tuple[int, int, str], bars: Bars = BARS, **columns: Any) -> pd.DataFrame:
    """Spans by the numbers of their first and last bar."""
    at = np.array([span[:2] for span in spans])
    times = bars.time_ns[at]
    return pd.DataFrame({"start": times[:, 0], "end": times[:, 1], "label": [span[2] for span in spans], **columns})


def rows_of(labels: EventLabels) -> np.ndarray:
    """The first bar of each window."""
    return np.searchsorted(BARS.time_ns, labels.start_ns)


def test_an_event_lies_whole_in_its_window_with_bars_before_and_after() -> None:
    labels = labels_from_spans(BARS, frame((300, 310, "surge"), (900, 904, "pause")))
    assert labels.classes == ("pause", "surge")
    first = rows_of(labels)
    assert (first + labels.start).tolist() == [300, 900]
    assert (first + labels.end).tolist() == [310, 904]
    assert (labels.start >= 20).all()
    assert (labels.end < 85).all()
    np.testing.assert_array_equal(labels.ohlc[0], BARS.ohlc[first[0] : first[0] + 105])
    assert labels.bars_sha256 == BARS.sha256
    assert labels.instrument is not None
    assert labels.window_id[0].startswith(f"{labels.instrument[0]}-2023")


def test_the_place_of_an_event_in_its_window_is_drawn_by_a_seed() -> None:
    many = frame(*[(100 + 150 * k, 108 + 150 * k, "a") for k in range(8)])
    one, same, other = (labels_from_spans(BARS, many, seed=seed) for seed in (1, 1, 2))
    assert one.sha256 == same.sha256 != other.sha256
    assert len(set(one.start.tolist())) > 3


def test_events_near_each_other_share_a_window_and_none_is_lost() -> None:
    labels = labels_from_spans(BARS, frame((300, 306, "a"), (330, 338, "b"), (1000, 1010, "a")))
    assert labels.num_events >= 3
    assert labels.counts()["b"] >= 1


def test_a_window_cuts_no_other_event_if_there_is_a_place_for_it() -> None:
    spans = [(300, 306, "a"), (390, 396, "b"), (480, 486, "a"), (570, 576, "b"), (1000, 1006, "a"), (1070, 1076, "b")]
    for seed in range(12):
        labels = labels_from_spans(BARS, frame(*spans), seed=seed)
        for low in rows_of(labels).tolist():
            for start, end, _ in spans:
                inside, meets = low <= start and end < low + 105, start < low + 105 and end >= low
                assert inside == meets


@given(st.lists(st.tuples(st.integers(0, 2800), st.integers(1, 40)), min_size=1, max_size=25), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_each_window_holds_all_events_that_lie_in_it_whole(drawn: list[tuple[int, int]], seed: int) -> None:
    spans, end = [], -1
    for start, length in sorted(drawn):
        part = PARTS[np.searchsorted(PARTS[:, 0], start, "right") - 1]
        if start > end and start + length < part[1] and part[1] - part[0] >= 105:
            spans.append((start, start + length, "ab"[length % 2]))
            end = start + length
    if not spans:
        return
    labels = labels_from_spans(BARS, frame(*spans), seed=seed)
    first = rows_of(labels)
    held = {
        (int(first[w] + a), int(first[w] + b)) for w, a, b in zip(labels.window, labels.start, labels.end, strict=True)
    }
    assert held == {(start, last) for start, last, _ in spans}
    for k, low in enumerate(first.tolist()):
        inside = [(a, b) for a, b, _ in spans if a >= low and b < low + 105]
        assert int((labels.window == k).sum()) == len(inside)
        part = PARTS[np.searchsorted(PARTS[:, 0], low, "right") - 1]
        assert low + 105 <= part[1]


def test_the_rest_becomes_windows_without_an_event_if_somebody_looked_at_it() -> None:
    some = frame((300, 310, "surge"), (900, 904, "pause"))
    labels = labels_from_spans(BARS, some, rest="none")
    first = rows_of(labels)
    assert labels.counts()["none"] > 15
    taken = np.zeros(len(BARS), int)
    for low in first.tolist():
        taken[low : low + 105] += 1
    assert taken.max() == 1
    assert (np.diff(first) > 0).all()


def test_a_row_of_none_is_a_stretch_that_was_looked_at() -> None:
    labels = labels_from_spans(BARS, frame((300, 310, "surge"), (500, 799, "none")))
    assert labels.counts() == {"surge": 1, "none": 2}
    empty = rows_of(labels)[labels.events_per_window() == 0]
    assert empty.tolist() == [500, 605]


def test_other_columns_go_with_their_event() -> None:
    spans = frame((900, 904, "b"), (300, 310, "a"), grade=["B", "A"], drawn=["top", "random"], seconds=[2.5, None])
    labels = labels_from_spans(BARS, spans)
    assert labels.extra is not None
    assert labels.extra.to_pydict() == {"grade": ["A", "B"], "seconds": [None, 2.5]}
    assert labels.drawn is not None
    assert labels.drawn.tolist() == ["random", "top"]


def test_a_time_within_a_minute_means_its_bar() -> None:
    spans = frame((300, 310, "a"))
    inside = spans.assign(start=spans["start"] + 59 * 10**9, end=spans["end"] + 1)
    one, other = labels_from_spans(BARS, spans), labels_from_spans(BARS, inside)
    assert one.sha256 == other.sha256


@pytest.mark.parametrize("form", ["text", "utc", "offset", "zone"])
def test_times_are_read_in_any_form(form: str) -> None:
    spans = frame((300, 310, "a"), (500, 520, "b"))
    expected = labels_from_spans(BARS, spans)
    stamps = {name: pd.to_datetime(spans[name], utc=True) for name in ("start", "end")}
    zone = "America/New_York" if form == "zone" else "UTC"
    if form == "text":
        stamps = {name: times.dt.strftime("%Y-%m-%d %H:%M") for name, times in stamps.items()}
    elif form == "offset":
        stamps = {
            name: times.dt.tz_convert("Europe/Berlin").map(lambda t: t.isoformat()) for name, times in stamps.items()
        }
    elif form == "zone":
        stamps = {name: times.dt.tz_convert(zone).dt.tz_localize(None) for name, times in stamps.items()}
    given = TimedSpans.of(spans.assign(**stamps), "spans", zone)
    assert labels_of_spans(BARS, given, CutOptions(), Path("spans")).sha256 == expected.sha256


GAP = int(PARTS[1, 0])
REFUSED: dict[str, tuple[pd.DataFrame, str]] = {
    "a missing column": (frame((300, 310, "a")).drop(columns="end"), "spans has no column 'end'"),
    "an event of one bar": (frame((300, 300, "a")), r"row 1 .*holds 1 bars; it needs two or more"),
    "reversed": (frame((300, 310, "a"), (330, 320, "a")), r"row 2 \(start '20.*Z'\): an event .* holds 0 bars"),
    "across a gap": (frame((GAP - 3, GAP + 3, "a")), "row 1 .*the event crosses a gap in the bars"),
    "longer than a window": (frame((200, 320, "a")), "row 1 .*has 121 bars, more than the 105 of a window"),
    "before the bars": (frame((300, 310, "a")).assign(start=0), "row 1 .*1970-01-01T00:00Z is outside the bars, 2023-"),
    "no time": (frame((300, 310, "a")).assign(start="yesterday"), "row 1 .*start is empty or no time"),
    "no class": (frame((300, 310, "")), "row 1 .*label is empty; give a class, or none"),
    "an odd rest": (frame((300, 310, "a")), "rest='maybe'; allowed: unknown or none"),
    "events that share bars": (frame((300, 310, "a"), (310, 320, "a")), "share bars with those of row"),
    "no rows": (frame((300, 310, "a"))[:0], "spans holds no span"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_no_window_can_hold_is_refused_by_row_and_cure(kind: str) -> None:
    spans, message = REFUSED[kind]
    with pytest.raises(UserError, match=message):
        labels_from_spans(BARS, spans, rest="maybe" if kind == "an odd rest" else "unknown")


def test_of_several_instruments_each_event_needs_its_own() -> None:
    table = generate_bars(800, 3).assign(symbol="AA", instrument_id=1)
    later = generate_bars(800, 4).assign(symbol="BB", instrument_id=2)
    both = bars_from_table(pd.concat([table, later]))
    rows = np.flatnonzero(both.instrument == both.instrument[-1])[[300, 310]]
    spans = pd.DataFrame({"start": both.time_ns[rows[:1]], "end": both.time_ns[rows[1:]], "label": ["a"]})
    symbol = both.symbols[int(both.instrument[-1])]
    labels = labels_from_spans(both, spans.assign(instrument=symbol))
    assert labels.instrument is not None
    assert labels.instrument.tolist() == [symbol]
    with pytest.raises(UserError, match="instrument '' is not one of the bars"):
        labels_from_spans(both, spans)
    assert labels.start_ns is not None
    assert labels.start_ns[0] + labels.start[0] * MINUTE_NS <= both.time_ns[rows[0]]
