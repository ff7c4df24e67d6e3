"""Files of a bar store: any damage is refused, old stores open, and a killed writer leaves a whole store."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_bars import PRICES, partitioned

from moola_mlflow.bars.columns import take_runs
from moola_mlflow.bars.ingest import ingest_bars
from moola_mlflow.bars.reader import Bars, read_bars, write_store
from moola_mlflow.bars.sample import generate_bars
from moola_mlflow.core import BarsConfig
from moola_mlflow.core.errors import UserError
from moola_mlflow.windows.windows import make_windows


def read(path: object, min_bars: int = 1, **keys: object) -> Bars:
    return read_bars(BarsConfig(path=str(path), **keys), min_bars)


def stored(source: Path, out: Path, **keys: object) -> Bars:
    ingest_bars(BarsConfig(path=str(source), instrument="all", **keys), out, 1)
    return read(out)


FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
OLD = FIXTURES / "bars_v1.moolabars"
"""Written by the last version that kept one .npy file a column: 200 bars of the sample, and 200 of another id."""


def test_a_store_of_version_1_opens_as_the_bars_that_were_put_in(tmp_path: Path) -> None:
    old = read(OLD)
    frame = generate_bars(200, 3)
    frame.to_parquet(tmp_path / "a.parquet")
    one = read(OLD, instrument="SYNH3")
    assert one.sha256 == read(tmp_path / "a.parquet").sha256
    assert (old.symbols, len(old), old.index[1].tolist()) == (
        {7: "OTHER", 900001: "SYNH3"},
        400,
        [[0, 200], [200, 400]],
    )
    assert make_windows(old, 40, 20).gather(np.array([0, 3])).shape == (2, 40, 4)
    write_store(old, tmp_path / "new/", 5, "all")
    assert read(tmp_path / "new").sha256 == old.sha256


def test_a_new_store_takes_the_place_of_an_old_one_and_leaves_none_of_its_files(tmp_path: Path) -> None:
    shutil.copytree(OLD, tmp_path / "out")
    stored(partitioned(tmp_path / "in") / "ES", tmp_path / "out/")
    names = sorted(re.sub("-[0-9a-f]{12}", "", path.name) for path in (tmp_path / "out").iterdir())
    assert names == ["bars.arrow", "segments.arrow", "store.json"]


def test_a_store_is_read_by_pandas_and_by_pyarrow_as_it_is(tmp_path: Path) -> None:
    store = stored(partitioned(tmp_path / "in"), tmp_path / "out/")
    (path,) = (tmp_path / "out").glob("bars-*.arrow")
    frame = pd.read_feather(path)
    assert list(frame) == ["ts_event", "open", "high", "low", "close", "volume", "instrument_id"]
    assert np.array_equal(frame["ts_event"].astype("int64"), store.time_ns)
    assert np.array_equal(frame[PRICES], store.ohlc)
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
        table.validate(full=True)
    assert np.array_equal(table["instrument_id"], store.instrument)


@pytest.mark.parametrize("num", [1, 2, 3, 7, 8, 100, 8192, 8193])
def test_a_store_of_any_number_of_bars_holds_each_of_them(tmp_path: Path, num: int) -> None:
    """Around 8,192 bars a column is as large as what pyarrow may write around it."""
    time_ns = np.arange(num) * 60_000_000_000
    ohlc = np.arange(4 * num, dtype=float).reshape(num, 4)[:, [1, 3, 0, 2]]
    bars = Bars(time_ns, ohlc, np.arange(num) + 0.5, np.zeros(num, np.int64), {0: "A"}, (), "", {})
    write_store(bars, tmp_path / "a/", 5)
    back = read(tmp_path / "a")
    for name in ("time_ns", "ohlc", "volume", "instrument"):
        assert np.array_equal(getattr(back, name), getattr(bars, name))


@settings(max_examples=50, deadline=None)
@given(starts=st.lists(st.integers(0, 350), max_size=40), length=st.integers(1, 50), first=st.integers(0, 30))
def test_runs_read_from_a_file_are_those_of_the_mapped_column(starts: list[int], length: int, first: int) -> None:
    at = np.array([s for s in starts if s + length <= 400 - first], np.int64)
    for store in (read(OLD), read(NEW.name)):
        for column in (store.ohlc, store.volume, store.time_ns):
            part = column[first:]
            assert np.array_equal(take_runs(part, at, length), np.asarray(part)[at[:, None] + np.arange(length)])


NEW = tempfile.TemporaryDirectory(suffix=".moolabars")
write_store(read(OLD), NEW.name, 5, "all")


def damage(folder: Path, kind: str) -> None:
    column, segment_file = (next(iter(sorted(folder.glob(f"{name}*")))) for name in ("[bo][ah][rl][sc]", "segments"))
    card = folder / "store.json"
    content = bytearray(column.read_bytes())
    text = json.loads(card.read_text())
    if kind == "flipped byte":
        content[5000] ^= 1
        column.write_bytes(content)
    elif kind == "flipped end":
        content[-8] ^= 1
        column.write_bytes(content)
    elif kind == "truncated":
        column.write_bytes(content[:-100])
    elif kind == "empty":
        column.write_bytes(b"")
    elif kind == "missing":
        column.unlink()
    elif kind == "pickle":
        np.save(folder / "x.npy", np.array([{"a": 1}], object), allow_pickle=True)
        os.replace(folder / "x.npy", column)
    elif kind == "other shape":
        np.save(folder / "x.npy", np.zeros((3, 4)))
        os.replace(folder / "x.npy", column)
    elif kind == "other columns":
        pa.feather.write_feather(pa.table({"a": [1.0]}), str(column), compression="uncompressed")
    elif kind == "compressed":
        table = pa.ipc.open_file(io.BytesIO(content)).read_all() if column.suffix == ".arrow" else pa.table({"a": [1]})
        pa.feather.write_feather(table, str(column), compression="zstd")
    elif kind == "segments":
        if segment_file.suffix == ".npy":
            np.save(segment_file, np.zeros((1, 2), np.int64))
        else:
            pa.feather.write_feather(pa.table({"first": [0], "end": [1]}), str(segment_file))
    elif kind == "not json":
        card.write_text("{")
    elif kind == "deep json":
        card.write_text("[" * 100_000)
    elif kind == "a list":
        card.write_text("[]")
    else:
        card.write_text(json.dumps({**text, **{"other version": {"version": 3}, "no keys": {"symbols": None}}[kind]}))


KINDS = (
    *("flipped byte", "flipped end", "truncated", "empty", "missing", "pickle", "other shape", "other columns"),
    *("compressed", "segments", "not json", "deep json", "a list", "other version", "no keys"),
)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_store_is_refused_in_words(tmp_path: Path, kind: str, version: int) -> None:
    if version == 1:
        shutil.copytree(OLD, tmp_path / "out")
    else:
        stored(partitioned(tmp_path / "in"), tmp_path / "out/")
    damage(tmp_path / "out", kind)
    with pytest.raises(UserError, match=r"(make|Make) it again"):
        read(tmp_path / "out")


@settings(max_examples=150, deadline=None)
@given(at=st.floats(0, 1), bits=st.integers(1, 255), cut=st.booleans())
def test_no_flipped_byte_of_a_store_is_read_in_silence(at: float, bits: int, cut: bool) -> None:
    """A flip that changes no bar may be read: then the bars are those that were put in."""
    sound = read(NEW.name)
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder) / "out"
        shutil.copytree(NEW.name, here)
        (path,) = here.glob("bars-*.arrow")
        content = bytearray(path.read_bytes())
        place = int(at * (len(content) - 1))
        content[place] ^= bits
        path.write_bytes(content[:place] if cut else content)
        with contextlib.suppress(UserError):
            bars = read(here)
            assert np.array_equal(bars.ohlc, sound.ohlc)
            assert np.array_equal(bars.time_ns, sound.time_ns)


def test_a_folder_of_a_writer_that_was_killed_is_removed_by_the_next_and_a_live_one_is_not(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    old = time.time() - 7200
    for pid, age in ((gone.pid, old), (os.getppid(), old), (gone.pid, None)):
        folder = tmp_path / f".{'a' if age else 'b'}.moolabars.{pid}.tmp"
        folder.mkdir()
        if age:
            os.utime(folder, (age, age))
    for name in ("a", "b"):
        write_store(read(OLD), tmp_path / f"{name}.moolabars", 5)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"a.moolabars", "b.moolabars", f".a.moolabars.{os.getppid()}.tmp", f".b.moolabars.{gone.pid}.tmp"}


STEPS = ("replace", "fsync", "unlink")


def test_a_writer_that_is_killed_at_any_step_leaves_the_old_store_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = read(OLD), read(OLD, instrument="SYNH3")

    class Killed(BaseException):
        pass

    def attempt(at: int) -> tuple[int, Path]:
        """Replace a store, and be killed at the step of that number; return how many steps were made."""
        target = tmp_path / f"{at}.moolabars"
        write_store(old, target, 5, "all")
        count = 0

        def counted(real):
            def step(*arguments, **keys):
                nonlocal count
                count += 1
                if count == at:
                    raise Killed
                return real(*arguments, **keys)

            return step

        with monkeypatch.context() as patch:
            for name in STEPS:
                patch.setattr(os, name, counted(getattr(os, name)))
            patch.setattr(shutil, "rmtree", lambda *arguments, **keys: None)  # a killed process tidies nothing up
            with contextlib.suppress(Killed):
                write_store(new, target, 5)
        return count, target

    steps, target = attempt(0)
    assert steps >= 8
    assert read(target).sha256 == new.sha256
    seen = set()
    for at in range(1, steps + 1):
        _, target = attempt(at)
        sha256 = read(target).sha256
        assert sha256 in (old.sha256, new.sha256), at
        seen.add(sha256)
        write_store(new, target, 5)  # and the next writer finds nothing in its way
        assert read(target).sha256 == new.sha256
        assert len(list(target.iterdir())) == 3
    assert seen == {old.sha256, new.sha256}
