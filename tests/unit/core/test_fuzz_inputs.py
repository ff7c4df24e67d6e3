"""Hostile input to every reader ends in a value or in a UserError: no traceback, no hang, no memory blow-up."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from paths import ROOT

from moola_mlflow.bars.reader import read_bars
from moola_mlflow.core import BarsConfig, FinetuneKeys, PretrainKeys, make_config, read_preset
from moola_mlflow.core.errors import UserError

INPUTS = {"csv": 5000, "parquet": 4000, "dbn": 3000, "labels": 3000, "config": 2500, "yaml": 2500}
"""20,000 in all; the fast lane tries a hundredth of each."""
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the address space is bounded and measured as Linux does")


def fuzz(target: str, num: int) -> None:
    if target == "dbn":
        pytest.importorskip("databento_dbn", reason="the extra databento is not installed")
    # hypothesis may stop a little early where it finds the inputs repeat
    command = [sys.executable, str(ROOT / "tests" / "helpers" / "fuzzing.py"), target, str(math.ceil(1.12 * num))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000, cwd=ROOT)
    assert done.returncode == 0, f"{done.stderr[:2000]}\n...\n{done.stderr[-2000:]}"
    seen = json.loads(done.stdout)
    assert seen["inputs"] >= num, seen
    if num >= 1000:
        assert seen["accepted"] > 0, "a fuzzer whose inputs are all refused at the door sees nothing of the house"


@LINUX
@pytest.mark.parametrize("target", INPUTS)
def test_a_few_hostile_inputs_are_read_or_refused_in_words(target: str) -> None:
    fuzz(target, max(60, INPUTS[target] // 100))


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize("target", INPUTS)
def test_thousands_of_hostile_inputs_are_read_or_refused_in_words(target: str) -> None:
    fuzz(target, INPUTS[target])


BOUNDED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))
from moola_mlflow.bars import read_bars
from moola_mlflow.core import BarsConfig, PretrainKeys, make_config, read_preset
from moola_mlflow.core import UserError
from moola_mlflow.labels import read_span_labels
path = sys.argv[1]
try:
    if path.endswith(".yaml"):
        make_config(PretrainKeys, read_preset(path), {})
    elif "labels" in path:
        read_span_labels(path)
    else:
        read_bars(BarsConfig(path=path, instrument="all"))
except UserError as e:
    status = open("/proc/self/status").read()
    print(status.split("VmHWM:")[1].split()[0], str(e))
"""

ROW = b"2024-03-04 00:00,1,1,1,1,1\n"
HEADER = b"time,open,high,low,close,volume\n"


def giant_field(path: Path) -> None:
    """One field of 1 GB in plain text."""
    with path.open("wb") as f:
        f.write(HEADER + ROW + b'2024-03-04 00:01,1,1,1,1,"')
        for _ in range(1024):
            f.write(b"1" * 2**20)


def packed(path: Path, kind: str, content: bytes, times: int) -> None:
    with pa.CompressedOutputStream(str(path), kind) as stream:
        for _ in range(times):
            stream.write(content)


def row_bomb(path: Path, num: int = 200_000_000) -> None:
    """A few hundred kilobytes that claim 200 million rows."""
    one = pa.table({name: pa.array(np.zeros(1_000_000)) for name in ("ts_event", "open", "high", "low", "close")})
    with pq.ParquetWriter(path, one.schema, compression="zstd") as writer:
        for _ in range(num // len(one)):
            writer.write_table(one, row_group_size=len(one))


def label_bomb(path: Path) -> None:
    """One row whose list of bars has 50 million zeros."""
    inner = pa.ListArray.from_arrays(pa.array([0, 50_000_000], pa.int32()), pa.array(np.zeros(50_000_000)))
    outer = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), inner)
    row = pa.table(
        {"window_id": ["a"], "label": ["b"], "expansion_start": [1], "expansion_end": [2], "features": outer}
    )
    pq.write_table(row, path, compression="zstd", use_dictionary=False)


def billion_laughs(path: Path) -> None:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    path.write_text("\n".join(lines) + "\ntrainer: {epochs: *a11}\n")


BOMBS: dict[str, tuple[Callable[[Path], object], str]] = {
    "field.csv": (giant_field, "cannot be read as text"),
    "rows.csv.zst": (lambda p: packed(p, "zstd", HEADER + ROW * 40_000, 2000), "unpacks to more than"),
    "line.csv.gz": (lambda p: packed(p, "gzip", b"1" * 2**20, 1024), "first line is longer|unpacks to more than"),
    "field.csv.zst": (lambda p: packed(p, "zstd", HEADER + ROW + b"1" * 2**20, 1024), "cannot be read|unpacks"),
    "bomb.dbn.zst": (lambda p: packed(p, "zstd", bytes(2**20), 4096), "header is damaged"),
    "header.dbn.zst": (
        lambda p: packed(p, "zstd", b"DBN\x03\xff\xff\xff\xff" + bytes(2**20), 4096),
        "header is damaged",
    ),
    "rows.parquet": (row_bomb, "unpacks to more than"),
    "labels.parquet": (label_bomb, "unpacks to more than"),
    "laughs.yaml": (billion_laughs, "holds more than"),
    "deep.yaml": (lambda p: p.write_text("a: " + "[" * 100_000), "config: .*(is not YAML|cannot be read)"),
    "big.yaml": (lambda p: p.write_text("a: {b: 1}\n" * 2_000_000), "a preset has at most"),
    "number.yaml": (lambda p: p.write_text("trainer: {epochs: 0x" + "f" * 9000 + "}"), "more than 300 digits"),
    "endless.yaml": (lambda p: p.write_text("trainer: &a {epochs: *a}"), "holds more than"),
}


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_what_claims_or_unpacks_to_gigabytes_is_refused_in_little_memory(tmp_path: Path, name: str) -> None:
    if ".dbn" in name:
        pytest.importorskip("databento_dbn", reason="the extra databento is not installed")
    make, words = BOMBS[name]
    make(tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED, str(tmp_path / name)],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=ROOT,
    )
    (tmp_path / name).unlink()
    assert done.returncode == 0, done.stderr[-2000:]
    peak_kib, _, message = done.stdout.partition(" ")
    assert int(peak_kib) < 1_500_000, f"{int(peak_kib) // 1024} MiB"
    with pytest.raises(UserError, match=words):
        raise UserError(message)


def csv(**columns: str) -> bytes:
    """Forty bars with some cells replaced, all in one column."""
    frame = pd.DataFrame(
        {"time": pd.date_range("2024-03-04", periods=40, freq="min").astype(str), "open": "1", "high": "2"}
    )
    frame = frame.assign(**{"low": "1", "close": "1.5", "volume": "3", **columns})
    return frame.to_csv(index=False).encode()


def a_folder(path: Path) -> None:
    path.mkdir()


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "folder.csv": (a_folder, "holds no bars file"),
    "folder.parquet": (a_folder, "holds no bars file"),
    "nul.csv": (lambda p: p.write_bytes(csv().replace(b"1.5", b"1\x00")), "zero bytes"),
    "late_nul.csv": (
        lambda p: p.write_bytes(csv() * 1 + b"2024-03-05 00:00,1,2,1,1\x00,3\n"),
        "zero bytes|not a finite",
    ),
    "mixed.csv": (
        lambda p: p.write_bytes(csv(symbol="caf\u00e9") + "x,1,2,1,1,3,caf\u00e9\n".encode("latin-1")),
        "not UTF-8",
    ),
    "utf16.csv": (lambda p: p.write_bytes(csv().decode().encode("utf-16")), "not plain text"),
    "huge.csv": (lambda p: p.write_bytes(csv(close="9" * 400)), "close is not a finite number"),
    "year.csv": (lambda p: p.write_bytes(csv(time="9999-12-31 23:59")), "does not parse"),
    "epoch.csv": (lambda p: p.write_bytes(csv(time="99999999999999999999")), "does not parse"),
    "footer.parquet": (lambda p: p.write_bytes(parquet()[:-8] + b"\xff\xff\xff\x7fPAR1"), "cannot be read as parquet"),
    "half.parquet": (lambda p: p.write_bytes(parquet()[: len(parquet()) // 2]), "cannot be read as parquet"),
    "loop.csv": (lambda p: p.symlink_to(p.name), "no file"),
    "nowhere.csv": (lambda p: p.symlink_to("absent"), "no file"),
    "pipe.csv": (lambda p: os.mkfifo(p), "no file"),
    "dates.parquet": (
        lambda p: p.write_bytes(parquet(symbol=pa.array([2**60] * 40).cast(pa.timestamp("us")))),
        "column 'symbol' holds timestamp",
    ),
    "nested.parquet": (lambda p: p.write_bytes(parquet(open=[[1.0]] * 40)), "column 'open' holds list"),
}


def parquet(**columns: object) -> bytes:
    frame = pd.read_csv(io.BytesIO(csv()))
    sink = io.BytesIO()
    pa_columns = {
        **{name: pa.array(frame[name].tolist()) for name in frame},
        **{k: pa.array(v) for k, v in columns.items()},
    }
    pq.write_table(pa.table(pa_columns), sink)
    return sink.getvalue()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_words(tmp_path: Path, name: str) -> None:
    make, words = HOSTILE[name]
    make(tmp_path / name)
    with pytest.raises(UserError, match=words):
        read_bars(BarsConfig(path=str(tmp_path / name)), 1)


def test_a_link_to_a_bars_file_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(csv())
    (tmp_path / "b.csv").symlink_to("a.csv")
    one, other = (read_bars(BarsConfig(path=str(tmp_path / name)), 1) for name in ("a.csv", "b.csv"))
    assert one.sha256 == other.sha256


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf" + csv())
    assert len(read_bars(BarsConfig(path=str(tmp_path / "a.csv")), 1)) == 40


@pytest.mark.parametrize(
    "text",
    [
        "trainer: !!python/object/apply:os.system ['touch owned']",
        "!!python/name:os.system ''",
        "trainer: !!python/object/new:os.system ['touch owned']",
    ],
)
def test_yaml_that_asks_for_code_is_refused_and_runs_none(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(text)
    with pytest.raises(UserError, match="is not YAML"):
        make_config(PretrainKeys, read_preset("a.yaml"), {})
    assert [p.name for p in tmp_path.iterdir()] == ["a.yaml"]


def test_anchors_of_a_sensible_size_are_still_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("trainer: &shared {seed: 3}\ncv: {seeds: [1, 2]}\nlabels: *shared\n")
    assert make_config(FinetuneKeys, read_preset(tmp_path / "a.yaml"), {}).labels.seed == 3
