"""The exceptions whose message is for the user, and the helper that suggests the nearest name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
