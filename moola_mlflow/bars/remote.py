"""Fetch bars from an address, such as s3:// or https://, through fsspec. They are read from a temporary folder."""

from __future__ import annotations

import atexit
import glob
import re
import shutil
import tempfile
from functools import cache
from pathlib import Path, PurePosixPath

from moola_mlflow.core import UserError, printable

REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
"""What an address begins with."""


def fetch(address: str) -> list[Path]:
    """Return copies of the files that an address, a folder or a glob of a remote store names, sorted by name.

    Files that were fetched before in this process are not fetched again.

    Raises: UserError if the store cannot be reached, or if nothing is there.
    """
    return list(_fetched(address))


@cache
def _fetched(address: str) -> tuple[Path, ...]:
    shown = printable(address)
    try:
        import fsspec

        store, place = fsspec.core.url_to_fs(address)
        is_folder = not glob.has_magic(address) and store.isdir(place)
        names = store.find(place) if is_folder else store.glob(place) if glob.has_magic(address) else [place]
        folder = Path(tempfile.mkdtemp(prefix="moola-bars-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        copies = []
        for k, name in enumerate(sorted(names)):
            copy = folder / f"{k:04}" / PurePosixPath(name.split("?")[0]).name
            copy.parent.mkdir()
            store.get_file(name, str(copy))
            copies.append(copy)
    except ImportError as e:
        raise UserError(
            f"bars: '{shown}' needs a package: {e}; pip install -e '.[remote]', and s3fs for s3://"
        ) from None
    except Exception as e:  # each store has errors of its own
        first = " ".join(printable(str(e)).split())[:200]
        raise UserError(
            f"bars: '{shown}' cannot be fetched ({type(e).__name__}: {first}); check address and access"
        ) from None
    if not copies:
        raise UserError(f"bars: no file matches '{shown}'; give a file, a folder or a glob")
    return tuple(copies)
