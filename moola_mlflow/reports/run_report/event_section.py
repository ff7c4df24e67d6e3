"""Write the report's section on fine-tunings of event detectors: the newest in full, against its baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from moola_mlflow.evaluation import EVENT_TITLES, Interval
from moola_mlflow.reports.document import Block, Heading, Notice, Para, Picture, Strong, Table, Text
from moola_mlflow.reports.run_report.conclusions import shown, signed
from moola_mlflow.reports.run_report.facts import EVENT, Tuned
from moola_mlflow.reports.run_report.pretraining import gate_table
from moola_mlflow.tracking import Artifacts, RunRecord

SCORES = {"map": "mAP", "precision": "precision", "recall": "recall"}
HEADERS = ["method", *SCORES.values(), "detector minus method, mAP"]
FIGURES = {
    "precision_recall": "Precision and recall as the threshold of the score falls, events out of fold.",
    "reliability": "Share of right events against their score.",
}


def event_section(pairs: Sequence[tuple[RunRecord, Tuned]]) -> list[Block]:
    """Return the section on event detectors; nothing if no fine-tuning of one has finished."""
    finished = [(run, tuned) for run, tuned in pairs if tuned.kind == EVENT and tuned.done]
    if not finished:
        return []
    run, tuned = finished[-1]
    rows: list[tuple[Text, ...]] = [(Strong("detector"), *_scores(tuned.scores), "")]
    for name, row in tuned.baselines.items():
        gain = tuned.differences.get(name, {}).get("map")
        rows.append((EVENT_TITLES.get(name, name), *_scores(row), signed(gain) if gain else "–"))
    counts = ", ".join(f"{count} {name}" for name, count in tuned.counts.items())
    blocks: list[Block] = [
        Heading("Event detector"),
        Para(f"The newest of {len(finished)} is {run.name}. Windows looked at, by event: {counts}."),
        Notice(tuned.headline, {"gain": "good", "loss": "bad"}.get(tuned.claim() or "", "")),
        Table(HEADERS, rows),
    ]
    pngs = {name: run.bytes(f"{Artifacts.FIGURES}{name}.png") for name in FIGURES}
    pictures = [Picture(f"event_{name}.png", png, FIGURES[name]) for name, png in pngs.items() if png]
    return [*blocks, *gate_table(tuned.gates), *pictures]


def _scores(row: Mapping[str, Interval]) -> list[str]:
    return [shown(row[key]) if key in row else "–" for key in SCORES]
