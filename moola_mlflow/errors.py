"""The exceptions whose message is for the user, and the helper that suggests the nearest name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

SECRET = re.compile(r"(?<=://)[^/\s@'\"]+@")
"""User and password in an address."""


class UserError(ValueError):
    """Bad input or configuration: one message (what, value, allowed, cure), exit code 2, no traceback."""


class TrainingError(RuntimeError):
    """A run that started well and failed while running (NaN loss, a leak): exit code 1, no traceback."""


class GateError(RuntimeError):
    """The evidence of a model does not meet a gate: exit code 3, no traceback."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the closest valid name, or a full stop.

    >>> nearest("ecnoder.hidden", ["encoder.hidden", "encoder.layers"])
    "; did you mean 'encoder.hidden'?"
    """
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else "."


def shown(text: str) -> str:
    """Return a text without the user and password of the addresses in it.

    >>> shown("http://me:secret@host:5000/api does not answer")
    'http://host:5000/api does not answer'
    """
    return SECRET.sub("", text)
