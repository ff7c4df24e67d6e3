"""Python's cyclic garbage collector runs less often while modules are imported, which makes imports faster.

Importing torch and MLflow makes a million objects that stay. The collector would look through them again and again.
"""

from __future__ import annotations

import gc

RESTING = 1_000_000
"""New objects between two collections while modules are imported: more than all imports make. Python's own is 700."""

_before: tuple[int, int, int] | None = None


def rest_collector() -> None:
    """Collect rarely from now on."""
    global _before
    if _before is None:
        _before = gc.get_threshold()
        gc.set_threshold(RESTING, *_before[1:])


def wake_collector() -> None:
    """Collect as Python does, but leave out what was imported. Does nothing unless the collector rests."""
    global _before
    if _before is not None:
        gc.freeze()
        gc.set_threshold(*_before)
        _before = None
