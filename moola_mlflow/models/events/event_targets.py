"""What the nets of an event detector learn: the events of each window, as tables with a column for each event.

Shape legend: N windows, E events, M most events of a window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from moola_mlflow.labels import EventLabels


@dataclass(frozen=True)
class EventTargets:
    """The events of each window. In a window without an event, all weights are 0.

    Shapes: label, start and end int64 [N, M], both ends inclusive; weight float32 [N, M], which sums to 1 over the
    events of a window, in equal parts, and is 0 in rows that hold no event.
    """

    label: Tensor
    start: Tensor
    end: Tensor
    weight: Tensor
    num_classes: int
    lengths: tuple[int, int]
    """Shortest and longest event of the whole set, in bars."""

    @classmethod
    def of(cls, labels: EventLabels) -> EventTargets:
        """Return the targets of labels. Raises: ValueError if no window holds an event."""
        if len(labels.label) == 0:
            raise ValueError("an event detector needs events; all windows are labelled none")
        num_windows = len(labels.ohlc)
        count_N = np.bincount(labels.window, minlength=num_windows)
        place_E = np.arange(len(labels.window)) - (np.cumsum(count_N) - count_N)[labels.window]
        columns = {
            name: torch.zeros((num_windows, int(count_N.max())), dtype=torch.int64)
            for name in ("label", "start", "end")
        }
        weight_NM = torch.zeros((num_windows, int(count_N.max())))
        for name, column in columns.items():
            column[labels.window, place_E] = torch.as_tensor(getattr(labels, name), dtype=torch.int64)
        weight_NM[labels.window, place_E] = torch.as_tensor(1 / count_N[labels.window], dtype=torch.float32)
        bars_E = labels.end - labels.start + 1
        lengths = (int(bars_E.min()), int(bars_E.max()))
        return cls(**columns, weight=weight_NM, num_classes=len(labels.classes), lengths=lengths)

    def __len__(self) -> int:
        return len(self.label)

    def at(self, index: Tensor | np.ndarray) -> EventTargets:
        """Return the targets of some windows."""
        rows = torch.as_tensor(index)
        parts = (self.label[rows], self.start[rows], self.end[rows], self.weight[rows])
        return EventTargets(*parts, self.num_classes, self.lengths)

    def to(self, device: str) -> EventTargets:
        """Return the targets on a device."""
        label, start, end, weight = (column.to(device) for column in (self.label, self.start, self.end, self.weight))
        return EventTargets(label, start, end, weight, self.num_classes, self.lengths)

    @property
    def max_events(self) -> int:
        """Most events of a window of the whole set."""
        return self.label.shape[1]

    @property
    def has_event(self) -> Tensor:
        """Whether each window holds an event. Shapes: bool [N]."""
        return self.weight.sum(1) > 0

    def events(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return one row for each event: its window, class, first and last step. Shapes: int64 [E] each."""
        window_E, place_E = torch.nonzero(self.weight, as_tuple=True)
        label_E, start_E, end_E = (column[window_E, place_E] for column in (self.label, self.start, self.end))
        return window_E, label_E, start_E, end_E
