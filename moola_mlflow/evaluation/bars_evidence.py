"""How well a detector does on bars: its events next to the true ones, scores with intervals over blocks of bars.

Shape legend: E found events, K true events.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from moola_mlflow.core import Metrics, metric_name
from moola_mlflow.evaluation.bars_truth import BarsTruth
from moola_mlflow.evaluation.bootstrap import Interval
from moola_mlflow.evaluation.event_scores import LEFT_OUT, RIGHT, ScoredEvents, score_events
from moola_mlflow.evaluation.found_events import FoundEvents
from moola_mlflow.models import instrument_names, match_events

JUDGED = {RIGHT: "right", 0: "wrong", LEFT_OUT: "neither"}
MISSED = "missed"
BARS_COLUMNS = ("instrument", "start", "end", "label", "score", "known_at", "judged", "above")
"""Columns of the table of events. ``above`` says whether an event is reported; a missed one has the score of the event
that was found there below the threshold, if any."""


@dataclass(frozen=True)
class BarsEvidence:
    """The events that a detector found in bars, judged.

    Shapes: matched int64 [E], the true event of each found one, -1 without one.
    """

    found: FoundEvents
    truth: BarsTruth
    scored: ScoredEvents
    matched: np.ndarray
    intervals: dict[str, Interval]

    @property
    def missed(self) -> np.ndarray:
        """The true events that are not reported, those with the lowest score first. Shapes: int64, positions in K."""
        score = self.score_of_true()
        hit = np.zeros(len(self.truth.true), bool)
        hit[self.matched[self.found.above & (self.matched >= 0)]] = True
        missed = np.flatnonzero(~hit)
        return missed[np.argsort(np.nan_to_num(score[missed], nan=-1.0), kind="stable")]

    @property
    def false_hits(self) -> np.ndarray:
        """The wrong events that are reported, those with the highest score first. Shapes: int64, positions in E."""
        wrong = np.flatnonzero((self.scored.right == 0) & self.found.above)
        return wrong[np.argsort(-self.found.events.score[wrong], kind="stable")]

    def score_of_true(self) -> np.ndarray:
        """Return the score of the event that matches each true one, NaN if none does. Shapes: float64 [K]."""
        score = np.full(len(self.truth.true), np.nan)
        own = np.flatnonzero(self.matched >= 0)
        score[self.matched[own]] = self.found.events.score[own]
        return score

    def num_reported(self) -> dict[str, int]:
        """Return how many reported events are right, wrong and neither."""
        right = self.scored.right[self.found.above]
        return {name: int((right == value).sum()) for value, name in JUDGED.items()}

    def metrics(self) -> dict[str, float]:
        """Return the figures of the run; undefined ones are left out."""
        out: dict[str, float] = {}
        for name, interval in self.intervals.items():
            out |= interval.named(f"{Metrics.EVAL}{metric_name(name)}")
        reported = self.num_reported()
        judged = self.truth.judged
        out |= {
            Metrics.EVAL_THRESHOLD: self.found.threshold,
            Metrics.EVAL_TRUE: len(self.truth.true),
            Metrics.EVAL_RIGHT: reported["right"],
            Metrics.EVAL_WRONG: reported["wrong"],
            Metrics.EVAL_MISSED: len(self.missed),
            Metrics.EVAL_BLOCKS: self.scored.num_blocks,
            Metrics.EVAL_BARS: len(self.found.bars) if judged is None else int(judged.sum()),
        }
        return {name: float(value) for name, value in out.items() if math.isfinite(value)}

    def summary(self) -> dict[str, Any]:
        """Return the content of ``evaluation.json``, apart from the configuration; None for an undefined figure."""
        figures = {name: interval._asdict() for name, interval in self.intervals.items()}
        return {
            "truth": self.truth.source,
            "true_events": self.truth.counts(),
            "unclear_events": len(self.truth.unclear),
            "threshold": self.found.threshold,
            "reported": {**self.num_reported(), MISSED: len(self.missed)},
            "num_blocks": self.scored.num_blocks,
            "scores": {
                name: {end: value if math.isfinite(value) else None for end, value in ends.items()}
                for name, ends in figures.items()
            },
            "notes": list(self.truth.notes),
            "headline": self.headline(),
        }

    def headline(self) -> str:
        """Return in one sentence how good the detector is on these bars."""
        p, r = (self.intervals[name].mean for name in ("precision", "recall"))
        precision = f"precision {p:.2f} and " if math.isfinite(p) else "nothing judged is found, "
        return (
            f"mAP {interval_text(self.intervals['map'])} of {len(self.truth.true):,} true events; at the threshold "
            f"{self.found.threshold:.2f} {precision}recall {r:.2f}."
        )

    def table(self) -> pd.DataFrame:
        """Return a row for each found event and for each missed one, in order of time, with ``BARS_COLUMNS``."""
        bars, events, true, missed = self.found.bars, self.found.events, self.truth.true, self.missed
        names, num = instrument_names(bars), len(missed)
        start, end = np.r_[events.start, true.start[missed]], np.r_[events.end, true.end[missed]]
        known = np.full(len(start), np.datetime64("NaT", "ns"))
        if self.found.known_ns is not None:
            known[: len(events)] = self.found.known_ns.view("datetime64[ns]")
        columns = {
            "instrument": np.array([names[key] for key in bars.instrument[start].tolist()], dtype=object),
            "start": _utc(bars.time_ns[start].view("datetime64[ns]")),
            "end": _utc(bars.time_ns[end].view("datetime64[ns]")),
            "label": np.array(self.found.classes, dtype=object)[np.r_[events.label, true.label[missed]]],
            "score": np.r_[events.score, self.score_of_true()[missed]],
            "known_at": _utc(known),
            "judged": np.array([*(JUDGED[k] for k in self.scored.right.tolist()), *[MISSED] * num], dtype=object),
            "above": np.r_[self.found.above, np.zeros(num, bool)],
        }
        frame = pd.DataFrame(columns, columns=list(BARS_COLUMNS))
        return frame.iloc[np.argsort(start + end, kind="stable")].reset_index(drop=True)


def collect_bars_evidence(
    found: FoundEvents, truth: BarsTruth, block_bars: int = 2000, strict: bool = False
) -> BarsEvidence:
    """Match found events with true ones and score them, with 95 % intervals over blocks of ``block_bars`` bars.

    With ``strict``, found events that are only near an unclear one are wrong. Found events outside of the bars that
    were looked at never count.
    """
    unclear = None if strict else truth.unclear
    blocks = None if truth.judged is None else np.unique(np.flatnonzero(truth.judged) // block_bars)

    def block_of(rows: np.ndarray) -> np.ndarray:
        """Number the blocks that hold a judged bar: empty ones are no evidence."""
        block = rows // block_bars
        return block if blocks is None else np.searchsorted(blocks, block).clip(0, len(blocks) - 1)

    scored = score_events(found.events, truth.true, truth.classes, block_of, unclear)
    matched = match_events(found.events, truth.true)
    if truth.judged is not None:
        outside = ~truth.judged[np.floor(found.events.centre).astype(np.int64)]
        scored = replace(scored, right=np.where(outside & (matched < 0), LEFT_OUT, scored.right))
        assert blocks is not None
        scored = replace(scored, num_blocks=len(blocks))
    return BarsEvidence(found, truth, scored, matched, scored.intervals(found.threshold))


def interval_text(interval: Interval) -> str:
    """Return a figure with its interval, or without it if one block of bars shows no spread.

    >>> interval_text(Interval(0.5, float("nan"), float("nan"))), interval_text(Interval(0.5, 0.4, 0.6))
    ('0.500', '0.500 [0.400, 0.600]')
    """
    if not math.isfinite(interval.mean):
        return "none"
    return interval.text() if math.isfinite(interval.lo) else f"{interval.mean:.3f}"


def _utc(times: np.ndarray) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(times, tz="UTC")
