"""Limits on what a file may unpack to. A small file that claims to be huge is refused before it fills the memory."""

from __future__ import annotations

import io
import lzma
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from moola_mlflow.bars.parquet_footer import chunks
from moola_mlflow.core import UserError

FREE_BYTES = 256 * 2**20
"""Any file may unpack to this many bytes, also a very small one."""
MAX_RATIO = 200
"""Real bars shrink to a third or a twentieth; bars that never move, to a hundredth."""
ROW_BYTES = 48
"""Bytes of a bar in memory: a time and five numbers."""
VALUE_BYTES = 8
MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\xfd7zXZ": "xz", b"PK\x03\x04": "zip"}
"""First bytes of packed files. The name does not count: files are often named after what they were."""


def check_unpacked(path: Path, num_bytes: int) -> None:
    """Refuse a file that unpacks to far more bytes than it has on disk.

    Raises: UserError with the size, the limit and what to do.
    """
    most = max(FREE_BYTES, MAX_RATIO * path.stat().st_size)
    if num_bytes > most:
        raise UserError(
            f"{path}: unpacks to more than {most / 2**20:,.0f} MiB, over {MAX_RATIO} times its size. No bars file does "
            "that, so it is damaged or made to fill the memory; if you trust it, unpack it and give the result"
        )


def check_parquet(path: Path) -> None:
    """Refuse a parquet file that claims more rows, values or bytes than it can hold, and one with encrypted columns.

    Raises: UserError; pyarrow's own errors if the footer cannot be read.
    """
    check_unpacked(path, max(0, pq.read_metadata(path).num_rows) * ROW_BYTES)
    total = 0
    for chunk in chunks(path):
        if chunk.encrypted:
            raise UserError(f"{path}: holds encrypted columns, and no key can be given. Write it without encryption")
        total += max(0, chunk.num_bytes, chunk.num_values * VALUE_BYTES)
        check_unpacked(path, total)


def check_dictionaries(table: pa.Table) -> None:
    """Refuse columns that point beyond their dictionary: pyarrow reads them from a damaged file without an error.

    Raises: pyarrow's ArrowInvalid.
    """
    for column in table.itercolumns():
        if pa.types.is_dictionary(column.type):
            column.validate(full=True)


class Unpacked(io.RawIOBase):
    """The unpacked content of a file as a stream, which refuses to give more than the limit."""

    def __init__(self, path: Path, compression: str | None = "detect") -> None:
        super().__init__()
        self.path = path
        self.num_bytes = 0
        self._stream: Any = _opened(path, packing(path) if compression == "detect" else compression)

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


def packing(path: Path) -> str | None:
    """Return how a file is packed by its first bytes, None if it is not."""
    with path.open("rb") as f:
        start = f.read(8)
    return next((kind for magic, kind in MAGIC.items() if start.startswith(magic)), None)


def _opened(path: Path, kind: str | None) -> Any:
    if kind == "xz":
        return lzma.open(path)
    if kind != "zip":
        return pa.input_stream(str(path), compression=kind)
    archive = zipfile.ZipFile(path)
    names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX")]
    if len(names) != 1:
        raise UserError(f"{path}: holds {len(names)} files, such as {names[:3]}; unpack it, and give the folder")
    if archive.getinfo(names[0]).flag_bits & 1:
        raise UserError(f"{path}: is locked with a password; unpack it, and give the result")
    return archive.open(names[0])
