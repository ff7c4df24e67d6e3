"""Describe the hits of a scan: figures and note of the run, and a page with charts of the best hits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from moola_mlflow.bars import Bars, length_text
from moola_mlflow.core import DetectKeys, markdown_code, markdown_text, metric_name
from moola_mlflow.evaluation import Gate, detector_gates, gates_table, missed_gates
from moola_mlflow.models import EventDetector, PatternDetector, Scan, learned_minutes, members_of
from moola_mlflow.reports.document import Document, Heading, Notice, Para, Strong, Table, Text
from moola_mlflow.reports.plots.candles import class_color
from moola_mlflow.reports.plots.interactive import ShownSpan, WindowPicture, windows_chart
from moola_mlflow.reports.plots.overview import OverviewPicture
from moola_mlflow.reports.plots.png import Drawable, draw_all
from moola_mlflow.reports.touchable import MOST_WINDOWS, Plot, touch_page
from moola_mlflow.reports.window_pictures import picture_of
from moola_mlflow.tracking import Artifacts, Metrics

NO_EMPTY_CLASS = (
    "The detector names one of its classes in every window, also in one without a pattern. It learned from windows "
    "that all hold one. Its probability says which class it is, given that a pattern is there. Only the thresholds "
    "decide whether one is there."
)
HINDSIGHT = "A hit is hindsight. The window holds bars after the span, and the detector reads the class from them too."
WEAK = "The labels are WEAK: a rule made them from prices. A hit says that the rule's pattern is there, nothing more."
NO_HIT = "No hit passes the thresholds. Lower detect.min_probability or detect.min_span_score."


@dataclass(frozen=True)
class DetectionsReport:
    """A scan with the detector that made it."""

    scan: Scan
    table: pd.DataFrame
    detector: PatternDetector
    uri: str
    """The version that read the bars, or the folder."""
    config: DetectKeys

    @classmethod
    def of(cls, scan: Scan, detector: PatternDetector, uri: str, config: DetectKeys) -> DetectionsReport:
        """Return the report of a scan, with the table of its hits."""
        return cls(scan, scan.table(), detector, uri, config)

    @property
    def share_above(self) -> float:
        """Share of the windows whose hit passes the thresholds."""
        return float(self.scan.above.mean())

    def gates(self) -> list[Gate]:
        """Return the gates of the detector, from the evidence on its card."""
        return detector_gates(self.detector.card.get("evidence"), self.config.gates)

    def counts(self) -> dict[str, int]:
        """Return the number of hits of each class."""
        return {name: int((self.table["label"] == name).sum()) for name in self.detector.classes}

    def metrics(self, seconds: float) -> dict[str, float]:
        """Return the figures of the run."""
        num_windows, num_bars = len(self.scan.windows), len(self.scan.windows.bars)
        hits = {f"{Metrics.HITS}{metric_name(name)}": float(n) for name, n in self.counts().items()}
        return {
            Metrics.DETECT_HITS: len(self.table),
            **hits,
            Metrics.DETECT_WINDOWS: num_windows,
            Metrics.DETECT_WINDOWS_ABOVE: int(self.scan.above.sum()),
            Metrics.DETECT_SHARE_ABOVE: self.share_above,
            Metrics.DETECT_BARS: num_bars,
            Metrics.DETECT_BARS_SEEN: self.scan.num_bars_seen,
            Metrics.DETECT_SECONDS: seconds,
            Metrics.DETECT_WINDOWS_PER_SECOND: num_windows / seconds,
            Metrics.DETECT_BARS_PER_SECOND: num_bars / seconds,
        }

    def summary(self) -> str:
        """Return the result in one line."""
        counts = ", ".join(f"{n:,} {name}" for name, n in self.counts().items())
        return f"{len(self.table):,} hits ({counts}) in {len(self.scan.windows.bars):,} bars"

    def scanned(self) -> str:
        """Return what was read and how many windows pass the thresholds."""
        scan, options = self.scan, self.config.detect
        left = len(scan.windows.bars) - scan.num_bars_seen
        short = f" {left:,} bars were not read: their segments are shorter than a window." if left else ""
        return (
            f"The detector read {len(scan.windows):,} windows of {scan.windows.length} bars, one every "
            f"{options.stride} bars. In {scan.above.sum():,} of them ({self.share_above:.0%}) the hit passes the "
            f"thresholds: probability at least {options.min_probability:g}, span score at least "
            f"{options.min_span_score:g}, {options.margin} bars on either side. Of hits that share a bar, only the "
            f"most probable one is kept.{short}"
        )

    def cautions(self) -> list[str]:
        """Return what the reader must know about the hits."""
        weak = [WEAK] if (self.detector.card.get("labels") or {}).get("weak") else []
        return [NO_EMPTY_CLASS, *weak, HINDSIGHT, *self._known_bars]

    @cached_property
    def _known_bars(self) -> list[str]:
        return known_bars(self.detector, self.scan.windows.bars)

    def note(self, seconds: float) -> str:
        """Return the Markdown note of the run: the result first."""
        missed = missed_gates(self.gates())
        passed = "all gates met" if not missed else f"gates missed: {markdown_text('; '.join(missed))}"
        cautions = "\n".join(f"- {markdown_text(text)}" for text in self.cautions())
        return (
            f"**{markdown_text(self.summary())}.**\n\n{markdown_text(self.scanned())}\n\n{cautions}\n\n"
            f"Detector {markdown_code(self.uri)}: {markdown_text(self._headline())} ({passed}). Bars "
            f"{markdown_code(self.config.bars.path)}. {len(self.scan.windows) / seconds:,.0f} windows a second.\n\n"
            "Open the artifacts `detections.html` (charts of the best hits) and `detections.parquet` (all hits).\n"
        )

    def html(self) -> str:
        """Return a page that needs no other file: the detector and its evidence, charts of the best hits, a table."""
        best = self.best()
        counts = [
            (f"{len(self.table):,}", "hits"),
            *((f"{n:,}", name) for name, n in self.counts().items()),
            (f"{self.share_above:.0%}", f"of {len(self.scan.windows):,} windows above the thresholds"),
            (f"{len(self.scan.windows.bars):,}", "bars"),
        ]
        shown = min(len(best), MOST_WINDOWS)
        fewer = shown < len(self.table)
        which = f"the {shown:,} most probable of {len(self.table):,}" if fewer else "all hits"
        charts_title = f"Charts: {which}" if len(best) else "Charts"
        document = Document(f"Detections: {self._source()}")
        checked = self.gates()
        if missed := missed_gates(checked):
            document.add(Notice(f"The detector misses {len(missed)} of its {len(checked)} gates, listed below.", "bad"))
        document.add(*(Notice(text, "warn") for text in self.cautions()), Para(self.scanned()), Heading(charts_title))
        if len(best):
            document.add(Heading("Table"), _hit_table(best))
        else:
            document.add(Para(NO_HIT))
        rows = origin_rows(self.detector, self.config.bars.path, self.scan.windows.bars)
        rows.insert(-1, ("temperature", f"{self.detector.temperature:.3f}"))
        document.add(Heading("Detector"), Table(["detector", self.uri], rows), gate_table(checked))
        return touch_page(document, [Plot(charts_title, windows_chart(self.pictures()))] if len(best) else [], counts)

    def pictures(self) -> tuple[WindowPicture, ...]:
        """Return the windows of the best hits, the most probable first."""
        best = self.best().head(MOST_WINDOWS)
        return tuple(self._picture(int(self.scan.kept[row]), hit) for row, hit in best.iterrows())  # type: ignore[call-overload]

    def _picture(self, window: int, hit: pd.Series) -> WindowPicture:
        windows, name = self.scan.windows, str(hit["label"])
        ends = int(hit["expansion_start"]), int(hit["expansion_end"])
        span = ShownSpan(*ends, name, class_color(self.detector.classes, name))
        more = [f"{hit['probability']:.1%}"]
        if pd.notna(hit["span_score"]):
            more.append(f"span score {hit['span_score']:.2f}")
        more.append(f"{hit['num_windows']} window{'s' if hit['num_windows'] > 1 else ''}")
        title = f"{name}, {', '.join(more)}, {hit['instrument']}, {_when(hit)} UTC"
        return picture_of(windows.bars, int(windows.starts[window]), windows.length, title, [span])

    def files(self) -> dict[str, Callable[[Path], object]]:
        """Return what writes each further file of the results: there is none."""
        return {}

    @cached_property
    def drawn(self) -> dict[str, Future[bytes]]:
        """PNG files of the run's pictures by their names. A worker draws them from the first time that one asks."""
        return draw_all(self.drawables())

    def drawables(self) -> dict[str, Drawable]:
        """Return the pictures of the run by their names: the prices with every hit, and all probabilities."""
        bars = self.scan.windows.bars
        overview = OverviewPicture.of(
            bars.ohlc[:, 3], bars.time_ns, *self.scan.rows(self.scan.kept), self.table["label"].tolist(),
            self.scan.confidence(), self.config.detect.min_probability, self.detector.classes,
        )  # fmt: skip
        return {Artifacts.DETECTIONS_FIGURE: overview}

    def best(self) -> pd.DataFrame:
        """Return the rows that the page shows, the most probable first."""
        order = ["probability", "span_score", "start"]
        sorted_rows = self.table.sort_values(order, ascending=[False, False, True], kind="stable")
        return sorted_rows.head(self.config.detect.top)

    def _source(self) -> str:
        names = sorted(set(self.scan.windows.bars.symbols.values()))
        listed = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        return f"{self.config.bars.path} ({listed})"

    def _headline(self) -> str:
        return str(self.detector.card.get("headline") or "its card holds no headline")


def origin_rows(detector: PatternDetector | EventDetector, path: str, bars: Bars) -> list[tuple[str, str]]:
    """Return what the card of a detector says of its origin, and the bars that it read last."""
    card, labels = detector.card, detector.card.get("labels") or {}
    kind = "weak (made by a rule)" if labels.get("weak") else "as given"
    counts = ", ".join(f"{n} {name}" for name, n in (labels.get("counts") or {}).items())
    times = f", {labels['labelled_from']} to {labels['labelled_until']}" if "labelled_from" in labels else ""
    encoders = ", ".join(str(encoder.get("uri")) for encoder in card.get("encoders") or []) or "none"
    return [
        ("model", str(card.get("model_id", "unknown"))),
        ("evidence", str(card.get("headline") or "its card holds no headline")),
        ("labels", f"{labels.get('num', '?')} {kind}: {counts}{times}" if labels else "unknown"),
        ("encoder", encoders),
        ("bars", f"{path}, content SHA-256 {bars.sha256}"),
    ]


def known_bars(detector: PatternDetector | EventDetector, bars: Bars) -> list[str]:
    """Return a warning for each part of the detector that was made from these bars."""
    encoders = members_of(detector.encoder) if detector.encoder is not None else []
    known = any(encoder.card.get("data", {}).get("sha256") == bars.sha256 for encoder in encoders)
    said = ["An encoder of this detector was trained on these very bars: hits on unseen bars may be fewer."] * known
    labels = detector.card.get("labels") or {}
    if (minutes := learned_minutes(detector.card)) != bars.minutes:
        said.append(
            f"The detector learned from bars of {length_text(minutes)}, and these have {length_text(bars.minutes)}: "
            "its scores are not tested on them."
        )
    if labels.get("bars_sha256") == bars.sha256:
        return [*said, "The detector's labels were cut from these very bars: it may know what it finds."]
    sample = "sample" in (str(labels.get("path")), str(bars.files[0].path))
    if "labelled_from" in labels and not sample:
        ends = (np.datetime64(str(labels[key]).rstrip("Z"), "ns") for key in ("labelled_from", "labelled_until"))
        first, last = (int(end.astype(np.int64)) for end in ends)
        share = float(((bars.time_ns >= first) & (bars.time_ns <= last)).mean())
        if share > 0:
            said.append(f"{share:.0%} of these bars lie in the time that the detector's labels come from.")
    return said


def _hit_table(best: pd.DataFrame) -> Table:
    rows = [
        (
            str(rank), hit["instrument"], _when(hit), hit["label"], f"{hit['probability']:.4f}",
            "" if pd.isna(hit["span_score"]) else f"{hit['span_score']:.3f}", str(hit["num_windows"]),
            f"{hit['window_start']:%Y-%m-%d %H:%M} to {hit['window_end']:%H:%M}",
        )
        for rank, (_, hit) in enumerate(best.iterrows(), 1)
    ]  # fmt: skip
    headers = ["", "instrument", "span (UTC)", "label", "probability", "span score", "windows", "window (UTC)"]
    return Table(headers, rows)


def gate_table(checked: Sequence[Gate]) -> Table:
    """Return the gates as a table."""

    def cells(row: dict[str, Any]) -> tuple[Text, ...]:
        value = "missing" if row["value"] is None else f"{row['value']:.4g}"
        return row["gate"], value, row["needed"], Strong("yes" if row["passed"] else "no", row["passed"])

    return Table(["gate", "value", "needed", "met"], [cells(row) for row in gates_table(checked)])


def _when(hit: pd.Series) -> str:
    return f"{hit['start']:%Y-%m-%d %H:%M} to {hit['end']:%H:%M}"
