"""Fetch bars from an address, such as s3:// or https://, through fsspec. They are read from a temporary folder."""

from __future__ import annotations

import atexit
import glob
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path, PurePosixPath

from moola_mlflow.core import UserError, printable

REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
"""What an address begins with."""


Chooser = Callable[[Sequence[PurePosixPath]], Sequence[PurePosixPath]]
"""What says which files of a folder are wanted, by their names below it."""


def fetch(address: str, choose: Chooser) -> list[Path]:
    """Return copies of the files that an address, a folder or a glob of a remote store names, sorted by name.

    Of a folder, ``choose`` says which. A copy has the folders of its file above it, such as ``symbol=ES``. Files that
    were fetched before in this process are not fetched again.

    Raises: UserError if the store cannot be reached, or if nothing is there.
    """
    return list(_fetched(address, choose))


@cache
def _fetched(address: str, choose: Chooser) -> tuple[Path, ...]:
    shown = printable(address)
    try:
        import fsspec

        store, place = fsspec.core.url_to_fs(address)
        is_folder = not glob.has_magic(address) and store.isdir(place)
        if is_folder:
            found, top = store.find(place), PurePosixPath(place)
            there = {PurePosixPath(n).relative_to(top): n for n in found if PurePosixPath(n).is_relative_to(top)}
            names = [there[name] for name in choose(list(there))]
        else:
            names = store.glob(place) if glob.has_magic(address) else [place]
        folder = Path(tempfile.mkdtemp(prefix="moola-bars-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        copies = []
        for k, name in enumerate(sorted(names)):
            copy = folder / f"{k:04}" / _below(name)
            copy.parent.mkdir(parents=True)
            store.get_file(name, str(copy))
            copies.append(copy)
    except ImportError as e:
        raise UserError(
            f"bars: '{shown}' needs a package: {e}; pip install -e '.[remote]', or '.[cloud]' for s3://"
        ) from None
    except Exception as e:  # each store has errors of its own
        first = " ".join(printable(str(e)).split())[:200]
        raise UserError(
            f"bars: '{shown}' cannot be fetched ({type(e).__name__}: {first}); check address and access"
        ) from None
    if not copies:
        raise UserError(f"bars: no file matches '{shown}'; give a file, a folder or a glob")
    return tuple(copies)


def _below(name: str) -> PurePosixPath:
    """Return the name of a remote file as a path that stays below any folder: a store may allow ``..`` in names."""
    parts = [part for part in name.split("?")[0].split("/") if part not in ("", ".", "..")]
    return PurePosixPath(*(part.replace(":", "") for part in parts))
