"""Find the bars files that a path, a folder or a glob names."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from typing import TypeVar

from moola_mlflow.bars.remote import REMOTE, fetch
from moola_mlflow.core import UserError, nearest_name

AnyPath = TypeVar("AnyPath", bound=PurePath)
PARQUET = (".parquet", ".pq")
PACKED = ("", ".gz", ".zst", ".bz2", ".xz", ".zip")
CSV = tuple(f"{kind}{packed}" for kind in (".csv", ".tsv") for packed in PACKED)
TEXT = (*CSV, *(f".txt{packed}" for packed in PACKED), ".zip")
DBN = (".dbn", ".dbn.zst")
ARROW = (".feather", ".arrow", ".ipc")
EXCEL = (".xlsx", ".xlsm")
NAMED = ", ".join((*PARQUET, *ARROW, ".csv", ".tsv", ".txt", *EXCEL, *DBN))
KNOWN = f"known: {NAMED}; text also as .gz, .zst, .bz2, .xz, .zip"


def find_files(path: str) -> list[Path]:
    """Return the bars files that a path, folder or glob names, sorted by name.

    Raises: UserError with the nearest name if there is none.
    """
    if REMOTE.match(path):
        return fetch(path, bars_of_folder)
    try:
        return _found(Path(path).expanduser(), path)
    except (OSError, RuntimeError) as e:  # no permission, a name too long, no home folder
        raise UserError(f"bars: '{path[:200]}' cannot be looked at: {e}; correct the path or its permissions") from None


def _found(target: Path, path: str) -> list[Path]:
    if target.is_file():
        return [target]
    if target.is_dir():
        # A .txt in a folder is as likely a README, so only globs take it.
        found = _below(target, target.iterdir()) or _below(target, target.rglob("*"))
        if not found:
            raise UserError(f"bars: folder '{path}' holds no bars file ({KNOWN}; for .txt use a glob: '{path}/*.txt')")
        return found
    if glob.has_magic(path):
        found = sorted(Path(p) for p in glob.glob(str(target), recursive=True) if Path(p).is_file())
        if not found:
            raise UserError(f"bars: no file matches '{path}'; a folder or a single file will do as well")
        return found
    there = sorted(p.name for p in target.parent.iterdir()) if target.parent.is_dir() else []
    hint = nearest_name(target.name, there) if there else f"; there is no folder '{target.parent}' either."
    raise UserError(f"bars: no file '{path}'{hint} Give a file, a folder, a glob, or 'sample'")


def _below(folder: Path, paths: Iterable[Path]) -> list[Path]:
    return [folder / p for p in bars_of_folder([p.relative_to(folder) for p in paths if p.is_file()])]


def bars_of_folder(inside: Sequence[AnyPath]) -> list[AnyPath]:
    """Return the bars files of a folder by their names below it, sorted: those in it, else those in its subfolders.

    Names that begin with a dot do not count, nor folders whose names begin with ``_`` or a dot: tools that write
    datasets keep such folders for themselves, as pyarrow.dataset knows too.
    """
    kept = (p for p in inside if p.name[0] != "." and not any(folder[0] in "._" for folder in p.parts[:-1]))
    found = sorted(p for p in kept if is_any(p, (*PARQUET, *ARROW, *CSV, *DBN)))
    return [p for p in found if len(p.parts) == 1] or found


def is_any(path: PurePath, suffixes: tuple[str, ...]) -> bool:
    """Return whether a file's name ends in one of the suffixes, in any letter case."""
    return path.name.lower().endswith(suffixes)


def instrument_of(path: Path) -> str:
    """Return the name of a file without its suffixes: ES for ES.csv.gz, and ES.c.0 for ES.c.0.parquet.

    >>> instrument_of(Path("months/ES.c.0.csv.gz"))
    'ES.c.0'
    """
    known = sorted((*PARQUET, *ARROW, *TEXT, *DBN, *EXCEL), key=len, reverse=True)
    suffix = next((suffix for suffix in known if path.name.lower().endswith(suffix)), "")
    return path.name[: len(path.name) - len(suffix)]
