"""Files that must survive a crash, and files of a folder that anybody may have made: no link is followed."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TAIL_BYTES = 16_384
"""More than a journal's status line with the longest note."""
TEMPORARY = ".*.tmp"
"""Names of files that a process had not finished when it died."""
NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""Flags of Unix: fail at a link, and do not wait for the other end of a pipe."""


def no_links(path: str, flags: int) -> int:
    """Open a regular file and never follow a link. Give it to ``open`` as ``opener``.

    Raises: OSError if the path is a link, a folder, a pipe or a device.
    """
    descriptor = os.open(path, flags | NO_LINK, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    return descriptor


def read_bytes(path: Path) -> bytes:
    """Return the content of a regular file. Raises: OSError if it is a link or no file."""
    with open(path, "rb", opener=no_links) as file:
        return file.read()


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """Give a new file to write to, and put it in place of ``path`` in one step when the block ends.

    After a kill ``path`` holds the old content or the new one. ``durable``: this holds after a power cut too.
    Raises: OSError.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINK, 0o666))
    try:
        yield temporary
        if durable:
            sync_path(temporary)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        sync_path(path.parent)


def write_whole(path: Path, text: str, durable: bool = False) -> None:
    """Replace a file in one step: after a kill it holds the old text or the new one.

    ``durable``: this holds after a power cut too. Raises: OSError.
    """
    with replacing(path, durable) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(text)


def sync_path(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk. Only POSIX can open a folder."""
    if os.name != "posix" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporaries(folder: Path) -> None:
    """Remove what dead processes left unfinished. The caller is the only one that writes in the folder."""
    for path in folder.glob(TEMPORARY):
        with suppress(OSError):
            path.unlink()


def read_tail(path: Path) -> str:
    """Return the last 16 kB of a file. A journal has thousands of lines, and its state is in the last ones."""
    with open(path, "rb", opener=no_links) as file:
        file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
        return file.read().decode(errors="replace")
