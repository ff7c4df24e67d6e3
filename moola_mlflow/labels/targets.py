"""The targets of a detector: the class and the span of each labelled window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from moola_mlflow.labels.labelled_set import LabelledSet


@dataclass(frozen=True)
class Targets:
    """Class, span and prices of each window.

    Shapes: label, start and end int64 [N], both ends inclusive; ohlc float64 [N, T, 4].
    """

    label: np.ndarray
    start: np.ndarray
    end: np.ndarray
    ohlc: np.ndarray
    num_classes: int

    @classmethod
    def of(cls, labels: LabelledSet) -> Targets:
        """Return the targets of a labelled set."""
        return cls(labels.label, labels.start, labels.end, labels.ohlc, len(labels.classes))

    def span_lengths(self, index: np.ndarray) -> tuple[int, int]:
        """Return the shortest and the longest span of some windows, in bars."""
        length_M = (self.end - self.start + 1)[index]
        return int(length_M.min()), int(length_M.max())
