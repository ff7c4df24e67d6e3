"""Bounds on what a file may unpack to: a few bytes that claim to be terabytes are refused, not tried."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from moola_mlflow.bars.parquet_footer import chunks
from moola_mlflow.core import UserError

FREE_BYTES = 256 * 2**20
"""Whatever its size on disk, a file may unpack to this much."""
MAX_RATIO = 200
"""Real bars shrink to a third or a twentieth; bars that never move, to a hundredth."""
ROW_BYTES = 48
"""A time and five numbers."""
VALUE_BYTES = 8


def check_unpacked(path: Path, num_bytes: int) -> None:
    """Refuse a file that unpacks to absurdly more than it holds.

    Raises: UserError with the size, what is allowed, and the cure.
    """
    most = max(FREE_BYTES, MAX_RATIO * path.stat().st_size)
    if num_bytes > most:
        raise UserError(
            f"{path}: unpacks to more than {most / 2**20:,.0f} MiB, over {MAX_RATIO} times its size, as no bars file "
            "does: it is damaged or made to fill the memory; if you trust it, unpack it and give the result"
        )


def check_parquet(path: Path) -> None:
    """Refuse a parquet file that promises more rows, values or bytes than it can hold, or that is encrypted.

    Raises: UserError; pyarrow's own errors where the footer cannot be read.
    """
    check_unpacked(path, max(0, pq.read_metadata(path).num_rows) * ROW_BYTES)
    total = 0
    for chunk in chunks(path):
        if chunk.encrypted:
            raise UserError(f"{path}: holds encrypted columns, to which no key can be given; write it unencrypted")
        total += max(0, chunk.num_bytes, chunk.num_values * VALUE_BYTES)
        check_unpacked(path, total)


def check_dictionaries(table: pa.Table) -> None:
    """Refuse columns that point past their dictionary, as those of a damaged parquet file may: pyarrow reads them so.

    Raises: pyarrow's ArrowInvalid.
    """
    for column in table.itercolumns():
        if pa.types.is_dictionary(column.type):
            column.validate(full=True)


class Unpacked(io.RawIOBase):
    """A compressed file as a stream of its content that ends in a refusal where there is too much of it."""

    def __init__(self, path: Path, compression: str | None = "detect") -> None:
        super().__init__()
        self.path = path
        self.num_bytes = 0
        self._stream = pa.input_stream(str(path), compression=compression)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._stream.read(len(buffer))
        self.num_bytes += len(content)
        check_unpacked(self.path, self.num_bytes)
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._stream.close()
        super().close()
