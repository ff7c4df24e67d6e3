"""Describe labelled windows: tables of what a set holds, what to check, and a page with charts of the windows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from moola_mlflow.bars import length_text, utc
from moola_mlflow.core import markdown_code, markdown_text, metric_name
from moola_mlflow.labels import NONE, EventLabels, bar_minutes, overlap_groups
from moola_mlflow.reports.document import Document, Heading, Items, Notice, Para, Table
from moola_mlflow.reports.plots.candles import clock
from moola_mlflow.reports.plots.interactive import WindowPicture, windows_chart
from moola_mlflow.reports.touchable import ROOM, Plot, touch_page, window_bytes
from moola_mlflow.reports.window_pictures import labelled_picture
from moola_mlflow.tracking import Metrics

MOST_OVERLAP = 5000
"""Windows up to which overlap is looked for: the search over equal bars needs memory."""
WEAK = "These labels are WEAK: a rule made them from prices, and nobody has looked at them."
NO_REJECTS = (
    "Every window holds an event. A detector cannot learn from them what a window without an event looks like; label "
    "windows drawn at random too, and keep those without an event as `none`."
)
CLASS_HEADERS = ("class", "events", "share", "span: min / median / max")


@dataclass(frozen=True)
class _Group:
    """Windows of one class, of several, or without an event, and those of them that get a chart."""

    name: str
    members: list[int]
    pictures: list[WindowPicture]

    @property
    def title(self) -> str:
        num, shown = len(self.members), len(self.pictures)
        return f"Charts: {self.name} ({f'{shown:,} of {num:,}' if shown < num else num})"

    @property
    def num_bytes(self) -> int:
        """Size of the charts in a page. A chart holds its first window twice."""
        sizes = [window_bytes(picture) for picture in self.pictures]
        return sum(sizes) + sizes[0]


@dataclass(frozen=True)
class LabelsReport:
    """Labelled windows, and how many of them get a chart."""

    labels: EventLabels
    charts: int

    @property
    def kept(self) -> float:
        """Share of the windows that hold an event."""
        return float((self.labels.events_per_window() > 0).mean())

    def summary(self) -> str:
        """Return what the set holds in one line."""
        labels = self.labels
        counts = ", ".join(f"{num:,} {name}" for name, num in labels.counts().items() if name != NONE)
        return (
            f"{len(labels):,} windows looked at, {labels.num_events:,} events ({counts or 'no class'}); "
            f"{self.kept:.0%} of the windows hold one, {labels.counts()[NONE]:,} hold none"
        )

    def metrics(self) -> dict[str, float]:
        """Return the figures of the run."""
        counts = {f"{Metrics.LABELS}{metric_name(name)}": float(num) for name, num in self.labels.counts().items()}
        return {
            **counts,
            Metrics.LABELS_WINDOWS: len(self.labels),
            Metrics.LABELS_EVENTS: self.labels.num_events,
            Metrics.LABELS_KEPT: self.kept,
        }

    def class_rows(self) -> list[tuple[str, ...]]:
        """Return a row for each class: its events, their share, and the shortest, median and longest span in bars."""
        labels = self.labels
        length = labels.end - labels.start + 1
        rows: list[tuple[str, ...]] = []
        for k, name in enumerate(labels.classes):
            mine = length[labels.label == k]
            spread = f"{mine.min()} / {np.median(mine):g} / {mine.max()}" if len(mine) else ""
            rows.append((name, f"{len(mine):,}", f"{len(mine) / max(1, labels.num_events):.0%}", spread))
        return rows

    @cached_property
    def facts(self) -> list[tuple[str, ...]]:
        """Return what else is known of the windows, a name and a text each."""
        labels, per_window = self.labels, self.labels.events_per_window()
        several = ", ".join(f"{num:,} with {k}" for k, num in sorted(Counter(per_window.tolist()).items()))
        facts: list[tuple[str, ...]] = [("windows by events", several)]
        if labels.start_ns is not None and labels.end_ns is not None:
            facts.append(("times", f"{utc(int(labels.start_ns.min()))} to {utc(int(labels.end_ns.max()))}"))
            facts.append(("bars", f"{labels.ohlc.shape[1]} a window, of {length_text(bar_minutes(labels))}"))
        facts += _counted("instrument", None if labels.instrument is None else labels.instrument.tolist())
        facts += _counted("drawn", None if labels.drawn is None else labels.drawn.tolist())
        for name in ("annotator", "grade", "source", "suggested"):
            facts += _counted(name, self._column(name))
        if labelled := sorted(str(time) for time in self._column("labelled_at") or [] if time is not None):
            facts.append(("labelled", f"{labelled[0]} to {labelled[-1]}"))
        seconds = pd.to_numeric(pd.Series(self._column("seconds") or []), errors="coerce").dropna()
        if len(seconds):
            facts.append(("seconds", f"median {seconds.median():g}, in all {seconds.sum() / 60:,.0f} minutes"))
        return [*facts, ("content SHA-256", labels.sha256)]

    def cautions(self) -> list[str]:
        """Return what a reader should check before a detector learns from these labels."""
        labels, counts = self.labels, self.labels.counts()
        said = [WEAK] if labels.weak else []
        if labels.num_events and not counts[NONE]:
            said.append(NO_REJECTS)
        said += [
            f"Class {name} has {counts[name]} events; five folds need 10 or more." for name in labels.classes
            if counts[name] < 10
        ]  # fmt: skip
        if labels.start_ns is None:
            said.append("The windows have no times: overlap is looked for in equal prices, and no embargo is kept.")
        if len(labels) <= MOST_OVERLAP:
            num = len(labels) - len(np.unique(overlap_groups(labels)))
            if num:
                said.append(
                    f"{num:,} windows overlap another one. Cross-validation keeps those on one side of a split."
                )
        return [*said, *labels.warnings]

    def note(self) -> str:
        """Return the Markdown note of the run: the result first."""
        cautions = "".join(f"\n- {markdown_text(text)}" for text in self.cautions())
        return (
            f"**{markdown_text(self.summary())}.**\n\nLabels {markdown_code(self.labels.path)}, content SHA-256 "
            f"`{self.labels.sha256}`. Open the artifact `labels.html`: charts of the windows by class.\n{cautions}\n"
        )

    def html(self) -> str:
        """Return a page that needs no other file: tables, what to check, and charts of the windows by class."""
        labels = self.labels
        groups = self._groups()
        num_shown = sum(len(group.pictures) for group in groups)
        document = Document(f"Labels: {labels.path}")
        document.add(*(Notice(text, "warn") for text in self.cautions()), Para(f"{self.summary()}."))
        document.add(
            Heading("Classes"), Table(["class", "events", "share", "span: min / median / max"], self.class_rows())
        )
        document.add(Heading("Windows"), Table(["", ""], self.facts))
        if labels.joined:
            document.add(Heading("Files"), Items(labels.joined))
        if num_shown < len(labels):
            document.add(
                Para(
                    f"Charts show {num_shown:,} of {len(labels):,} windows, spread over each group: at most "
                    f"labels.charts={self.charts}, and as many as a page of 6 MB holds."
                )
            )
        document.add(*(Heading(group.title) for group in groups))
        counts = [
            (f"{len(labels):,}", "windows looked at"),
            (f"{labels.num_events:,}", "events"),
            (f"{self.kept:.0%}", "of the windows hold an event"),
        ]
        return touch_page(document, [Plot(group.title, windows_chart(group.pictures)) for group in groups], counts)

    def _groups(self) -> list[_Group]:
        """Return the windows by what they hold, each group with as many charts as are asked for and as a page holds."""
        members: dict[str, list[int]] = {}
        for i, names in enumerate(self._held):
            title = NONE if not names else names[0] if len(names) == 1 else "several events"
            members.setdefault(title, []).append(i)
        order = [name for name in (*self.labels.classes, "several events", NONE) if name in members]
        share = min(1.0, self.charts / max(1, len(self.labels)))
        while True:
            groups = [
                _Group(name, members[name], [self._picture(i) for i in _spread(members[name], share)]) for name in order
            ]
            size = sum(group.num_bytes for group in groups)
            if size <= ROOM or all(len(group.pictures) == 1 for group in groups):
                return groups
            share *= 0.95 * ROOM / size

    def _picture(self, i: int) -> WindowPicture:
        labels = self.labels
        mine = np.flatnonzero(labels.window == i).tolist()
        events = [f"{labels.classes[labels.label[k]]} in bars {labels.start[k]} to {labels.end[k]}" for k in mine]
        title = f"{labels.window_id[i]}: {', '.join(events) or NONE}"
        if labels.start_ns is not None and labels.end_ns is not None:
            title += f", {utc(int(labels.start_ns[i]))} to {clock(int(labels.end_ns[i]))}"
        return labelled_picture(labels, i, title)

    @cached_property
    def _held(self) -> list[list[str]]:
        """The classes that each window holds, each once."""
        held: list[list[str]] = [[] for _ in range(len(self.labels))]
        for window, k in zip(self.labels.window.tolist(), self.labels.label.tolist(), strict=True):
            if self.labels.classes[k] not in held[window]:
                held[window].append(self.labels.classes[k])
        return held

    def _column(self, name: str) -> list[Any] | None:
        extra = self.labels.extra
        return extra[name].to_pylist() if extra is not None and name in extra.column_names else None


def _counted(name: str, values: Sequence[Any] | None) -> list[tuple[str, ...]]:
    """Return one fact: how often each value occurs, the most frequent first; nothing if no value is known."""
    known = [value for value in values or [] if value not in (None, "")]
    if not known:
        return []
    common = Counter(map(str, known)).most_common(8)
    texts = [f"{num:,} {value}" for value, num in common]
    missing = len(values or []) - len(known)
    return [(name, ", ".join([*texts, *([f"{missing:,} unknown"] if missing else [])]))]


def _spread(members: list[int], share: float) -> list[int]:
    """Return a share of a list, evenly spread over it, one at least."""
    num = max(1, int(share * len(members)))
    return [members[k] for k in np.unique(np.linspace(0, len(members) - 1, num).astype(int)).tolist()]
