"""Files of a bar store: one Arrow IPC file (also called Feather) that is mapped, never read as a whole.

Its columns are ts_event, open, high, low, close, volume and instrument_id, in one record batch without compression.
pandas, polars and DuckDB read it as it is. Stores of version 1 have one ``.npy`` file a column; they are still opened.
"""

from __future__ import annotations

import io
import itertools
import mmap
import os
import shutil
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from moola_mlflow.bars.columns import COLUMNS, column_blocks, map_column

SCHEMA = pa.schema(
    [
        pa.field("ts_event", pa.timestamp("ns", "UTC"), nullable=False),
        *(pa.field(name, pa.float64(), nullable=False) for name in ("open", "high", "low", "close", "volume")),
        pa.field("instrument_id", pa.int64(), nullable=False),
    ]
)
KINDS = {field.name: "<f8" if field.type == pa.float64() else "<i8" for field in SCHEMA}
FIELDS = {"time_ns": (0,), "ohlc": (1, 2, 3, 4), "volume": (5,), "instrument": (6,)}
"""Fields of the Arrow file that hold each column of a ``Bars`` table."""
ITEM = 8
"""Every value takes eight bytes."""
MIN_HOLE = 2**16
"""Smaller columns are written as zeros: what pyarrow writes around them may have their size."""


class Spool:
    """Columns that grow in files of a temporary folder, because an Arrow file needs the number of rows first."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.num_rows = folder, 0
        self._files: dict[str, BinaryIO] = {name: (folder / name).open("wb") for name in SCHEMA.names}

    def append(self, columns: dict[str, np.ndarray]) -> None:
        """Add rows, given by the fields of the Arrow file. Shapes: [N] each."""
        for name, file in self._files.items():
            file.write(np.ascontiguousarray(columns[name], KINDS[name]).data)
        self.num_rows += len(columns["ts_event"])

    def finish(self) -> dict[str, np.ndarray]:
        """Close the files and return their columns, mapped, by the fields of the Arrow file."""
        self.close()
        return {name: map_column(self.folder / name, KINDS[name], (self.num_rows,)) for name in SCHEMA.names}

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def remove(self) -> None:
        """Remove the files."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class _Skeleton(io.RawIOBase):
    """A file that pyarrow writes, in which the columns stay holes until they are filled."""

    def __init__(self, file: BinaryIO, column_bytes: int) -> None:
        super().__init__()
        self.file, self.column_bytes = file, column_bytes

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        size = memoryview(content).nbytes
        if size == self.column_bytes >= MIN_HOLE:
            self.file.seek(size, os.SEEK_CUR)
        else:
            self.file.write(content)
        return size

    def tell(self) -> int:
        return self.file.tell()


def write_spooled(path: Path, spool: Spool) -> None:
    """Write the rows of a spool as one Arrow IPC file."""
    spool.close()
    offsets = _create(path, spool.num_rows)
    with path.open("r+b") as file:
        for name, offset in zip(SCHEMA.names, offsets, strict=True):
            file.seek(offset)
            with (spool.folder / name).open("rb") as column:
                shutil.copyfileobj(column, file, 2**20)
        sync(file)


def write_columns(path: Path, columns: dict[str, np.ndarray]) -> None:
    """Write columns, which may be mapped, as one Arrow IPC file. Shapes: columns as in ``Bars``."""
    offsets = _create(path, len(columns["time_ns"]))
    with path.open("r+b") as file:
        for name, fields in FIELDS.items():
            for lo, (part,) in column_blocks(columns[name]):
                for k, field in enumerate(fields):
                    file.seek(offsets[field] + lo * ITEM)
                    values = part[:, k] if part.ndim == 2 else part
                    file.write(np.ascontiguousarray(values, COLUMNS[name][0]).data)
        sync(file)


def sync(file: BinaryIO) -> None:
    """Wait until what was written to a file is on disk."""
    file.flush()
    os.fsync(file.fileno())


def _create(path: Path, num_rows: int) -> list[int]:
    """Create an Arrow file whose columns are still empty; return where each column begins.

    A record batch must be complete before pyarrow writes it, which would hold all bars in memory. So pyarrow writes
    the file around the columns, and the columns are filled in afterwards.
    """
    with path.open("wb") as file:
        zeros = pa.py_buffer(mmap.mmap(-1, max(1, num_rows * ITEM)))  # never touched, so it takes no memory
        arrays = [pa.Array.from_buffers(field.type, num_rows, [None, zeros]) for field in SCHEMA]
        skeleton = pa.PythonFile(_Skeleton(file, num_rows * ITEM), "w")
        with pa.ipc.new_file(skeleton, SCHEMA) as writer:
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=SCHEMA))
        file.truncate()
    return _offsets(path, num_rows)


def map_arrow(path: Path, num_rows: int) -> dict[str, np.ndarray]:
    """Return the columns of an Arrow file of this form, mapped; the prices of a bar lie in four places of the file.

    Raises: ValueError, or an error of pyarrow, if the file is not of this form.
    """
    offsets = _offsets(path, num_rows)
    columns = {}
    for name, (kind, shape) in COLUMNS.items():
        first = offsets[FIELDS[name][0]]
        columns[name] = map_column(path, kind, (*shape, num_rows), first).T
    return columns


def _offsets(path: Path, num_rows: int) -> list[int]:
    """Return where in an Arrow file each column begins."""
    size = path.stat().st_size
    with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
        if not reader.schema.equals(SCHEMA) or reader.num_record_batches != 1:
            raise ValueError(f"{path.name} has other columns")
        batch = reader.get_batch(0)
        if batch.num_rows != num_rows:
            raise ValueError(f"{path.name} has {batch.num_rows:,} bars, not {num_rows:,}")
        source.seek(0)
        base = source.read_buffer(1).address
        offsets = []
        for column in batch.columns:
            validity, values = column.buffers()
            offset = values.address - base if values is not None and num_rows else 0
            if validity is not None or column.offset or not 0 <= offset <= size - num_rows * ITEM:
                raise ValueError(f"{path.name} is compressed or has empty values")
            offsets.append(offset)
    prices = FIELDS["ohlc"]
    if any(offsets[b] - offsets[a] != num_rows * ITEM for a, b in itertools.pairwise(prices)):
        raise ValueError(f"{path.name} does not hold its prices one behind another")
    return offsets


def map_npy(folder: Path) -> dict[str, np.ndarray]:
    """Return the columns of a store of version 1, mapped. Nothing in it is unpickled.

    Raises: ValueError if a file is not a column of the right type and shape.
    """
    columns = {}
    for name, (kind, shape) in COLUMNS.items():
        path = folder / f"{name}.npy"
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            found, fortran, dtype = np.lib.format.read_array_header_1_0(file)
            if dtype != np.dtype(kind) or fortran or len(found) != 1 + len(shape) or found[1:] != shape:
                raise ValueError(f"{path.name} is {dtype} {found}")
            columns[name] = map_column(path, kind, found, file.tell())
    if len({len(column) for column in columns.values()}) > 1:
        raise ValueError("its columns have different lengths")
    return columns
