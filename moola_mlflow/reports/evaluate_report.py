"""Describe the evaluation of a detector on bars: table, note and page, with charts of misses and false hits.

Shape legend: T bars of a chart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from moola_mlflow.bars import segments, utc
from moola_mlflow.core import EvaluateKeys, UserError, markdown_code, markdown_table, markdown_text
from moola_mlflow.evaluation import FEW_GROUPS, BarsEvidence, detector_gates, interval_text
from moola_mlflow.labels import EventLabels
from moola_mlflow.models import HIT_BARS, EventDetector, EventTable, PatternDetector, instrument_names
from moola_mlflow.reports.detections import gate_table, known_bars, origin_rows
from moola_mlflow.reports.document import Document, Heading, Notice, Para, Table
from moola_mlflow.reports.plots.candles import class_color, clock
from moola_mlflow.reports.plots.events import precision_recall_figure, score_reliability_figure
from moola_mlflow.reports.plots.interactive import (
    ShownSpan,
    WindowPicture,
    precision_recall_chart,
    reliability_chart,
    windows_chart,
)
from moola_mlflow.reports.touchable import MOST_WINDOWS, Plot, touch_page
from moola_mlflow.reports.window_pictures import picture_of
from moola_mlflow.tracking import Artifacts, Metrics, to_json

OTHER_COLOR = "#77777f"
"""Shade of events that a chart is not about."""
CAPTIONS = (
    "Precision and recall as the threshold falls; the dot is the threshold.",
    "Share of right events against their score.",
)
"""What the page says below its curves."""
SCORE_HEADERS = ("", "true events", "mAP or AP", "precision", "recall", "F1")
BY_RULE = "Truth is {source}. The scores say how well the detector repeats the rule, not what its events are worth."
WEAK = "The labels are WEAK: a rule made them from prices, and nobody has looked at them."
SAME_LABELS = "The detector learned from these very labels. Its scores on them are too high."
SPANS = (
    "A span detector names a class in every window. Its probability says which class, not how likely it is that "
    "something is there: read its calibration error with that in mind."
)
FIGURES = {
    "precision_at_recall_50": "precision at recall 0.5",
    "recall_at_precision_80": "recall at precision 0.8",
    "event_ece": "calibration error of the score",
}


@dataclass(frozen=True)
class EvaluateReport:
    """The evidence for a detector on bars, with what the reader must know of both."""

    evidence: BarsEvidence
    detector: PatternDetector | EventDetector
    uri: str
    """The version that was scored, or the folder."""
    config: EvaluateKeys
    labels: EventLabels | None = None
    """The labels that say what is true; None: a rule does."""

    def score_rows(self) -> list[tuple[str, ...]]:
        """Return a row for all classes together and one for each, with ``SCORE_HEADERS``."""
        each = self.evidence.intervals
        total = ("all classes", f"{len(self.evidence.truth.true):,}", *self._texts("map", "precision", "recall", "f1"))
        rows: list[tuple[str, ...]] = [total]
        for name, num in self.evidence.truth.counts().items():
            found = (each[f"ap_{name}"], each[f"recall_{name}"]) if num else None
            ap, recall = map(interval_text, found) if found else ("", "")
            rows.append((name, f"{num:,}", ap, "", recall, ""))
        return rows

    def _texts(self, *names: str) -> tuple[str, ...]:
        return tuple(interval_text(self.evidence.intervals[name]) for name in names)

    def figure_rows(self) -> list[tuple[str, str]]:
        """Return further scores and counts, a name and a text each."""
        num = self.evidence.num_reported()
        neither = f", {num['neither']:,} neither" if num["neither"] else ""
        rows = [(title, interval_text(self.evidence.intervals[name])) for name, title in FIGURES.items()]
        return [
            *rows,
            ("events at or above the threshold", f"{num['right']:,} right, {num['wrong']:,} wrong{neither}"),
            ("true events below the threshold or not found", f"{len(self.evidence.missed):,}"),
        ]

    def scored(self) -> str:
        """Return in words what was read, what is true, and what the intervals resample."""
        evidence, found = self.evidence, self.evidence.found
        counts = ", ".join(f"{num:,} {name}" for name, num in evidence.truth.counts().items())
        counted = "found there is wrong" if self.config.evaluate.strict else "neither right nor wrong"
        num_unclear = len(evidence.truth.unclear)
        unclear = f", {num_unclear:,} unclear ({counted})" if num_unclear else ""
        return (
            f"True by {evidence.truth.source}: {counts}{unclear}. The detector read {len(found.windows):,} windows, "
            f"one every {self.config.detect.stride} bars. A found event is right if its class is and its centre is at "
            f"most {HIT_BARS} bars off; each true event counts once. Intervals are 95 %, over "
            f"{evidence.scored.num_blocks:,} blocks of {self.config.evaluate.block_bars:,} bars."
        )

    @cached_property
    def warnings(self) -> list[str]:
        """What makes the scores too high."""
        own = self.detector.card.get("labels") or {}
        same = self.labels is not None and self.labels.sha256 and self.labels.sha256 == own.get("sha256")
        return [*([SAME_LABELS] if same else []), *known_bars(self.detector, self.evidence.found.bars)]

    @cached_property
    def notes(self) -> list[str]:
        """What else the reader must know about the scores."""
        evidence, said = self.evidence, []
        if self.labels is None:
            said.append(BY_RULE.format(source=evidence.truth.source))
        elif self.labels.weak:
            said.append(WEAK)
        if not isinstance(self.detector, EventDetector):
            said.append(SPANS)
        if (num := evidence.scored.num_blocks) < FEW_GROUPS:
            said.append(f"Only {num} blocks of bars are scored: the intervals are rough, even widened by Student's t.")
        return [*said, *evidence.truth.notes]

    @property
    def cautions(self) -> list[str]:
        """Warnings, then notes."""
        return [*self.warnings, *self.notes]

    def metrics(self, seconds: float) -> dict[str, float]:
        """Return the figures of the run."""
        return {**self.evidence.metrics(), Metrics.EVAL_SECONDS: seconds}

    def summary(self) -> dict[str, Any]:
        """Return the content of ``evaluation.json``."""
        bars = self.evidence.found.bars
        return {
            "detector": self.uri,
            "kind": "event" if isinstance(self.detector, EventDetector) else "span",
            "bars": {"path": self.config.bars.path, "sha256": bars.sha256, "num": len(bars)},
            "labels_sha256": self.labels.sha256 if self.labels is not None else None,
            **self.evidence.summary(),
            "cautions": self.cautions,
            "config": self.config.model_dump(mode="json"),
        }

    def next_step(self, run_id: str) -> str:
        """Return what to do next."""
        truth = f" --labels {self.config.labels.path}" if self.labels is not None else ""
        return (
            f"Next: score another version on the same bars, `moola evaluate --bars {self.config.bars.path}{truth} "
            f"--detector ...`, then `moola compare --run_ids {run_id},ID`"
        )

    def note(self, run_id: str) -> str:
        """Return the Markdown note of the run: the result first."""
        cautions = "\n".join(f"- {markdown_text(text)}" for text in self.cautions)
        table = markdown_table(SCORE_HEADERS, self.score_rows())
        return (
            f"**{markdown_text(self.evidence.headline())}**\n\n{table}\n\n{markdown_text(self.scored())}\n\n{cautions}\n\n"
            f"Detector {markdown_code(self.uri)}. Bars {markdown_code(self.config.bars.path)}. Open the artifact "
            "`evaluation.html`: curves, and charts of misses and false hits. `evaluation.parquet` has every event.\n\n"
            f"{self.next_step(run_id)}\n"
        )

    def figures(self) -> dict[str, Figure]:
        """Return the curves by their names."""
        scored, threshold = self.evidence.scored, self.evidence.found.threshold
        return {
            "precision_recall": precision_recall_figure({"detector": scored}, threshold, "events of a scan", "true"),
            "reliability": score_reliability_figure(scored, "events of a scan"),
        }

    def html(self) -> str:
        """Return a page that needs no other file: scores, curves, charts of misses and of false hits."""
        evidence, top = self.evidence, min(self.config.detect.top, MOST_WINDOWS)
        missed, false = evidence.missed, evidence.false_hits
        groups = {
            _title("Misses", missed, top): [self._miss(k) for k in missed[:top].tolist()],
            _title("False hits", false, top): [self._false_hit(k) for k in false[:top].tolist()],
        }
        document = Document(f"Evaluation: {self.uri} on {self.config.bars.path}")
        document.add(*(Notice(text, "warn") for text in self.cautions), Para(self.scored()), Heading("Scores"))
        document.add(Table(SCORE_HEADERS, self.score_rows()), Table(["", ""], self.figure_rows()), Heading("Curves"))
        which, scored, threshold = "events of a scan", evidence.scored, evidence.found.threshold
        plots = [
            Plot("Curves", precision_recall_chart({"detector": scored}, threshold, which), CAPTIONS[0]),
            Plot("Curves", reliability_chart(scored, which), CAPTIONS[1]),
            *(Plot(title, windows_chart(pictures)) for title, pictures in groups.items() if pictures),
        ]
        leads = (
            "True events that the detector does not report, the lowest score first. Grey: what it reports there.",
            "Reported events that are not true, the highest score first. Grey: what is true there.",
        )
        for title, lead, num in zip(groups, leads, (len(missed), len(false)), strict=True):
            document.add(Heading(title), Para(lead if num else "None."))
        rows = origin_rows(self.detector, self.config.bars.path, evidence.found.bars)
        gates = detector_gates(self.detector.card.get("evidence"), self.config.gates)
        document.add(Heading("Detector"), Table(["detector", self.uri], rows), gate_table(gates))
        reported = evidence.num_reported()
        counts = [
            (f"{evidence.intervals['map'].mean:.3f}", "mAP"),
            (f"{len(evidence.truth.true):,}", "true events"),
            *((f"{reported[name]:,}", name) for name in ("right", "wrong")),
            (f"{len(missed):,}", "missed"),
        ]
        return touch_page(document, plots, counts)

    def errors(self) -> pd.DataFrame:
        """Return the rows of the table that are misses, or false hits at or above the threshold."""
        table = self.evidence.table()
        rows: pd.DataFrame = table[(table["judged"] == "missed") | (table["above"] & (table["judged"] == "wrong"))]
        return rows

    def write(self, folder: Path) -> None:
        """Write page, summary and table. Raises: UserError if the folder cannot be written to."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / Artifacts.EVALUATION_PAGE).write_text(self.html(), encoding="utf-8")
            (folder / Artifacts.EVALUATION).write_text(to_json(self.summary(), indent=2) + "\n", encoding="utf-8")
            self.evidence.table().to_parquet(folder / Artifacts.EVALUATION_TABLE, index=False)
        except OSError as e:
            raise UserError(f"out='{folder}' cannot be written: {e}; give a folder you may write to") from e

    def _miss(self, k: int) -> WindowPicture:
        true, score = self.evidence.truth.true, self.evidence.score_of_true()[k]
        found = self.evidence.found
        said = f"score {score:.3f}" if math.isfinite(score) else "not found at any score"
        return self._picture(true, k, found.events.select(np.flatnonzero(found.above)), said)

    def _false_hit(self, i: int) -> WindowPicture:
        events = self.evidence.found.events
        return self._picture(events, i, self.evidence.truth.true, f"score {events.score[i]:.3f}")

    def _picture(self, events: EventTable, k: int, others: EventTable, said: str) -> WindowPicture:
        """Return the bars around an event, with other events that lie there in grey."""
        bars, classes = self.evidence.found.bars, self.evidence.found.classes
        first, last = self._around(int(events.centre[k]))
        near = np.flatnonzero((others.start > first) & (others.end < last - 1))
        name, start, end = classes[int(events.label[k])], int(events.start[k]), int(events.end[k])
        ends = zip(others.start[near].tolist(), others.end[near].tolist(), others.label[near].tolist(), strict=True)
        shades = [ShownSpan(lo - first, hi - first, classes[kind], OTHER_COLOR) for lo, hi, kind in ends]
        shades.append(
            ShownSpan(max(start, first) - first, min(end, last - 1) - first, name, class_color(classes, name))
        )
        instrument = instrument_names(bars)[int(bars.instrument[start])]
        when = f"{utc(int(bars.time_ns[start]))} to {clock(int(bars.time_ns[end]))}"
        return picture_of(bars, first, last - first, f"{name}, {said}, {instrument}, {when}", shades)

    def _around(self, centre: int) -> tuple[int, int]:
        """Return the first row and the one after the last of a window around a bar, within its segment."""
        runs, length = self._runs, self.detector.length
        lo, hi = runs[np.searchsorted(runs[:, 0], centre, side="right") - 1].tolist()
        first = max(lo, min(centre - length // 2, hi - length))
        return first, min(hi, first + length)

    @cached_property
    def _runs(self) -> np.ndarray:
        return segments(self.evidence.found.bars, self.config.bars.max_gap_minutes)


def _title(what: str, events: Sequence[Any] | np.ndarray, top: int) -> str:
    shown = f"{top:,} of {len(events):,}" if len(events) > top else f"{len(events):,}"
    return f"{what} ({shown})"
