"""Windows with none, one and two events, for tests of labels files, their page and their other forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from small_labels import small_labels

from moola_mlflow.labels import EventLabels


def some_events(seed: int = 0, **columns: Any) -> EventLabels:
    """Return ten windows of one instrument: four without an event, four with one, two with two, of two classes."""
    base = small_labels(num=10, seed=seed)
    window = np.array([0, 2, 3, 3, 5, 6, 8, 8])
    labels = EventLabels(
        base.window_id, base.ohlc, ("fall", "rise"), window, np.array([0, 0, 1, 0, 1, 0, 1, 0]),
        np.array([40, 25, 30, 60, 41, 70, 22, 55]), np.array([46, 30, 39, 66, 45, 75, 30, 59]), base.start_ns,
        base.end_ns, np.array(["ES"] * 10), np.array(["random"] * 5 + ["uncertain"] * 5),
        extra=pa.table({
            "grade": ["A", "D", "B", "B", "C", "D", "A", "A", "D", "B", "C", "D"],
            "annotator": ["ann"] * 7 + ["bob"] * 5,
            "seconds": np.arange(12) + 0.5,
        }),
    )  # fmt: skip
    return labels
