"""Columns of bars, in memory or mapped from a file: read parts of them without holding the rest in memory."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

COLUMNS: dict[str, tuple[str, tuple[int, ...]]] = {
    "time_ns": ("<i8", ()),
    "ohlc": ("<f8", (4,)),
    "volume": ("<f8", ()),
    "instrument": ("<i8", ()),
}
"""Name, type and shape of a row of each column of a ``Bars`` table."""
BLOCK_ROWS = 2**18
"""Rows handled at a time: some megabytes."""
TAKEN = 2**14


class Column(np.memmap):
    """A column mapped from a file. It keeps the file open, so it stays valid when the file is replaced."""

    file: BinaryIO | None = None
    mapped_from: int = 0
    """Position in the file of the first mapped byte."""

    def __array_finalize__(self, obj: Any) -> None:
        super().__array_finalize__(obj)
        self.file = getattr(obj, "file", None)
        self.mapped_from = getattr(obj, "mapped_from", 0)

    def position(self) -> int:
        """Return the position in the file of this array's first byte."""
        base = np.frombuffer(self._mmap, np.uint8).ctypes.data  # type: ignore[attr-defined]
        return self.mapped_from + self.ctypes.data - base


def map_column(path: Path, kind: str, shape: tuple[int, ...], offset: int = 0) -> np.ndarray:
    """Return an array mapped from a file. An empty array, which cannot be mapped, is in memory."""
    if 0 in shape:
        return np.zeros(shape, kind)
    file = path.open("rb")
    column = np.memmap(file, kind, "r", offset, shape).view(Column)
    column.file, column.mapped_from = file, offset - offset % mmap.ALLOCATIONGRANULARITY
    return column


def release_pages(array: np.ndarray) -> None:
    """Give the pages of a mapped array back: pages that were read count as memory of this process."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mapped, "madvise"):
        mapped.madvise(mmap.MADV_DONTNEED)


def column_blocks(*arrays: np.ndarray, overlap: int = 0) -> Iterator[tuple[int, tuple[np.ndarray, ...]]]:
    """Yield columns block by block: the first row of a block, and its parts, which begin ``overlap`` rows earlier."""
    for lo in range(0, len(arrays[0]), BLOCK_ROWS):
        yield lo, tuple(array[max(0, lo - overlap) : lo + BLOCK_ROWS] for array in arrays)
        for array in arrays:
            release_pages(array)


def take_rows(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return some rows of a column. Few pages of a mapped column are in memory at a time. Shapes: rows int [N]."""
    if not isinstance(array, Column):
        return array[rows]
    out = np.empty((len(rows), *array.shape[1:]), array.dtype)
    order = np.argsort(rows, kind="stable")  # neighbours share pages
    for lo in range(0, len(rows), TAKEN):
        at = order[lo : lo + TAKEN]
        out[at] = array[rows[at]]
        release_pages(array)
    return out


def take_runs(array: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    """Return runs of neighbouring rows. Shapes: starts int [N] -> [N, length, ...].

    A mapped column is read from its file, not touched in memory: one touched page may bring megabytes of its
    neighbours along. Runs that overlap or nearly touch are read together.
    """
    starts = np.asarray(starts, np.int64)
    if not isinstance(array, Column) or array.file is None or not hasattr(os, "preadv") or not len(starts):
        return np.asarray(array[starts[:, None] + np.arange(length)])
    order = np.argsort(starts, kind="stable")
    first = starts[order]
    joins = np.diff(first) <= 2 * length
    begins = np.flatnonzero(np.concatenate([[True], ~joins]))
    lows, highs = first[begins], first[np.append(begins[1:], len(first)) - 1] + length
    at = np.cumsum(highs - lows) - (highs - lows)  # where each stretch lies among the rows that are read
    rows_read = _read_stretches(array, lows, highs)
    stretch = np.empty(len(starts), np.int64)
    stretch[order] = np.repeat(np.arange(len(begins)), np.diff(begins, append=len(first)))
    runs = np.lib.stride_tricks.sliding_window_view(rows_read, length, axis=0)  # [rows, ..., length]
    firsts, out = starts - lows[stretch] + at[stretch], np.empty((len(starts), length, *array.shape[1:]), array.dtype)
    for k in np.ndindex(*array.shape[1:]):  # a price at a time: each lies in one piece, so whole runs are copied
        out[:, :, *k] = runs[firsts, *k]
    return out


def _read_stretches(array: Column, lows: np.ndarray, highs: np.ndarray) -> np.ndarray:
    """Read stretches of rows from the file of a column. Shapes: lows, highs int [S] -> [all rows, ...]."""
    assert array.file is not None
    descriptor, item = array.file.fileno(), array.itemsize
    by_column = array.ndim == 2 and array.strides[1] != item  # four columns of prices, each in one piece
    parts = array.shape[1] if by_column else 1
    row_bytes = item if by_column else array.strides[0]
    total = int((highs - lows).sum())
    out = np.empty((parts, total, *(() if by_column else array.shape[1:])), array.dtype)
    target, start, done = out.data.cast("B"), array.position(), 0
    for part in range(parts):
        base = start + part * (array.strides[1] if by_column else 0)
        for low, high in zip(lows.tolist(), highs.tolist(), strict=True):
            size = (high - low) * row_bytes
            if os.preadv(descriptor, [target[done : done + size]], base + low * row_bytes) != size:
                raise OSError(f"{array.file.name} has become shorter while it was read")
            done += size
    return np.moveaxis(out, 0, -1) if by_column else out[0]


def content_sha256(columns: dict[str, np.ndarray], symbols: dict[int, str]) -> str:
    """Return the hash of bars, which does not depend on the file they came from. Shapes: columns as in ``Bars``."""
    num_bars = len(columns["time_ns"])
    digest = hashlib.sha256(json.dumps([num_bars, sorted(symbols.items())]).encode())
    for name, (kind, _) in COLUMNS.items():
        for _, (part,) in column_blocks(columns[name]):
            digest.update(np.ascontiguousarray(part, kind).data)
    return digest.hexdigest()
