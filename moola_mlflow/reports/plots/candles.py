"""Colours of classes and bars, and the time of day of a bar."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

CLASS_COLORS = ("#3f6fd8", "#d9772b", "#8a56c2", "#2f9e8f", "#c0417f", "#8d7a25")
UP, DOWN = "#2a9d76", "#d1495b"


def class_color(classes: Sequence[str], label: str) -> str:
    """Return the colour of a class. It is the same in every picture of one detector."""
    return CLASS_COLORS[list(classes).index(label) % len(CLASS_COLORS)]


def clock(time_ns: int) -> str:
    """Return the UTC time of day."""
    return str(np.datetime64(int(time_ns), "ns").astype("datetime64[m]"))[11:16]
