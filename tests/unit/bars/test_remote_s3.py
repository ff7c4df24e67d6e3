"""Bars in a folder on S3-like storage are those of the same folder on disk, partitioned or not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest
from paths import ROOT
from s3 import s3_store
from small_bars import month

from moola_mlflow.bars import read_bars
from moola_mlflow.bars.remote import _below
from moola_mlflow.core import BarsConfig, UserError

fsspec = pytest.importorskip("fsspec")
YEARS = {"2023-12-04": 120, "2024-01-02": 150, "2024-02-05": 130}


def dataset(folder: Path) -> Path:
    """A partitioned dataset as pyarrow writes it, with the rests of a writer that was killed and of a table format."""
    frames = [month("ES", 1, at, num).reset_index() for at, num in YEARS.items()]
    table = pa.Table.from_pandas(pd.concat(frames), preserve_index=False)
    for name, part in (("year", pc.year), ("month", pc.month)):
        table = table.append_column(name, part(table["ts_event"]))
    symbol = pa.array(["ES"] * len(table))
    table = table.drop_columns(["symbol", "instrument_id"]).append_column("symbol", symbol)
    ds.write_dataset(table, folder, format="parquet", partitioning=["symbol", "year", "month"],
                     partitioning_flavor="hive", basename_template="part-{i}.parquet")  # fmt: skip
    (folder / "_SUCCESS").touch()
    for rest in ("_temporary/0/part-0.parquet", "_delta_log/1.checkpoint.parquet", ".cache/part.parquet"):
        (folder / rest).parent.mkdir(parents=True)
        (folder / rest).write_bytes(b"PAR1 and no more")
    return folder


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with s3_store(monkeypatch) as bucket:
        fsspec.filesystem("s3").put(f"{dataset(tmp_path / 'es')}/", f"{bucket}/es/", recursive=True)
        yield f"{bucket}/es"


def test_a_partitioned_dataset_on_disk_is_read_as_pyarrow_reads_it(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "es")
    bars = read_bars(BarsConfig(path=str(folder)))
    whole = ds.dataset(folder, format="parquet", partitioning="hive").to_table().sort_by("ts_event")
    assert len(bars.files) == 3
    assert bars.time_ns.tolist() == whole["ts_event"].cast(pa.timestamp("ns", "UTC")).cast(pa.int64()).to_pylist()
    for k, name in enumerate(("open", "high", "low", "close")):
        assert np.array_equal(bars.ohlc[:, k], whole[name].to_numpy())
    assert set(bars.symbols.values()) == {"ES"}


@pytest.mark.parametrize("inside", ["", "/", "/symbol=ES", "/symbol=ES/year=2024", "/symbol=*/**/*.parquet"])
def test_a_folder_on_s3_holds_the_bars_of_the_same_folder_on_disk(inside: str, address: str, tmp_path: Path) -> None:
    there = read_bars(BarsConfig(path=f"{address}{inside}"))
    here = read_bars(BarsConfig(path=f"{tmp_path / 'es'}{inside}"))
    assert there.sha256 == here.sha256
    assert set(there.symbols.values()) == {"ES"}, "of the folder symbol=ES"
    assert [file.sha256 for file in there.files] == [file.sha256 for file in here.files]


def test_instruments_are_named_after_folders_on_s3_too(address: str) -> None:
    part = f"{address}/symbol=ES/year=2024/month=2"
    bars = read_bars(BarsConfig(path=part, instrument_from="folder"))
    assert set(bars.symbols.values()) == {"month=2"}


def test_names_on_s3_lead_out_of_no_folder(address: str) -> None:
    assert str(_below("bucket/odd/../../../x.parquet?version=1")) == "bucket/odd/x.parquet"
    store = fsspec.filesystem("s3")
    (name,) = store.find(f"{address}/symbol=ES/year=2023")
    store.pipe_file(f"{address}/symbol=ES/../../../../x.parquet", store.cat_file(name))
    with pytest.raises(UserError, match="no file matches"):
        read_bars(BarsConfig(path=f"{address}/symbol=ES/.."))


def test_a_bucket_that_is_not_there_is_refused_in_words(address: str) -> None:
    with pytest.raises(UserError, match="cannot be fetched"):
        read_bars(BarsConfig(path="s3://no-such-bucket/es.parquet"))


@pytest.mark.slow
def test_a_command_reads_bars_on_s3(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    words = [sys.executable, "-m", "moola_mlflow", "data", "--bars", address, "--out", "es.parquet", "--head", "200"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(pd.read_parquet(tmp_path / "es.parquet")) == 200
    (run,) = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").search_runs(["1"])
    assert run.inputs is not None
    assert len(run.inputs.dataset_inputs) == 3
