"""A small file that claims to be huge is refused before it fills the memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moola_mlflow.bars import size_limits
from moola_mlflow.bars.size_limits import (
    FREE_BYTES,
    MAX_RATIO,
    Unpacked,
    check_dictionaries,
    check_parquet,
    check_unpacked,
)
from moola_mlflow.core import UserError


def test_a_small_content_is_free_whatever_the_file_is(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    check_unpacked(tmp_path / "a.csv", FREE_BYTES)
    with pytest.raises(UserError, match=r"unpacks to more than 256 MiB.*unpack it and give the result"):
        check_unpacked(tmp_path / "a.csv", FREE_BYTES + 1)


def test_a_large_file_may_unpack_to_so_many_times_its_size(tmp_path: Path) -> None:
    size = FREE_BYTES // MAX_RATIO + 1000
    (tmp_path / "a.csv").write_bytes(bytes(size))
    check_unpacked(tmp_path / "a.csv", MAX_RATIO * size)
    with pytest.raises(UserError, match="damaged or made to fill the memory"):
        check_unpacked(tmp_path / "a.csv", MAX_RATIO * size + 1)


@pytest.mark.parametrize("limit", [0, 4, 10])
def test_a_stream_gives_no_more_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(size_limits, "FREE_BYTES", limit)
    monkeypatch.setattr(size_limits, "MAX_RATIO", 0)
    with pa.CompressedOutputStream(str(tmp_path / "a.csv.gz"), "gzip") as stream:
        stream.write(b"0123456789")
    with Unpacked(tmp_path / "a.csv.gz") as unpacked:
        assert unpacked.readable()
        if limit < 10:
            with pytest.raises(UserError, match="unpacks to more"):
                unpacked.readall()
        else:
            assert unpacked.readall() == b"0123456789"
    assert unpacked.closed


def write(path: Path, rows: int) -> None:
    columns = {name: pa.array(np.zeros(rows)) for name in ("open", "high", "low", "close")}
    pq.write_table(pa.table(columns), path, compression="zstd")


def test_a_parquet_file_is_judged_by_its_rows_and_by_what_its_columns_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.parquet", 10_000)
    check_parquet(tmp_path / "a.parquet")
    monkeypatch.setattr(size_limits, "MAX_RATIO", 0)
    monkeypatch.setattr(size_limits, "FREE_BYTES", 10_000 * size_limits.ROW_BYTES)
    check_parquet(tmp_path / "a.parquet")  # four columns of eight bytes are fewer
    for free in (10_000 * size_limits.ROW_BYTES - 1, 10_000 * 4 * size_limits.VALUE_BYTES - 1):
        monkeypatch.setattr(size_limits, "FREE_BYTES", free)
        with pytest.raises(UserError, match="unpacks to more"):
            check_parquet(tmp_path / "a.parquet")


def test_encrypted_columns_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.parquet", 10)
    found = [chunk._replace(encrypted=True) for chunk in size_limits.chunks(tmp_path / "a.parquet")]
    monkeypatch.setattr(size_limits, "chunks", lambda path: found)
    with pytest.raises(UserError, match="holds encrypted columns"):
        check_parquet(tmp_path / "a.parquet")


def test_a_value_beyond_its_dictionary_is_refused() -> None:
    sound = pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["a", "b"]))
    check_dictionaries(pa.table({"symbol": sound, "close": [1.0, 2.0]}))
    damaged = pa.DictionaryArray.from_arrays(pa.array([0, 7]), pa.array(["a", "b"]), safe=False)
    with pytest.raises(pa.ArrowInvalid):
        check_dictionaries(pa.table({"symbol": damaged}))
