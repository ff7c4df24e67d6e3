"""A parquet file's footer is read as pyarrow reads it, and one that pyarrow cannot bear is refused in words."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest

from moola_mlflow.bars import parquet_footer, size_limits
from moola_mlflow.bars.parquet_footer import Chunk, chunks
from moola_mlflow.bars.reader import read_bars
from moola_mlflow.core import BarsConfig
from moola_mlflow.core.errors import UserError
from moola_mlflow.labels.label_files import read_span_labels

NUM = 40
BARS = pa.table(
    {
        "time": pa.array(np.arange(NUM) * 60, pa.timestamp("s", "UTC")),
        **{name: np.linspace(1, 2, NUM) for name in ("open", "high", "low", "close")},
        "symbol": ["ES"] * NUM,
        "odd": [[{"a": [1.5, None], "b": True}]] * NUM,
        "empty": pa.nulls(NUM),
    }
)
FORMS: list[dict[str, Any]] = [
    {},
    {"row_group_size": 3, "compression": "zstd"},
    {"use_dictionary": False, "data_page_version": "2.0", "write_page_index": True, "write_page_checksum": True},
    {"version": "1.0", "compression": "none", "write_statistics": False, "store_schema": False},
]


@pytest.mark.parametrize("form", FORMS)
def test_every_column_of_every_row_group_is_read_as_pyarrow_reads_it(tmp_path: Path, form: dict[str, Any]) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(BARS, path, **form)
    footer = pq.read_metadata(path)
    theirs = [footer.row_group(g).column(k) for g in range(footer.num_row_groups) for k in range(footer.num_columns)]
    assert list(chunks(path)) == [Chunk(c.num_values, c.total_uncompressed_size, False) for c in theirs]


class Keys(pe.KmsClient):  # type: ignore[misc]
    """A key service that gives every key away."""

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:
        return base64.b64encode(key_bytes)

    def unwrap_key(self, wrapped_key: bytes, master_key_identifier: str) -> bytes:
        return base64.b64decode(wrapped_key)


def encrypted(path: Path, column: str) -> None:
    """Write bars of which one column is encrypted with a key of its own."""
    how = pe.EncryptionConfiguration(footer_key="a", column_keys={"b": [column]}, plaintext_footer=True)
    keys = pe.CryptoFactory(lambda _: Keys()).file_encryption_properties(pe.KmsConnectionConfig(), how)
    pq.write_table(BARS.drop_columns(["odd"]), path, encryption_properties=keys)


@pytest.mark.parametrize("column", ["open", "empty"])
def test_a_file_with_an_encrypted_column_is_refused_and_does_not_end_the_process(tmp_path: Path, column: str) -> None:
    path = tmp_path / "a.parquet"
    encrypted(path, column)
    assert [chunk.encrypted for chunk in chunks(path)].count(True) == 1
    with pytest.raises(UserError, match="holds encrypted columns"):
        read_bars(BarsConfig(path=str(path)), 1)
    with pytest.raises(UserError, match="holds encrypted columns"):
        read_span_labels(path)


def test_a_footer_with_a_flipped_bit_is_refused_and_does_not_end_the_process(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(BARS, path)
    # The column's place in the schema: OPTIONAL becomes REQUIRED, and its histogram of levels one too long.
    optional, required = b"\x25\x02\x18\x04open", b"\x25\x00\x18\x04open"
    content = path.read_bytes()
    assert content.count(optional) == 1
    path.write_bytes(content.replace(optional, required))
    with pytest.raises(UserError, match=r"cannot be read as parquet .*histogram size mismatch"):
        read_bars(BarsConfig(path=str(path)), 1)
    with pytest.raises(UserError, match=r"cannot be read as parquet: .*histogram size mismatch"):
        read_span_labels(path)


def footer(path: Path, content: bytes, pages: bytes = b"") -> Path:
    path.write_bytes(b"PAR1" + pages + content + len(content).to_bytes(4, "little") + b"PAR1")
    return path


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x49",  # row groups, and no end
        b"\x49\xfc" + b"\xff" * 12,  # a list whose length never ends
        b"\x49\xfc\xff\xff\xff\xff\x07",  # two thousand million row groups
        b"\x49\x15\x02\x00",  # row groups that are numbers
        b"\x1c" * 200,  # a struct in a struct in a struct
        b"\x18\xff\xff\xff\xff\x07",  # a text of 2 GB
        b"\x1e\x00",  # a kind that there is none of
        b"\x1b\xff\xff\xff\xff\x07\x11",  # two thousand million truths by truth
    ],
)
def test_a_footer_that_is_none_is_refused_at_once(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(pa.ArrowInvalid, match="it is damaged"):
        list(chunks(footer(tmp_path / "a.parquet", content)))


def test_a_footer_of_absurd_size_is_refused_with_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_footer, "MAX_FOOTER_BYTES", 1000)
    with pytest.raises(UserError, match="write it with larger row groups"):
        list(chunks(footer(tmp_path / "a.parquet", bytes(1001))))


def test_a_column_that_points_past_its_dictionary_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    symbols = pa.array(["ES"] + ["NQ"] * (NUM - 1)).dictionary_encode()
    bars = BARS.drop_columns(["odd", "symbol", "empty"]).append_column("symbol", symbols)
    pq.write_table(bars, path, compression="none", use_dictionary=["symbol"])
    content = path.read_bytes()
    run, damaged = b"\x40\x01", b"\x40\x04"  # 32 times the second of two symbols; the fifth
    column = pq.read_metadata(path).row_group(0).column(bars.num_columns - 1)
    at = content.index(run, column.data_page_offset)
    assert at < column.data_page_offset + column.total_compressed_size
    path.write_bytes(content[:at] + damaged + content[at + 2 :])
    with pytest.raises(UserError, match=r"cannot be read as parquet .*out of bounds"):
        read_bars(BarsConfig(path=str(path), instrument="all"), 1)
    with pytest.raises(UserError, match=r"cannot be read as parquet: .*out of bounds"):
        read_span_labels(path)


def test_a_file_without_rows_has_no_pages(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(BARS.slice(0, 0), path)
    assert {chunk.num_bytes for chunk in chunks(path)} == {0}


def zigzag(number: int, length: int) -> bytes:
    """A number as Thrift writes it, in so many bytes."""
    sign = -1 if number < 0 else 0
    digits = [((2 * number) ^ sign) >> 7 * k & 0x7F | 0x80 for k in range(length)]
    return bytes([*digits[:-1], digits[-1] & 0x7F])


def test_a_footer_that_lies_about_its_pages_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size_limits, "FREE_BYTES", 2**20)
    path, num = tmp_path / "a.parquet", 1_000_003
    zeros = {name: np.zeros(num) for name in ("time", "open", "high", "low", "close")}
    pq.write_table(pa.table(zeros), path, compression="zstd", use_dictionary=False)
    honest = list(chunks(path))
    content = path.read_bytes()
    begin = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    lies = {num: 10, **{chunk.num_bytes: 100 for chunk in honest}}
    for truth, lie in lies.items():
        told = zigzag(truth, ((2 * truth).bit_length() + 6) // 7)
        assert told in content[begin:]
        content = content[:begin] + content[begin:].replace(told, zigzag(lie, len(told)))
    path.write_bytes(content)
    said = pq.read_metadata(path)
    assert (said.num_rows, said.row_group(0).column(1).total_uncompressed_size) == (10, 100)
    assert [chunk.num_bytes for chunk in chunks(path)] == [chunk.num_bytes for chunk in honest]
    for read in (lambda: read_bars(BarsConfig(path=str(path)), 1), lambda: read_span_labels(path)):
        with pytest.raises(UserError, match="unpacks to more than"):
            read()


def test_the_head_of_a_page_may_be_long(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    texts = pa.table({"a": ["x" * 3000, "y" * 3000]})
    pq.write_table(texts, path, use_dictionary=False, compression="none", write_statistics=True)
    column = pq.read_metadata(path).row_group(0).column(0)
    assert list(chunks(path)) == [Chunk(2, column.total_uncompressed_size, False)]
    assert column.total_uncompressed_size > 2 * 6000, "its head holds both texts"


@pytest.mark.parametrize(
    ("num", "start", "words"),
    [(1, 4, ""), (2, 4, "do not fit into the file"), (1, 60, "outside of the file"), (1, -1, "do not fit")],
)
def test_columns_lie_in_the_file_and_not_on_top_of_each_other(tmp_path: Path, num: int, start: int, words: str) -> None:
    column = b"\x3c" + b"\x56" + zigzag(5, 1) + b"\x26" + zigzag(90, 2) + b"\x26" + zigzag(start, 2) + b"\x00" + b"\x00"
    groups = b"\x49\x1c" + b"\x19" + bytes([num << 4 | 12]) + column * num + b"\x00" + b"\x00"
    head = b"\x25" + zigzag(7, 1) + b"\x15" + zigzag(84, 2) + b"\x00"  # of a page that fills the ninety bytes
    path = footer(tmp_path / "a.parquet", groups, pages=head + bytes(84))
    if words:
        with pytest.raises(pa.ArrowInvalid, match=words):
            list(chunks(path))
    else:
        assert list(chunks(path)) == [Chunk(5, len(head) + 7, False)]


def test_values_that_take_no_bytes_count_as_what_they_unpack_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(size_limits, "FREE_BYTES", 2**20)
    path, num = tmp_path / "a.parquet", 1_000_000
    zeros = pa.ListArray.from_arrays(pa.array([0, num], pa.int32()), pa.array(np.zeros(num)))
    pq.write_table(pa.table({"features": zeros}), path)
    assert sum(chunk.num_bytes for chunk in chunks(path)) < 10_000
    with pytest.raises(UserError, match="unpacks to more than"):
        read_span_labels(path)
