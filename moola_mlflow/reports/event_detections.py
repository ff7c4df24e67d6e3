"""Describe the events of a scan: figures and note of the run, and a page with charts of the best events."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from moola_mlflow.core import DetectKeys, markdown_code, markdown_text, metric_name, result_of
from moola_mlflow.evaluation import (
    AfterEvents,
    Gate,
    detector_gates,
    events_with_moves,
    follow_events,
    missed_gates,
)
from moola_mlflow.models import EventDetector, EventScan, chosen_threshold, event_signals, instrument_names
from moola_mlflow.reports.after_events import after_blocks
from moola_mlflow.reports.detections import WEAK, gate_table, known_bars, origin_rows
from moola_mlflow.reports.document import Document, Heading, Notice, Para, Table
from moola_mlflow.reports.plots.after_events import AfterPicture
from moola_mlflow.reports.plots.candles import class_color
from moola_mlflow.reports.plots.interactive import ShownSpan, WindowPicture, windows_chart
from moola_mlflow.reports.plots.overview import OverviewPicture
from moola_mlflow.reports.plots.png import Drawable, draw_all
from moola_mlflow.reports.touchable import MOST_WINDOWS, Plot, touch_page
from moola_mlflow.reports.window_pictures import picture_of
from moola_mlflow.tracking import Artifacts, Metrics

KNOWN_AT = (
    "The detector also reads the bars after an event, so nobody can know the event before known_at. In a backtest, use "
    "known_at as the time of the event."
)
EXPECTED = (
    "Expected precision and recall come from the calibrated scores, so the bars must be like the labelled ones. Even "
    "then the scores of a scan are usually too low: the precision is more often above the expected one than below it."
)
NO_EVENT = "No event has a score at or above the threshold. Lower it with detect.min_score or detect.precision."


@dataclass(frozen=True)
class EventDetectionsReport:
    """The events of a scan at a threshold, with the detector that found them."""

    scan: EventScan
    """The events at or above the threshold."""
    every: EventScan
    """All peaks of the maps, whatever their score."""
    table: pd.DataFrame
    detector: EventDetector
    uri: str
    """The version that read the bars, or the folder."""
    config: DetectKeys

    @classmethod
    def of(cls, every: EventScan, detector: EventDetector, uri: str, config: DetectKeys) -> EventDetectionsReport:
        """Return the report of a scan with every peak, at the threshold that the configuration asks for."""
        scan = every.at(chosen_threshold(every, detector, config.detect))
        return cls(scan, every, scan.table(), detector, uri, config)

    def gates(self) -> list[Gate]:
        """Return the gates of the detector, from the evidence on its card."""
        return detector_gates(self.detector.card.get("evidence"), self.config.gates)

    def counts(self) -> dict[str, int]:
        """Return the number of events of each class."""
        return {name: int((self.table["label"] == name).sum()) for name in self.detector.classes}

    @property
    def expected_precision(self) -> float:
        """Mean score of the events; NaN without one."""
        return float(self.scan.events.score.mean()) if len(self.table) else float("nan")

    @property
    def expected_recall(self) -> float:
        """Share of the right events that the threshold keeps, counted by their scores; NaN if there is no peak."""
        total = float(self.every.events.score.sum())
        return float(self.scan.events.score.sum()) / total if total > 0 else float("nan")

    def metrics(self, seconds: float) -> dict[str, float]:
        """Return the figures of the run; undefined ones are left out."""
        num_windows, num_bars = len(self.scan.windows), len(self.scan.windows.bars)
        found = {
            Metrics.DETECT_HITS: float(len(self.table)),
            **{f"{Metrics.HITS}{metric_name(name)}": float(n) for name, n in self.counts().items()},
            Metrics.DETECT_THRESHOLD: self.scan.threshold,
            Metrics.DETECT_EXPECTED_PRECISION: self.expected_precision,
            Metrics.DETECT_EXPECTED_RECALL: self.expected_recall,
            Metrics.DETECT_WINDOWS: num_windows,
            Metrics.DETECT_BARS: num_bars,
            Metrics.DETECT_SECONDS: seconds,
            Metrics.DETECT_WINDOWS_PER_SECOND: num_windows / seconds,
            Metrics.DETECT_BARS_PER_SECOND: num_bars / seconds,
        }
        return {name: value for name, value in found.items() if np.isfinite(value)}

    def summary(self) -> str:
        """Return the result in one line."""
        counts = ", ".join(f"{n:,} {name}" for name, n in self.counts().items())
        return f"{len(self.table):,} events ({counts}) in {len(self.scan.windows.bars):,} bars"

    def scanned(self) -> str:
        """Return what was read, the threshold, and what to expect at it."""
        scan = self.scan
        expected = ""
        if len(self.table):
            expected = (
                f" Expected there: precision {self.expected_precision:.2f}, recall {self.expected_recall:.2f} of the "
                "right events that the scan finds at any threshold."
            )
        return (
            f"The detector read {len(scan.windows):,} windows of {scan.windows.length} bars, one every "
            f"{self.config.detect.stride} bars, and averaged the probabilities of each bar. The threshold of the score "
            f"is {scan.threshold:.2f} ({self._why_threshold()}).{expected}"
        )

    def _why_threshold(self) -> str:
        options = self.config.detect
        if options.min_score is not None:
            return "detect.min_score"
        if options.precision is not None:
            return f"for an expected precision of {options.precision:g}"
        if options.max_per_day is not None:
            return f"for at most {options.max_per_day:g} events a day"
        return "the detector's own"

    def cautions(self) -> list[str]:
        """Return what the reader must know about the events."""
        weak = [WEAK] if (self.detector.card.get("labels") or {}).get("weak") else []
        return [*weak, KNOWN_AT, EXPECTED, *self._known_bars]

    @cached_property
    def after(self) -> AfterEvents:
        """What follows the events, and random moments."""
        return follow_events(self.scan, self.config.bars.max_gap_minutes, self.config.detect.clock)

    def files(self) -> dict[str, Callable[[Path], object]]:
        """Return what writes each further file of the results, by its name."""
        scan, gap = self.scan, self.config.bars.max_gap_minutes
        out: dict[str, Callable[[Path], object]] = {
            Artifacts.EVENTS_TABLE: lambda path: events_with_moves(scan, gap).to_parquet(path, index=False),
            Artifacts.AFTER_EVENTS: lambda path: self.after.table.to_csv(path, index=False),
        }
        if self.config.detect.signals:
            out[Artifacts.SIGNALS] = lambda path: self._signals().to_parquet(path)
        return out

    @cached_property
    def drawn(self) -> dict[str, Future[bytes]]:
        """PNG files of the run's pictures by their names. A worker draws them from the first time that one asks."""
        return draw_all(self.drawables())

    def drawables(self) -> dict[str, Drawable]:
        """Return the pictures of the run by their names: the prices with every event, and what follows events."""
        bars, events = self.scan.windows.bars, self.scan.events
        overview = OverviewPicture.of(
            bars.ohlc[:, 3], bars.time_ns, events.start, events.end, self.table["label"].tolist(),
            self.every.events.score, self.scan.threshold, self.detector.classes,
        )  # fmt: skip
        after = {Artifacts.AFTER_EVENTS_FIGURE: AfterPicture(self.after.table, self.after.classes)}
        return {Artifacts.DETECTIONS_FIGURE: overview, **(after if len(self.after.table) else {})}

    def _signals(self) -> pd.DataFrame:
        """Return the signals of all instruments, one behind another."""
        bars = self.scan.windows.bars
        if (np.diff(bars.time_ns) > 0).all():
            return event_signals(bars, self.table)
        names = instrument_names(bars).values()
        return pd.concat([event_signals(bars, self.table, name).assign(instrument=name) for name in names])

    @cached_property
    def _known_bars(self) -> list[str]:
        return known_bars(self.detector, self.scan.windows.bars)

    def note(self, seconds: float) -> str:
        """Return the Markdown note of the run: the result first."""
        missed = missed_gates(self.gates())
        passed = "all gates met" if not missed else f"gates missed: {markdown_text('; '.join(missed))}"
        cautions = "\n".join(f"- {markdown_text(text)}" for text in self.cautions())
        headline = str(self.detector.card.get("headline") or "its card holds no headline")
        return (
            f"**{markdown_text(self.summary())}.**\n\n{markdown_text(self.scanned())}\n\n{cautions}\n\n"
            f"Detector {markdown_code(self.uri)}: {markdown_text(headline)} ({passed}). Bars "
            f"{markdown_code(self.config.bars.path)}. {len(self.scan.windows) / seconds:,.0f} windows a second.\n\n"
            "Open the artifacts `detections.html` (charts of the best events, and what follows events), "
            "`events.parquet` (all events, with the first bar that one may trade) and `after_events.csv`.\n"
        )

    def html(self) -> str:
        """Return a page that needs no other file: the detector and its evidence, charts of the best events, a table."""
        best, checked = self.best(), self.gates()
        counts = [
            (f"{len(self.table):,}", "events"),
            *((f"{n:,}", name) for name, n in self.counts().items()),
            (f"{self.scan.threshold:.2f}", "threshold of the score"),
            (f"{len(self.scan.windows.bars):,}", "bars"),
        ]
        shown = min(len(best), MOST_WINDOWS)
        fewer = shown < len(self.table)
        which = f"the {shown:,} highest scores of {len(self.table):,} events" if fewer else "all events"
        charts_title = f"Charts: {which}" if len(best) else "Charts"
        document = Document(f"Events: {self.config.bars.path}")
        if missed := missed_gates(checked):
            document.add(Notice(f"The detector misses {len(missed)} of its {len(checked)} gates, listed below.", "bad"))
        document.add(*(Notice(text, "warn") for text in self.cautions()), Para(self.scanned()), Heading(charts_title))
        document.add(*([Heading("Table"), _event_table(best)] if len(best) else [Para(NO_EVENT)]))
        document.add(*after_blocks(self.after, lambda: result_of(self.drawn[Artifacts.AFTER_EVENTS_FIGURE])))
        rows = origin_rows(self.detector, self.config.bars.path, self.scan.windows.bars)
        document.add(Heading("Detector"), Table(["detector", self.uri], rows), gate_table(checked))
        return touch_page(document, [Plot(charts_title, windows_chart(self.pictures()))] if len(best) else [], counts)

    def pictures(self) -> tuple[WindowPicture, ...]:
        """Return the windows of the best events, the highest score first."""
        return tuple(self._picture(int(row)) for row in self.best().head(MOST_WINDOWS).index)

    def _picture(self, row: int) -> WindowPicture:
        windows, event = self.scan.windows, self.table.loc[row]
        first, name = self._first_row(row), str(event["label"])
        ends = int(self.scan.events.start[row]) - first, int(self.scan.events.end[row]) - first
        span = ShownSpan(*ends, name, class_color(self.detector.classes, name))
        when = f"{event['start']:%Y-%m-%d %H:%M} to {event['end']:%H:%M}, known at {event['known_at']:%H:%M} UTC"
        title = f"{name}, score {event['score']:.3f}, {event['instrument']}, {when}"
        return picture_of(windows.bars, first, windows.length, title, [span])

    def _first_row(self, row: int) -> int:
        """Return the first row of the window that was read with an event nearest to its middle."""
        starts, length = self.scan.windows.starts, self.scan.windows.length
        return int(starts[np.abs(starts + length / 2 - self.scan.events.centre[row]).argmin()])

    def best(self) -> pd.DataFrame:
        """Return the rows that the page shows, the highest score first."""
        ordered = self.table.sort_values(["score", "start"], ascending=[False, True], kind="stable")
        return ordered.head(self.config.detect.top)


def _event_table(best: pd.DataFrame) -> Table:
    rows = [
        (
            str(rank), event["instrument"], f"{event['start']:%Y-%m-%d %H:%M} to {event['end']:%H:%M}", event["label"],
            f"{event['score']:.4f}", f"{event['known_at']:%Y-%m-%d %H:%M}", str(event["num_windows"]),
        )
        for rank, (_, event) in enumerate(best.iterrows(), 1)
    ]  # fmt: skip
    return Table(["", "instrument", "span (UTC)", "label", "score", "known at (UTC)", "windows"], rows)
