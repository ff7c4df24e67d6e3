"""What the detector found in windows that were not shown yet: events to suggest, and the order of the windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Suggestions:
    """Events that a detector found in some windows, by the row of each window's first bar."""

    events: Mapping[int, list[dict[str, Any]]] = field(default_factory=dict)

    def of(self, row: int) -> list[dict[str, Any]] | None:
        """Return the events of a window, None if the detector has not read it."""
        found = self.events.get(row)
        return None if found is None else [dict(event) for event in found]


def ordered(rows: np.ndarray, top: np.ndarray, order: str) -> np.ndarray:
    """Return windows in the order in which they help: the score of the best event nearest to 0.5, or the highest first.

    Shapes: int64 [N], float64 [N] -> int64 [N].
    """
    key = -top if order == "top" else np.abs(top - 0.5)
    return np.asarray(rows)[np.argsort(key, kind="stable")]
