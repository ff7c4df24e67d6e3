"""Windows that may be shown: their names, their bars in exchange time, and where a window is found again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from small_bars import bars_at
from small_sessions import sample

from moola_mlflow.annotate.candidates import Candidates
from moola_mlflow.bars import MINUTE_NS

ZONE = "America/New_York"


def candidates(**changes: object) -> Candidates:
    return replace(Candidates.of(sample(), 105, 105, 5, ZONE), **changes)  # type: ignore[arg-type]


def test_a_window_shows_its_own_bars_with_times_of_the_exchange() -> None:
    found = candidates()
    row = int(found.starts[7])
    shown = found.shown(row)
    assert [len(shown[name]) for name in ("time", "open", "high", "low", "close", "volume")] == [105] * 6
    assert shown["high"] == sample().ohlc[row : row + 105, 1].tolist()
    utc = pd.Timestamp(int(sample().time_ns[row]), tz="UTC")
    assert shown["time"][0] == utc.tz_convert(ZONE).strftime("%Y-%m-%dT%H:%M:%S")


def test_bars_without_volume_show_none() -> None:
    bars = replace(sample(), volume=np.zeros(len(sample())))
    assert candidates(bars=bars).shown(0)["volume"] is None


def test_every_window_is_found_again_by_instrument_and_time() -> None:
    found = candidates()
    start_ns, _ = found.times(found.starts)
    assert found.find(found.instruments(found.starts).tolist(), start_ns).tolist() == found.starts.tolist()
    assert found.find(["no such"], start_ns[:1]).tolist() == [-1]
    assert found.find(found.instruments(found.starts[:1]).tolist(), start_ns[:1] + 1).tolist() == [-1]


def test_windows_of_two_instruments_of_the_same_minutes_are_told_apart() -> None:
    bars = bars_at(np.tile(np.arange(300), 2), np.repeat([3, 9], 300))
    found = Candidates.of(bars, 105, 105, 5, ZONE)
    at = int(bars.time_ns[105])
    assert found.find(["3", "9"], [at, at]).tolist() == [105, 405]
    assert found.names([105, 405]) == ["3-20240101T014500Z", "9-20240101T014500Z"]


def test_context_ends_where_the_instrument_ends() -> None:
    bars = bars_at(np.tile(np.arange(300), 2), np.repeat([3, 9], 300))
    around = Candidates.of(bars, 105, 105, 5, ZONE).context(300, 50, 400)
    assert (len(around["before"]["time"]), len(around["after"]["time"])) == (0, 195)


def test_no_window_crosses_a_gap() -> None:
    bars = bars_at(np.concatenate([np.arange(120), np.arange(200, 400)]))
    found = Candidates.of(bars, 105, 105, 5, ZONE)
    assert found.starts.tolist() == [0, 120]
    assert [found.fits(row) for row in (0, 15, 16, 120, 215, 216)] == [True, True, False, True, True, False]


def test_a_span_lies_in_the_middle_of_the_window_around_it() -> None:
    bars = bars_at(np.arange(400))
    found = Candidates.of(bars, 105, 105, 5, ZONE)
    start, end = int(bars.time_ns[200]), int(bars.time_ns[210])
    assert found.around("0", start, end + MINUTE_NS // 2) == 205 - 52
    assert found.around("0", int(bars.time_ns[2]), int(bars.time_ns[9])) == 0
    assert found.around("0", int(bars.time_ns[10]), int(bars.time_ns[300])) == -1
    assert found.around("no such", start, end) == -1
