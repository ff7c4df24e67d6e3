"""Lines of a file that grows, or of a stream, as they come. A line that is not complete yet waits."""

from __future__ import annotations

import os
import select
from pathlib import Path
from typing import BinaryIO

from moola_mlflow.core import UserError

CHUNK_BYTES = 1 << 20
TAIL_BYTES = 64
"""Bytes before the place of reading that are read again, to see whether the file was written anew."""


class GrowingFile:
    """A text file that another program appends to.

    Raises: UserError if it cannot be opened.
    """

    ended = False
    """Whether no line can come any more: never known of a file."""

    def __init__(self, path: Path) -> None:
        self.path, self.num_read, self._tail, self._part = path, 0, b"", b""
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as e:
            raise UserError(f"bars='{path}' cannot be read: {e.strerror}; give the file that grows, or - for standard "
                            "input") from None  # fmt: skip

    def lines(self) -> list[str]:
        """Return the complete lines that have come since the last call.

        Raises: UserError if the file was shortened, written anew or replaced.
        """
        found = self._file.read(CHUNK_BYTES)
        if not found:
            self._check_same()
            return []
        self._check_tail()
        self.num_read += len(found)
        self._tail = (self._tail + found)[-TAIL_BYTES:]
        *whole, self._part = (self._part + found).split(b"\n")
        return _texts(whole)

    @property
    def unfinished(self) -> str:
        """The last line, if it has no end yet."""
        return self._part.decode("utf-8", "replace").strip()

    def close(self) -> None:
        self._file.close()

    def _check_same(self) -> None:
        try:
            here, open_one = os.stat(self.path), os.fstat(self._file.fileno())
        except FileNotFoundError:
            raise self._refusal("is gone") from None
        if not os.path.samestat(here, open_one):
            raise self._refusal("was replaced by another file")
        if here.st_size < self.num_read:
            raise self._refusal(f"became shorter ({here.st_size:,} bytes, {self.num_read:,} were read)")

    def _check_tail(self) -> None:
        place = self._file.tell()
        self._file.seek(self.num_read - len(self._tail))
        if self._file.read(len(self._tail)) != self._tail:
            raise self._refusal("was written anew")
        self._file.seek(place)

    def _refusal(self, what: str) -> UserError:
        return UserError(
            f"bars='{self.path}' {what} while it was followed, so bars may be missing or come twice; start the command "
            "again on the new file"
        )


class LineStream:
    """Standard input, or another stream of text."""

    unfinished = ""

    def __init__(self, descriptor: int, wait_s: float = 0.2) -> None:
        self._descriptor, self._wait_s, self._part = descriptor, wait_s, b""
        self.ended = False

    def lines(self) -> list[str]:
        """Return the complete lines that have come. Wait a moment for them, but not longer.

        The last line of a stream that has ended needs no line end.
        """
        if self.ended or not select.select([self._descriptor], [], [], self._wait_s)[0]:
            return []
        found = os.read(self._descriptor, CHUNK_BYTES)
        self.ended = not found
        *whole, self._part = (self._part + found).split(b"\n")
        if self.ended:
            whole, self._part = [*whole, self._part], b""
        return _texts(whole)

    def close(self) -> None:
        """Leave the stream open: it belongs to the process."""


def _texts(lines: list[bytes]) -> list[str]:
    return [text for line in lines if (text := line.decode("utf-8", "replace").strip("\r\ufeff").rstrip())]
