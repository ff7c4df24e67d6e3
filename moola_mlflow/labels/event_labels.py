"""Windows that somebody looked at, and the events in each: none, one or several."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from moola_mlflow.bars import utc
from moola_mlflow.core import UserError
from moola_mlflow.labels.columns import NONE
from moola_mlflow.labels.labelled_set import LabelledSet, content_sha256


@dataclass(frozen=True, eq=False)
class EventLabels:
    """Windows that somebody looked at and the events in each. A window may hold none, one or several.

    Shapes: N windows of T bars, E events, R rows. window_id text [N], ohlc float64 [N, T, 4] (open, high, low, close),
    window int64 [E] (index of the event's window, not decreasing), label int64 [E] (index into ``classes``), start and
    end int64 [E] (both inclusive, 0 <= start < end < T; events of one window share no bar and are in order of time),
    start_ns and end_ns int64 [N] or None, instrument and drawn text [N] or None, extra [R rows] or None.
    Units: raw prices. start_ns and end_ns are the starts of the window's first and last bar, in ns since 1970 UTC.
    """

    window_id: np.ndarray
    ohlc: np.ndarray
    classes: tuple[str, ...]
    """Sorted, without ``none``."""
    window: np.ndarray
    label: np.ndarray
    start: np.ndarray
    end: np.ndarray
    start_ns: np.ndarray | None = None
    end_ns: np.ndarray | None = None
    instrument: np.ndarray | None = None
    drawn: np.ndarray | None = None
    """How each window was chosen (random, uncertain, top, listed), '' if unknown."""
    weak: bool = False
    """Whether a rule made these labels, not a person."""
    sha256: str = ""
    """Hash of the content, '' if it was not computed. It does not depend on the file."""
    path: Path | str = ""
    rule: str = ""
    """Version of the rule that made weak labels."""
    bars_sha256: str = ""
    """Content hash of the bars that the windows were cut from."""
    warnings: tuple[str, ...] = ()
    """What a user of these labels should know."""
    extra: pa.Table | None = None
    """Columns of the file that no training reads, such as grade and annotator: one row for each of ``row_window``."""
    joined: tuple[str, ...] = ()
    """The files that were joined, each with its number of windows; empty for a single file."""

    def __post_init__(self) -> None:
        assert len(self.window) == len(self.label) == len(self.start) == len(self.end)
        assert (np.diff(self.window) >= 0).all()
        assert NONE not in self.classes
        assert self.extra is None or self.extra.num_rows == len(self.row_window())

    @classmethod
    def of(cls, labels: LabelledSet) -> EventLabels:
        """Return a labelled set as windows with one event each. The hash stays."""
        return cls(
            labels.window_id, labels.ohlc, labels.classes, np.arange(len(labels)), labels.label, labels.start,
            labels.end, labels.start_ns, labels.end_ns, labels.instrument, None, labels.weak, labels.sha256,
            labels.path, labels.rule, labels.bars_sha256, labels.warnings, joined=labels.joined,
        )  # fmt: skip

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.window_id)

    @property
    def num_events(self) -> int:
        return len(self.window)

    def events_per_window(self) -> np.ndarray:
        """Return the number of events in each window. Shapes: int64 [N]."""
        return np.bincount(self.window, minlength=len(self)).astype(np.int64)

    def drawn_at_random(self) -> np.ndarray:
        """Return whether each window was drawn without a query, as far as the labels say. Shapes: bool [N]."""
        return np.ones(len(self), bool) if self.drawn is None else np.isin(self.drawn, ["random", "listed", ""])

    def scored_windows(self) -> np.ndarray:
        """Return whether each window counts in a score, a calibration or a threshold. Shapes: bool [N].

        Windows that a query chose are harder or easier than those that a scan meets. They count only if no window was
        drawn at random.
        """
        at_random = self.drawn_at_random()
        return at_random if at_random.any() else np.ones(len(self), bool)

    def counts(self) -> dict[str, int]:
        """Return the number of events of each class and, as ``none``, of windows without an event."""
        events = np.bincount(self.label, minlength=len(self.classes)).tolist()
        empty = int((self.events_per_window() == 0).sum())
        return {**dict(zip(self.classes, events, strict=True)), NONE: empty}

    def row_window(self) -> np.ndarray:
        """Return the window of each row of a file. A window has a row for each event, or one row if it has none.

        Shapes: int64 [R].
        """
        return np.repeat(np.arange(len(self)), np.maximum(self.events_per_window(), 1))

    def row_event(self) -> np.ndarray:
        """Return the event of each row of a file, -1 for a window without one. Shapes: int64 [R]."""
        empty_R = (self.events_per_window() == 0)[self.row_window()]
        return np.where(empty_R, -1, np.cumsum(~empty_R) - 1)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each event, and one for each window without an event, as text and numbers."""
        rows = []
        for i, k in zip(self.row_window().tolist(), self.row_event().tolist(), strict=True):
            row: dict[str, Any] = {
                "window_id": str(self.window_id[i]),
                "label": NONE if k < 0 else self.classes[self.label[k]],
                "expansion_start": None if k < 0 else int(self.start[k]),
                "expansion_end": None if k < 0 else int(self.end[k]),
            }
            if self.start_ns is not None and self.end_ns is not None:
                row |= {"start_time": utc(int(self.start_ns[i])), "end_time": utc(int(self.end_ns[i]))}
            rows.append(row)
        return rows

    def select(self, index: Sequence[int] | np.ndarray) -> EventLabels:
        """Return some of the windows, in the order of the index, with their events. The classes stay, the hash goes.

        Shapes: int64 [M] -> M windows. An index may repeat.
        """
        index = np.asarray(index, np.int64).reshape(-1)
        events_M, event_K = _of_windows(self.window, index)
        _, row_K = _of_windows(self.row_window(), index)

        def some(array: np.ndarray | None) -> np.ndarray | None:
            return None if array is None else array[index]

        return replace(
            self,
            window_id=self.window_id[index],
            ohlc=self.ohlc[index],
            window=np.repeat(np.arange(len(index)), events_M),
            label=self.label[event_K],
            start=self.start[event_K],
            end=self.end[event_K],
            start_ns=some(self.start_ns),
            end_ns=some(self.end_ns),
            instrument=some(self.instrument),
            drawn=some(self.drawn),
            sha256="",
            extra=None if self.extra is None else self.extra.take(pa.array(row_K)),
        )

    def spans(self) -> LabelledSet:
        """Return the windows with exactly one event, which a detector without a none class can learn from.

        A warning of the result says how many windows are left out.

        Raises: UserError if the windows that are left hold fewer than two classes.
        """
        num_N = self.events_per_window()
        kept = self.select(np.flatnonzero(num_N == 1))
        present, label = np.unique(kept.label, return_inverse=True)
        classes = tuple(self.classes[k] for k in present.tolist())
        if len(classes) < 2:
            raise UserError(
                f"labels: {self.path}: {len(kept):,} of {len(self):,} windows hold exactly one event, of the classes: "
                f"{', '.join(classes) or 'none'}; a span detector needs two classes or more among them"
            )
        warnings = self.warnings
        if len(kept) < len(self):
            warnings = (
                *warnings,
                f"{(num_N == 0).sum():,} windows without an event and {(num_N > 1).sum():,} with several were left "
                f"out: {len(kept):,} windows with exactly one event are used.",
            )
        labels = LabelledSet(
            kept.window_id, kept.ohlc, label.astype(np.int64), classes, kept.start, kept.end, kept.start_ns,
            kept.end_ns, kept.instrument, self.weak, "", self.path, self.rule, self.bars_sha256, warnings, self.joined,
        )  # fmt: skip
        return replace(labels, sha256=content_sha256(labels))


def events_sha256(labels: EventLabels) -> str:
    """Return the hash of the content: windows, events, how windows were drawn, and whether a rule made the labels.

    Windows with one event each, drawn in no known way, have the hash that they have as a LabelledSet.
    """
    once = labels.num_events == len(labels) and bool((labels.events_per_window() == 1).all())
    if once and labels.drawn is None:
        return content_sha256(
            LabelledSet(
                labels.window_id, labels.ohlc, labels.label, labels.classes, labels.start, labels.end,
                labels.start_ns, labels.end_ns, labels.instrument, labels.weak,
            )
        )  # fmt: skip
    texts = {
        "id": labels.window_id.tolist(),
        "label": [labels.classes[k] for k in labels.label.tolist()],
        "instrument": None if labels.instrument is None else labels.instrument.tolist(),
        "drawn": None if labels.drawn is None else labels.drawn.tolist(),
    }
    digest = hashlib.sha256(json.dumps(["events", texts, labels.weak, list(labels.ohlc.shape)]).encode())
    digest.update(np.ascontiguousarray(labels.ohlc + 0.0, "<f8").data)  # -0.0 and 0.0 are one price
    for array in (labels.window, labels.start, labels.end, labels.start_ns, labels.end_ns):
        digest.update(b"-" if array is None else np.ascontiguousarray(array, "<i8").data)
    return digest.hexdigest()


def _of_windows(window_K: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many items each chosen window has, and their positions. ``window_K`` does not decrease.

    Shapes: int64 [K], [M] -> int64 [M], [sum of the counts].
    """
    first_M = np.searchsorted(window_K, index, "left")
    num_M = np.searchsorted(window_K, index, "right") - first_M
    offset = np.arange(num_M.sum()) - np.repeat(np.cumsum(num_M) - num_M, num_M)
    return num_M, np.repeat(first_M, num_M) + offset
