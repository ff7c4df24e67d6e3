"""The bar store holds the bars that its files hold, says so with the same hash, and needs no memory for them."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_bars import month, partitioned

from moola_mlflow.bars.ingest import ingest_bars
from moola_mlflow.bars.reader import Bars, read_bars, segments, write_store
from moola_mlflow.bars.store import find_segments, is_store
from moola_mlflow.core import BarsConfig, SplitConfig
from moola_mlflow.core.errors import UserError
from moola_mlflow.windows.splits import split_by_time
from moola_mlflow.windows.windows import make_windows


def read(path: object, min_bars: int = 1, **keys: object) -> Bars:
    return read_bars(BarsConfig(path=str(path), **keys), min_bars)


def stored(source: Path, out: Path, **keys: object) -> Bars:
    ingest_bars(BarsConfig(path=str(source), instrument="all", **keys), out, 1)
    return read(out)


def test_a_store_of_many_files_has_the_bars_and_the_hash_of_reading_them_at_once(tmp_path: Path) -> None:
    at_once = read(partitioned(tmp_path / "in"), instrument="all")
    store = stored(tmp_path / "in", tmp_path / "out.moolabars")
    assert isinstance(store.ohlc, np.memmap)
    assert store.sha256 == at_once.sha256
    assert store.symbols == at_once.symbols == {1: "ES", 2: "CL", 3: "NQ"}
    for name in ("time_ns", "ohlc", "volume", "instrument"):
        assert np.array_equal(getattr(store, name), getattr(at_once, name))
    card = json.loads((tmp_path / "out.moolabars" / "store.json").read_text())
    assert [len(card["sources"]), card["bars"], card["choice"]] == [9, len(at_once), "all"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out.moolabars"]  # nothing else is left behind


@settings(max_examples=40, deadline=None)
@given(
    files=st.lists(
        st.lists(
            st.tuples(st.integers(0, 2), st.integers(0, 6), st.booleans()),
            min_size=1,
            max_size=4,
            unique_by=lambda x: x[0],
        ),
        min_size=1,
        max_size=5,
    ),
    drop=st.booleans(),
)
def test_any_folder_is_stored_as_it_is_read_or_refused_as_it_is_refused(files, drop) -> None:
    """Instruments side by side in a file, in any order of months, overlapping, with and without symbols."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        (here / "in").mkdir()
        for i, parts in enumerate(files):
            frames = [
                month("ABC"[key] if named else "", key + 1, f"2024-0{at + 1}-01", 40 + at) for key, at, named in parts
            ]
            pd.concat(frames).sort_index(kind="stable").to_parquet(here / "in" / f"{i}.parquet")
        keys = {"repair": "drop" if drop else "refuse"}
        try:
            at_once = read(here / "in", instrument="all", **keys)
        except UserError:
            with pytest.raises(UserError, match="lies inside"):
                ingest_bars(BarsConfig(path=str(here / "in"), **keys), here / "out/", 1)
            assert sorted(p.name for p in here.iterdir()) == ["in"]
            return
        store = stored(here / "in", here / "out/", **keys)
        assert store.sha256 == at_once.sha256
        assert store.symbols == at_once.symbols
        assert store.dropped == at_once.dropped


def test_a_column_that_partitioning_left_out_is_read_from_the_folders_name(tmp_path: Path) -> None:
    for symbol in ("ES", "NQ"):
        path = tmp_path / "in" / f"symbol={symbol}" / "month=1"
        path.mkdir(parents=True)
        month(None, 5, "2024-01-02").drop(columns="instrument_id").to_parquet(path / "part-0.parquet")
    assert sorted(read(tmp_path / "in", instrument="all").symbols.values()) == ["ES", "NQ"]
    assert len(read(tmp_path / "in", instrument="NQ")) == 300


@pytest.mark.parametrize("choice", ["front", "ESH4", None])
def test_a_chosen_series_is_stored_with_its_choice_and_read_without_choosing_again(tmp_path, choice) -> None:
    months = [month("ESH4", 7, "2024-01-02"), month("ESM4", 8, "2024-02-05").assign(volume=99.0)]
    pd.concat(months if choice else months[:1]).to_parquet(tmp_path / "a.parquet")
    bars = read(tmp_path / "a.parquet", instrument=choice)
    write_store(bars, tmp_path / "b.moolabars", 5, choice)
    back = read(tmp_path / "b.moolabars")
    assert (back.sha256, back.symbols) == (bars.sha256, bars.symbols)


def test_one_instrument_of_a_store_is_the_one_of_its_files_and_stays_on_disk(tmp_path: Path) -> None:
    stored(partitioned(tmp_path / "in"), tmp_path / "out/")
    for wanted in ("CL", "2"):
        one = read(tmp_path / "out", instrument=wanted)
        assert one.sha256 == read(tmp_path / "in" / "CL").sha256
        assert isinstance(one.ohlc, np.memmap)
        assert np.array_equal(segments(one), segments(read(tmp_path / "in" / "CL")))
    assert read(tmp_path / "out", instrument="front").sha256 == read(tmp_path / "in", instrument="front").sha256
    with pytest.raises(UserError, match=r"no instrument 'CLL'; did you mean 'CL'\?"):
        read(tmp_path / "out", instrument="CLL")
    with pytest.raises(UserError, match="start-stamped already"):
        read(tmp_path / "out", stamp="end")
    with pytest.raises(UserError, match="fewer than the 5000"):
        read(tmp_path / "out", min_bars=5000)


@pytest.mark.parametrize("gap", [5, 200])
def test_windows_and_splits_of_a_store_are_those_of_the_bars_in_memory(tmp_path: Path, gap: int) -> None:
    at_once = read(partitioned(tmp_path / "in"), instrument="all")
    store = stored(tmp_path / "in", tmp_path / "out/")
    assert (store.index[0], len(store.index[1])) == (5, 18)
    one, other = (make_windows(bars, 40, 20, gap) for bars in (at_once, store))
    assert np.array_equal(one.starts, other.starts)
    some = np.arange(len(one))[::-3]
    assert np.array_equal(one.gather(some), other.gather(some))
    a, b = (split_by_time(w, SplitConfig(train=0.6, val=0.2, test=0.2)) for w in (one, other))
    assert np.array_equal(a.train, b.train)
    assert np.array_equal(a.test, b.test)


def test_a_store_with_a_right_hash_and_wrong_bars_is_refused(tmp_path: Path) -> None:
    bars = read(partitioned(tmp_path / "in") / "ES")
    for name, value in (("ohlc", np.nan), ("time_ns", 0), ("volume", -1)):
        array = getattr(bars, name).copy()
        array[50] = value
        write_store(Bars(**{**vars(bars), name: array}), tmp_path / "bad/", 5)
        with pytest.raises(UserError, match="bar 51 is not sound"):
            read(tmp_path / "bad")


def test_nothing_but_a_store_is_ever_replaced(tmp_path: Path) -> None:
    first = stored(partitioned(tmp_path / "in"), tmp_path / "out/")
    again = stored(tmp_path / "in" / "ES", tmp_path / "out/")
    assert len(again) < len(first)
    before = sorted(p.name for p in (tmp_path / "in").rglob("*"))
    with pytest.raises(UserError, match="is there and is no bar store"):
        ingest_bars(BarsConfig(path=str(tmp_path / "in" / "ES")), tmp_path / "in/", 1)
    assert sorted(p.name for p in (tmp_path / "in").rglob("*")) == before
    bad = month("ES", 1, "2024-05-01").assign(high=0.0)
    bad.to_parquet(tmp_path / "bad.parquet")
    with pytest.raises(UserError, match="row 1"):
        ingest_bars(BarsConfig(path=str(tmp_path / "bad.parquet")), tmp_path / "out/", 1)
    assert read(tmp_path / "out").sha256 == again.sha256  # what was there is there still
    assert not is_store(tmp_path / "in")


MEMORY = """
import sys
import numpy as np
from moola_mlflow.bars import read_bars
from moola_mlflow.core import BarsConfig
from moola_mlflow.windows import make_windows
bars = read_bars(BarsConfig(path=sys.argv[1]))
windows = make_windows(bars)
for part in np.array_split(np.random.default_rng(0).permutation(len(windows)), len(windows) // 500):
    windows.gather(part).sum()
print(next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_reading_every_window_of_a_store_needs_far_less_memory_than_its_size(tmp_path: Path) -> None:
    """The first process holds 40,000 bars, the second 4 million, 220 MB of columns: what is mapped is given back."""
    peaks = []
    for num_days in (28, 2800):
        time_ns = pd.date_range("2010-01-04", periods=num_days * 1440, freq="min").as_unit("ns").asi8.copy()
        prices = np.full((len(time_ns), 4), 100.0)
        bars = Bars(time_ns, prices, np.ones(len(time_ns)), np.zeros(len(time_ns), np.int64), {0: "A"}, (), "", {})
        write_store(bars, tmp_path / "store/", 5)
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(tmp_path / "store")], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout))
    assert peaks[1] < peaks[0] + 90, peaks


@settings(max_examples=60, deadline=None)
@given(gaps=st.lists(st.integers(1, 9), min_size=1, max_size=60), block=st.integers(1, 20), limit=st.integers(1, 8))
def test_segments_do_not_depend_on_the_size_of_the_blocks_they_are_found_in(gaps, block, limit) -> None:
    from moola_mlflow.bars import columns

    time_ns = np.cumsum(gaps) * 60_000_000_000
    keys = np.sort(np.array(gaps) % 3)
    whole = find_segments(time_ns, keys, limit)
    old, columns.BLOCK_ROWS = columns.BLOCK_ROWS, block
    try:
        assert np.array_equal(find_segments(time_ns, keys, limit), whole)
    finally:
        columns.BLOCK_ROWS = old
