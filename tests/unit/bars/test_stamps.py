"""Bars stamped with their end and read as start-stamped are noticed, and the other way round."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from moola_mlflow.bars.reader import read_bars
from moola_mlflow.bars.stamps import stamp_warning
from moola_mlflow.core import BarsConfig


def test_end_stamped_bars_read_as_start_stamped_are_noticed_and_the_other_way_round(real_data: Path) -> None:
    spy = real_data / "spy_ninjatrader_1min.csv"
    for path, keys, words in (
        (spy, {}, "--bars.stamp end"),
        (spy, {"stamp": "end"}, None),
        (real_data / "es_front_1min.parquet", {"instrument": "front"}, None),
        (real_data / "es_front_1min.parquet", {"instrument": "front", "stamp": "end"}, "--bars.stamp start"),
        (real_data / "es_multi_expiry_1min.parquet", {"instrument": "all"}, None),
    ):
        bars = read_bars(BarsConfig(path=str(path), **keys), 1)
        said = stamp_warning(bars.time_ns, bars.instrument, str(keys.get("stamp", "start")))
        assert (said is None) == (words is None), (path, keys, said)
        assert words is None or words in str(said)


@settings(max_examples=60, deadline=None)
@given(shift=st.sampled_from([-1, 0, 1, 2, 7]), sessions=st.integers(5, 40), seed=st.integers(0, 100))
def test_only_a_shift_of_a_minute_is_called_one(shift: int, sessions: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    opens = np.arange(sessions) * 1440 + 15 * rng.integers(0, 20, sessions)
    minutes = np.concatenate([o + np.arange(15 * rng.integers(5, 20)) for o in opens]) + shift
    time_ns = np.sort(minutes) * 60_000_000_000
    instrument = np.zeros(len(time_ns), np.int64)
    assert (stamp_warning(time_ns, instrument, "start") is not None) == (shift == 1)
    assert (stamp_warning(time_ns, instrument, "end") is not None) == (shift == -1)
