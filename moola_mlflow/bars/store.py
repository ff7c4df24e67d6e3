"""The bar store: a folder of bars that is mapped into memory, for more bars than memory holds.

``store.json`` says what the store holds, where it came from, and the hash of the content. It names the two Arrow files
beside it: the bars, and the rows of each segment. The hash does not depend on the file that the bars came from.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import re
import shutil
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather

from moola_mlflow.bars.columns import column_blocks, content_sha256
from moola_mlflow.bars.store_files import Spool, map_arrow, map_npy, write_columns, write_spooled
from moola_mlflow.bars.times import MINUTE_NS
from moola_mlflow.core import UserError

SUFFIX = ".moolabars"
CARD = "store.json"
FORMAT, VERSION, NPY_VERSION = "moola.bars", 2, 1
HOST = r"[0-9a-f]{8}"
"""Short name of a machine, in the names of temporary folders."""
DEAD_SECONDS = 3600
"""A temporary folder of another machine is left alone for an hour after its last change: that machine may write it."""


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


def find_segments(time_ns: np.ndarray, instrument: np.ndarray, max_gap_minutes: int) -> np.ndarray:
    """Return the first row and one past the last row of each segment. Shapes: time_ns, instrument [N] -> int64 [S, 2].

    A segment is a run of one instrument's bars whose neighbours start at most ``max_gap_minutes`` apart.
    """
    if len(time_ns) == 0:
        return np.zeros((0, 2), np.int64)
    cuts = []
    for lo, (t, key) in column_blocks(time_ns, instrument, overlap=1):
        # Instruments lie one behind another, so time may also run backwards: the change of instrument cuts there.
        cut = (np.diff(t) > max_gap_minutes * MINUTE_NS) | (np.diff(key) != 0)
        cuts.append(np.flatnonzero(cut) + max(1, lo))
    bounds = np.concatenate([[0], *cuts, [len(time_ns)]])
    return np.stack([bounds[:-1], bounds[1:]], axis=1).astype(np.int64)


class StoreWriter:
    """Build a store in a temporary folder beside its place, and move it there when it is complete.

    Raises: UserError if the place is taken by anything but a store, or cannot be written.
    """

    def __init__(self, target: str | Path) -> None:
        self.target = Path(target).expanduser()
        if self.target.exists() and not is_store(self.target) and (self.target.is_file() or any(self.target.iterdir())):
            raise UserError(f"out='{target}' is there and is no bar store; give a new name, nothing was overwritten")
        self.folder = self.target.with_name(f".{self.target.name}.{_host()}.{os.getpid()}.tmp")
        self._spools: list[Spool] = []
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            _remove_dead(self.target)
            self.folder.mkdir(exist_ok=True)
        except OSError as e:
            raise UserError(f"out='{target}' cannot be written: {e}; give a folder you may write to") from e

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for spool in self._spools:
            spool.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def spool(self) -> Spool:
        """Return an empty spool in the temporary folder."""
        self._spools.append(Spool(self.folder / f"spool{len(self._spools)}"))
        return self._spools[-1]

    def finish(self, bars: Spool | dict[str, np.ndarray], symbols: dict[int, str], card: dict[str, Any]) -> None:
        """Write the files and move them into place. ``card`` holds choice, max_gap_minutes and what else to note.

        ``store.json`` is replaced last, in one step: a process that is killed before leaves the old store.

        Shapes: bars are a spool, or columns as in ``Bars``.
        """
        written = self.folder / "bars.arrow"
        if isinstance(bars, Spool):
            write_spooled(written, bars)
        else:
            write_columns(written, bars)
        num_bars = bars.num_rows if isinstance(bars, Spool) else len(bars["time_ns"])
        for spool in self._spools:
            spool.remove()
        columns = map_arrow(written, num_bars)
        segments = find_segments(columns["time_ns"], columns["instrument"], card["max_gap_minutes"])
        sha256, segments_sha256 = content_sha256(columns, symbols), hashlib.sha256(segments.data).hexdigest()
        files = {"bars": f"bars-{sha256[:12]}.arrow", "segments": f"segments-{segments_sha256[:12]}.arrow"}
        os.replace(written, self.folder / files["bars"])
        table = pa.table({"first": segments[:, 0], "end": segments[:, 1]})
        pyarrow.feather.write_feather(table, str(self.folder / files["segments"]), compression="uncompressed")
        whole = {
            "format": FORMAT,
            "version": VERSION,
            "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "files": files,
            "bars": num_bars,
            "sha256": sha256,
            "segments": len(segments),
            "segments_sha256": segments_sha256,
            "symbols": {str(key): name for key, name in symbols.items()},
            **card,
        }
        (self.folder / CARD).write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
        for path in (self.folder / files["segments"], self.folder / CARD, self.folder):
            _sync_path(path)
        self._move([*files.values(), CARD])

    def _move(self, names: list[str]) -> None:
        if not is_store(self.target):
            os.replace(self.folder, self.target)
            _sync_path(self.target.parent)
            return
        for name in names:  # the card is the last
            os.replace(self.folder / name, self.target / name)
            _sync_path(self.target)
        for old in self.target.iterdir():
            if old.name not in names and old.suffix in (".arrow", ".npy"):
                old.unlink()


def _remove_dead(target: Path) -> None:
    """Remove temporary folders of processes that were killed while they wrote this store."""
    for folder in target.parent.iterdir():
        head, _, pid = folder.name.removesuffix(".tmp").rpartition(".")
        here = head == f".{target.name}.{_host()}"
        ours = here or head == f".{target.name}" or re.fullmatch(HOST, head.removeprefix(f".{target.name}."))
        if not (folder.name.endswith(".tmp") and ours and pid.isdecimal() and folder.is_dir()):
            continue
        if not _is_running(int(pid)) and (here or _is_old(folder)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_old(folder: Path) -> bool:
    newest = max((file.lstat().st_mtime for file in [folder, *folder.rglob("*")]), default=0)
    return newest < time.time() - DEAD_SECONDS


def _host() -> str:
    """Return a short name of this machine's process ids: of the host and, on Linux, of its process namespace."""
    name = socket.gethostname()
    with suppress(OSError):
        name += os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(name.encode()).hexdigest()[:8]


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _sync_path(path: Path) -> None:
    """Wait until a file or the names in a folder are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_store(path: str | Path) -> Stored:
    """Open a store: map its columns, check its hash, and check that its bars are sound.

    Raises: UserError if it is damaged, was changed, or is of another version.
    """
    path = Path(path).expanduser()
    try:
        return _opened(path)
    except UserError:
        raise
    except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError) as e:
        raise _damaged(path, f"{type(e).__name__}: {' '.join(str(e).split())[:200]}") from None


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path}: this bar store is damaged ({why}); make it again: moola data --out {path}/")


def _opened(path: Path) -> Stored:
    card = json.loads((path / CARD).read_text(encoding="utf-8"))
    if card["format"] != FORMAT or card["version"] not in (VERSION, NPY_VERSION):
        raise UserError(
            f"{path}: is a store of format {card['format']!r}, version {card['version']!r}; this program reads "
            f"{FORMAT}, versions {NPY_VERSION} and {VERSION}. Make it again with moola data"
        )
    num_bars = int(card["bars"])
    if card["version"] == NPY_VERSION:
        columns, segments = map_npy(path), np.load(path / "segments.npy", allow_pickle=False)
    else:
        columns = map_arrow(_beside(path, card["files"]["bars"]), num_bars)
        table = pyarrow.feather.read_table(_beside(path, card["files"]["segments"]))
        segments = np.stack([table["first"].to_numpy(), table["end"].to_numpy()], axis=1)
    if len(columns["time_ns"]) != num_bars:
        raise _damaged(path, f"it holds {len(columns['time_ns']):,} bars, not {num_bars:,}")
    symbols = {int(key): str(name) for key, name in card["symbols"].items()}
    if content_sha256(columns, symbols) != card["sha256"]:
        raise _damaged(path, "the hash of its content is not the one it was written with")
    if segments.dtype != np.int64 or hashlib.sha256(segments.data).hexdigest() != card["segments_sha256"]:
        raise _damaged(path, "the hash of its segments is not the one they were written with")
    _check_sound(path, columns, symbols)
    choice = None if card["choice"] is None else str(card["choice"])
    return Stored(path, columns, symbols, segments, int(card["max_gap_minutes"]), choice, card["sha256"], card)


def _beside(folder: Path, name: str) -> Path:
    """Return a file of the store's own folder. The path that the card names does not count."""
    return folder / Path(name).name


def _check_sound(path: Path, columns: dict[str, np.ndarray], symbols: dict[int, str]) -> None:
    """Refuse unsound bars: a store made by hand may have the right hash and wrong bars."""
    keys = np.array(sorted(symbols), np.int64)
    for lo, (t, ohlc, volume, key) in column_blocks(*columns.values(), overlap=1):
        o, h, low, c = ohlc.T
        bad = ~((h >= np.maximum(o, c)) & (low <= np.minimum(o, c)) & np.isfinite(h - low) & (volume >= 0))
        bad |= ~(volume < np.inf)
        bad[1:] |= (np.diff(t) <= 0) & (np.diff(key) == 0)
        present = key[np.concatenate([[0], np.flatnonzero(np.diff(key)) + 1])]
        if bad.any() or not np.isin(present, keys).all():
            raise _damaged(path, f"bar {max(0, lo - 1) + int(np.argmax(bad)) + 1:,} is not sound")
