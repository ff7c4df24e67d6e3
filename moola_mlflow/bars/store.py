"""The bar store: bars as memory-mapped columns in a folder, for more of them than fit in memory.

A folder with one ``.npy`` file a column (nothing in it is ever unpickled), the index of segments, and ``store.json``:
what it holds, where it came from, and the hash of the content, which is the same whatever file the bars came from.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import mmap
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from moola_mlflow.bars.times import MINUTE_NS
from moola_mlflow.core import UserError

SUFFIX = ".moolabars"
CARD = "store.json"
SPOOL = "spool"
FORMAT, VERSION = "moola.bars", 1
COLUMNS: dict[str, tuple[str, tuple[int, ...]]] = {
    "time_ns": ("<i8", ()),
    "ohlc": ("<f8", (4,)),
    "volume": ("<f8", ()),
    "instrument": ("<i8", ()),
}
BLOCK_ROWS = 2**18
"""Rows handled at a time: some megabytes."""
TAKEN = 2**14


@dataclass(frozen=True, eq=False)
class Stored:
    """An opened store. Shapes: columns as in ``Bars``, mapped; segments int64 [S, 2]."""

    path: Path
    columns: dict[str, np.ndarray]
    symbols: dict[int, str]
    segments: np.ndarray
    max_gap_minutes: int
    choice: str | None
    sha256: str
    card: dict[str, Any]


def is_store(path: str | Path) -> bool:
    """Return whether a folder is a bar store."""
    return (Path(path).expanduser() / CARD).is_file()


def names_store(out: str) -> bool:
    """Return whether an output name asks for a store: it ends in a slash or in ``.moolabars``."""
    return out.endswith((os.sep, "/", SUFFIX))


class Column(np.memmap):
    """A mapped column that keeps its file open: it stays the file that was opened, whatever is put in its place."""

    file: BinaryIO | None = None

    def __array_finalize__(self, obj: Any) -> None:
        super().__array_finalize__(obj)
        self.file = getattr(obj, "file", None)

    def position(self) -> int:
        """Return where in its file this array begins, in bytes."""
        return self.ctypes.data - np.frombuffer(self._mmap, np.uint8).ctypes.data  # type: ignore[attr-defined]


def release_pages(array: np.ndarray) -> None:
    """Give a mapped array's pages back: what has been read of a file otherwise counts as this process's memory."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mapped, "madvise"):
        mapped.madvise(mmap.MADV_DONTNEED)


def take_rows(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return some rows of a column, holding few pages of a mapped one at a time. Shapes: rows int [N]."""
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

    Of a mapped column they are read, not touched: a page that is touched may bring megabytes of its neighbours along.
    """
    if not isinstance(array, Column) or array.file is None or not hasattr(os, "preadv"):
        return np.asarray(array[starts[:, None] + np.arange(length)])
    out = np.empty((len(starts), length, *array.shape[1:]), array.dtype)
    row_bytes = array.strides[0]
    if out.size == 0:
        return out
    target, size, file = out.data.cast("B"), length * row_bytes, array.file.fileno()
    for i, position in enumerate((starts * row_bytes + array.position()).tolist()):
        if os.preadv(file, [target[i * size : (i + 1) * size]], position) != size:
            raise OSError(f"{array.file.name} has become shorter while it was read")
    return out


def column_blocks(*arrays: np.ndarray, overlap: int = 0) -> Iterator[tuple[int, tuple[np.ndarray, ...]]]:
    """Yield the first row and the parts of columns, block by block; a part begins ``overlap`` rows early."""
    for lo in range(0, len(arrays[0]), BLOCK_ROWS):
        yield lo, tuple(array[max(0, lo - overlap) : lo + BLOCK_ROWS] for array in arrays)
        for array in arrays:
            release_pages(array)


def content_sha256(columns: dict[str, np.ndarray], symbols: dict[int, str]) -> str:
    """Return the hash of bars, whatever file they came from. Shapes: columns as in ``Bars``."""
    num_bars = len(columns["time_ns"])
    digest = hashlib.sha256(json.dumps([num_bars, sorted(symbols.items())]).encode())
    for name, (kind, _) in COLUMNS.items():
        for _, (part,) in column_blocks(columns[name]):
            digest.update(np.ascontiguousarray(part, kind).data)
    return digest.hexdigest()


def find_segments(time_ns: np.ndarray, instrument: np.ndarray, max_gap_minutes: int) -> np.ndarray:
    """Return first row and one past the last row of each run of one instrument without a longer gap.

    Shapes: time_ns, instrument [N] -> int64 [S, 2].
    """
    if len(time_ns) == 0:
        return np.zeros((0, 2), np.int64)
    cuts = []
    for lo, (t, key) in column_blocks(time_ns, instrument, overlap=1):
        # One instrument behind another: time may also run backwards there, and that is a change of instrument.
        cut = (np.diff(t) > max_gap_minutes * MINUTE_NS) | (np.diff(key) != 0)
        cuts.append(np.flatnonzero(cut) + max(1, lo))
    bounds = np.concatenate([[0], *cuts, [len(time_ns)]])
    return np.stack([bounds[:-1], bounds[1:]], axis=1).astype(np.int64)


class Columns:
    """Growing column files in a folder, readable as ``.npy`` once they are finished."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.num_rows = folder, 0
        self._files: dict[str, BinaryIO] = {name: (folder / f"{name}.npy").open("wb") for name in COLUMNS}
        for name in COLUMNS:
            self._header(name)

    def _header(self, name: str) -> None:
        kind, shape = COLUMNS[name]
        header = {"descr": kind, "fortran_order": False, "shape": (self.num_rows, *shape)}
        # numpy leaves room for the first number to grow, so the header can be written again in its place.
        np.lib.format.write_array_header_1_0(self._files[name], header)

    def append(self, time_ns: np.ndarray, ohlc: np.ndarray, volume: np.ndarray, instrument: np.ndarray) -> None:
        """Add rows. Shapes: as in ``Bars``."""
        for (name, (kind, _)), array in zip(COLUMNS.items(), (time_ns, ohlc, volume, instrument), strict=True):
            self._files[name].write(np.ascontiguousarray(array, kind).data)
        self.num_rows += len(time_ns)

    def finish(self) -> dict[str, np.ndarray]:
        """Close the files and return them mapped."""
        for name, file in self._files.items():
            file.seek(0)
            self._header(name)
            file.close()
        return {name: _mapped(self.folder / f"{name}.npy") for name in COLUMNS}

    def move(self, folder: Path) -> None:
        """Lay the files into another folder, over those that are there."""
        for name in COLUMNS:
            os.replace(self.folder / f"{name}.npy", folder / f"{name}.npy")
        self.folder = folder

    def close(self) -> None:
        for file in self._files.values():
            file.close()


class StoreWriter:
    """Builds a store beside its place and moves it there whole; an existing store is replaced, nothing else is.

    Raises: UserError where the place cannot be had.
    """

    def __init__(self, target: str | Path) -> None:
        self.target = Path(target).expanduser()
        if self.target.exists() and not is_store(self.target) and (self.target.is_file() or any(self.target.iterdir())):
            raise UserError(f"out='{target}' is there and is no bar store; give a new name, nothing was overwritten")
        self.folder = self.target.with_name(f".{self.target.name}.{os.getpid()}.tmp")
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            self.columns = Columns(self.folder)
        except OSError as e:
            raise UserError(f"out='{target}' cannot be written: {e}; give a folder you may write to") from e

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.columns.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def adopt(self, columns: Columns) -> None:
        """Take columns that were written elsewhere in the store's folder for its own."""
        self.columns.close()
        columns.move(self.folder)
        self.columns = columns

    def finish(self, symbols: dict[int, str], max_gap_minutes: int, choice: str | None, more: dict[str, Any]) -> None:
        """Write index and card, and move the store into its place. ``more`` goes into the card."""
        columns = self.columns.finish()
        segments = find_segments(columns["time_ns"], columns["instrument"], max_gap_minutes)
        np.save(self.folder / "segments.npy", segments, allow_pickle=False)
        card = {
            "format": FORMAT,
            "version": VERSION,
            "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "bars": len(columns["time_ns"]),
            "sha256": content_sha256(columns, symbols),
            "choice": choice,
            "max_gap_minutes": max_gap_minutes,
            "segments": len(segments),
            "segments_sha256": hashlib.sha256(segments.data).hexdigest(),
            "symbols": {str(key): name for key, name in symbols.items()},
            **more,
        }
        shutil.rmtree(self.folder / SPOOL, ignore_errors=True)
        (self.folder / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
        old = self.target.with_name(f".{self.target.name}.{os.getpid()}.old")
        if self.target.exists():
            os.replace(self.target, old)
        os.replace(self.folder, self.target)
        shutil.rmtree(old, ignore_errors=True)


def open_store(path: str | Path) -> Stored:
    """Open a store, having checked its hash and that its bars are sound.

    Raises: UserError where it is damaged, was changed, or is of another version.
    """
    path = Path(path).expanduser()
    try:
        return _opened(path)
    except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError) as e:
        if isinstance(e, UserError):
            raise
        first = f"{type(e).__name__}: {' '.join(str(e).split())[:200]}"
        raise _damaged(path, first) from None


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path}: this bar store is damaged ({why}); make it again: moola data --out {path}/")


def _opened(path: Path) -> Stored:
    card = json.loads((path / CARD).read_text(encoding="utf-8"))
    if card["format"] != FORMAT or card["version"] != VERSION:
        raise UserError(
            f"{path}: is a store of format {card['format']!r}, version {card['version']!r}; this program reads "
            f"{FORMAT}, version {VERSION}; make it again with moola data"
        )
    columns = {name: _mapped(path / f"{name}.npy") for name in COLUMNS}
    num_bars = int(card["bars"])
    for name, (kind, shape) in COLUMNS.items():
        if columns[name].dtype != np.dtype(kind) or columns[name].shape != (num_bars, *shape):
            raise _damaged(path, f"{name}.npy is {columns[name].dtype} {columns[name].shape}, not {num_bars:,} bars")
    segments = np.load(path / "segments.npy", allow_pickle=False)
    symbols = {int(key): str(name) for key, name in card["symbols"].items()}
    if content_sha256(columns, symbols) != card["sha256"]:
        raise _damaged(path, "the hash of its content is not the one it was written with")
    if segments.dtype != np.int64 or hashlib.sha256(segments.data).hexdigest() != card["segments_sha256"]:
        raise _damaged(path, "the hash of its segments is not the one they were written with")
    _check_sound(path, columns, symbols)
    choice = None if card["choice"] is None else str(card["choice"])
    return Stored(path, columns, symbols, segments, int(card["max_gap_minutes"]), choice, card["sha256"], card)


def _check_sound(path: Path, columns: dict[str, np.ndarray], symbols: dict[int, str]) -> None:
    """A store that somebody made by hand may have a right hash and wrong bars."""
    keys = np.array(sorted(symbols), np.int64)
    for lo, (t, ohlc, volume, key) in column_blocks(*columns.values(), overlap=1):
        o, h, low, c = ohlc.T
        bad = ~((h >= np.maximum(o, c)) & (low <= np.minimum(o, c)) & np.isfinite(h - low) & (volume >= 0))
        bad |= ~(volume < np.inf)
        bad[1:] |= (np.diff(t) <= 0) & (np.diff(key) == 0)
        present = key[np.concatenate([[0], np.flatnonzero(np.diff(key)) + 1])]
        if bad.any() or not np.isin(present, keys).all():
            raise _damaged(path, f"bar {max(0, lo - 1) + int(np.argmax(bad)) + 1:,} is not sound")


def _mapped(path: Path) -> np.ndarray:
    """Return a column without reading it; an empty one, which cannot be mapped, in memory."""
    try:
        column = np.load(path, mmap_mode="r", allow_pickle=False).view(Column)
    except ValueError:
        array = np.load(path, allow_pickle=False)
        if array.size:
            raise
        return array
    column.file = path.open("rb")
    return column
