"""Bounds on what a file may unpack to: a few bytes that claim to be terabytes are refused, not tried."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from moola_mlflow.errors import UserError

FREE_BYTES = 256 * 2**20
"""Whatever its size on disk, a file may unpack to this much."""
MAX_RATIO = 200
"""Real bars shrink to a third or a twentieth; bars that never move, to a hundredth."""
ROW_BYTES = 48
"""A time and five numbers."""


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


def check_parquet(path: Path, columns: list[str] | None = None) -> pq.FileMetaData:
    """Return a parquet file's footer, having refused one that promises more rows or bytes than it can hold.

    ``columns`` are the top-level columns that will be read; none: all.

    Raises: UserError; pyarrow's own errors where the footer cannot be read.
    """
    footer = pq.read_metadata(path)
    check_unpacked(path, max(0, footer.num_rows) * ROW_BYTES)
    wanted = None if columns is None else set(columns)
    total = 0
    for group in range(footer.num_row_groups):
        row_group = footer.row_group(group)
        for k in range(row_group.num_columns):
            column = row_group.column(k)
            if wanted is None or column.path_in_schema.split(".")[0] in wanted:
                total += max(0, column.total_uncompressed_size)
        check_unpacked(path, total)
    return footer


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
