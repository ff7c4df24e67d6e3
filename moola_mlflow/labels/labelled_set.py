"""Labelled windows with one event each: class, span and prices."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

LENGTH = 105


@dataclass(frozen=True, eq=False)
class LabelledSet:
    """Windows with their class and the span of their expansion, in the order of their file.

    Shapes: window_id text [N], ohlc float64 [N, T, 4] (open, high, low, close), label int64 [N] (index into
    ``classes``), start and end int64 [N] (both inclusive, 0 <= start < end < T), start_ns and end_ns int64 [N] or None,
    instrument text [N] or None.
    Units: raw prices. start_ns and end_ns are the starts of the window's first and last bar, in ns since 1970 UTC.
    """

    window_id: np.ndarray
    ohlc: np.ndarray
    label: np.ndarray
    classes: tuple[str, ...]
    """Sorted."""
    start: np.ndarray
    end: np.ndarray
    start_ns: np.ndarray | None = None
    end_ns: np.ndarray | None = None
    instrument: np.ndarray | None = None
    weak: bool = False
    """Whether a rule made these labels, not a person."""
    sha256: str = ""
    """Hash of the content. It does not depend on the file."""
    path: Path | str = ""
    rule: str = ""
    """Version of the rule that made weak labels."""
    bars_sha256: str = ""
    """Content hash of the bars that weak labels were made from."""
    warnings: tuple[str, ...] = ()
    """What a user of this set should know."""
    joined: tuple[str, ...] = ()
    """The files that were joined, each with its number of windows; empty for a single file."""

    def __len__(self) -> int:
        return len(self.window_id)

    def counts(self) -> dict[str, int]:
        """Return the number of windows of each class."""
        return dict(zip(self.classes, np.bincount(self.label, minlength=len(self.classes)).tolist(), strict=True))


def content_sha256(labels: LabelledSet) -> str:
    """Return the hash of a set: its windows, its labels, and whether a rule made them."""
    names = {"id": labels.window_id.tolist(), "label": [labels.classes[k] for k in labels.label.tolist()]}
    if labels.instrument is not None:
        names["instrument"] = labels.instrument.tolist()
    digest = hashlib.sha256(json.dumps([names, labels.weak, list(labels.ohlc.shape)]).encode())
    digest.update(np.ascontiguousarray(labels.ohlc + 0.0, "<f8").data)  # -0.0 and 0.0 are one price
    for array in (labels.start, labels.end, labels.start_ns, labels.end_ns):
        digest.update(b"-" if array is None else np.ascontiguousarray(array, "<i8").data)
    return digest.hexdigest()
