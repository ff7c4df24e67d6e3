"""Output that never ends a command, and that shows no control character of anybody's data.

A reader may close the pipe (``moola pretrain | head -1``), and a disk may be full. Hours of training must not end with
it. A file, a symbol or a server may hold characters that move a terminal's cursor or turn its text around.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from contextlib import suppress
from typing import Any, TextIO, cast

HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Control characters and those that change the direction of text. Tab and line feed stay."""


def visible(text: str) -> str:
    r"""Return a text whose control and direction characters are written out.

    >>> visible("price\x1b[2J\u202e")
    'price\\x1b[2J\\u202e'
    """
    return HIDDEN.sub(lambda found: ascii(found[0])[1:-1], text)


class SteadyStream:
    """A text stream that writes out control characters. What cannot be written is dropped, unless ``raises``."""

    def __init__(self, stream: TextIO, *, raises: bool = False, clean: bool = True, keep: str = "") -> None:
        """Write to a stream. ``keep``: a control character that stays, as progress bars need one."""
        self.stream, self._raises, self._clean, self._keep = stream, raises, clean, keep

    def write(self, text: str) -> int:
        """Write a text and return its length."""
        shown = self._keep.join(map(visible, text.split(self._keep))) if self._keep else visible(text)
        try:
            self.stream.write(shown if self._clean else text)
        except (OSError, ValueError) as e:
            self._failed(e)
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        try:
            self.stream.flush()
        except (OSError, ValueError) as e:
            self._failed(e)

    def _failed(self, error: Exception) -> None:
        if self._raises:
            raise error
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            drop_output(self.stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def drop_output(stream: TextIO) -> None:
    """Send what a stream still holds, and all that follows, nowhere: Python would fail on it at its exit."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def guard_console() -> None:
    """Make standard output and error steady, for the whole process."""
    if not isinstance(sys.stdout, SteadyStream) and sys.stdout is not None:
        sys.stdout = cast(TextIO, SteadyStream(sys.stdout))
    if not isinstance(sys.stderr, SteadyStream) and sys.stderr is not None:
        sys.stderr = cast(TextIO, SteadyStream(sys.stderr, keep="\r"))


def settle_console() -> None:
    """Flush standard output and error, and drop what cannot be written, so that the exit code stays."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, SteadyStream):
            try:
                stream.stream.flush()
            except (OSError, ValueError):
                drop_output(stream.stream)


def reader_stream() -> TextIO:
    """Return standard output for a reader whose going must be noticed: a closed pipe raises BrokenPipeError."""
    stream = sys.stdout
    return cast(TextIO, SteadyStream(stream.stream, raises=True)) if isinstance(stream, SteadyStream) else stream


def display_stream() -> TextIO:
    """Return standard output for a live display, which moves the cursor itself. It must show no text of data."""
    stream = sys.stdout
    return cast(TextIO, SteadyStream(stream.stream, clean=False)) if isinstance(stream, SteadyStream) else stream
