"""Compare runs of one kind: which parameters differ, which scores follow, and how sure the difference is."""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from typing import Any

from moola_mlflow.core import UserError
from moola_mlflow.evaluation import Interval
from moola_mlflow.reports.document import Document, Heading, Items, Mono, Notice, Para, Picture, Strong, Table, Text
from moola_mlflow.reports.finetune_results import WEAK_LABELS_TEXT
from moola_mlflow.reports.paired import Paired, pair
from moola_mlflow.reports.plots.compare import COLORS, overlay_figure, scores_figure
from moola_mlflow.reports.plots.figure import png_bytes
from moola_mlflow.reports.run_report.facts import kind_of
from moola_mlflow.tracking import Metrics, RunRecord, Tags, encoder_sources, read_run

KINDS = ("pretrain", "finetune", "evaluate", "trial")
FAMILIES = {
    "loss": (Metrics.VAL_LOSS, Metrics.TRAIN_LOSS),
    "Huber": (Metrics.VAL_HUBER,),
    "skill": (Metrics.VAL_SKILL,),
    "Joint@3 inside the folds": (Metrics.VAL_JOINT_AT_3,),
    "negative log-likelihood inside the folds": (Metrics.VAL_NLL,),
}
"""Metrics that share a picture."""
MAIN_METRICS = (
    Metrics.BEST_VAL_LOSS, Metrics.TEST_HUBER, Metrics.TEST_MAE, Metrics.TEST_SKILL, Metrics.PROBE_R2,
    Metrics.PROBE_R2_GAIN, Metrics.SWEEP_VALUE, Metrics.CV_JOINT_AT_3, Metrics.CV_F1_MACRO, Metrics.CV_HIT_AT_3,
    Metrics.CV_ECE, Metrics.CV_DELTA_JOINT_AT_3, Metrics.CV_DELTA_BEST_JOINT_AT_3, Metrics.EVAL_MAP,
    Metrics.EVAL_PRECISION, Metrics.EVAL_RECALL, Metrics.EVAL_F1, Metrics.EVAL_EVENT_ECE,
)  # fmt: skip
SCALE = ("objective.", "features.set", "windows.")
"""Keys that change the scale of a loss."""
SCORES = {"joint_success_at_3": "Joint@3", "f1_macro": "F1 macro"}
TITLES = {**SCORES, "map": "mAP"}
MET = {
    Tags.DATA_SHA256: "data, SHA-256", Tags.COMMIT: "commit", Tags.DEVICE: "device", Tags.PRECISION: "precision",
    Tags.DETECTOR: "detector", Tags.TRUTH: "truth",
}  # fmt: skip
"""Tags of what a run depends on outside its configuration."""
PARTS = 12
"""Folds of a run whose curves are drawn. More curves would hide each other."""


def find_compared_runs(run_ids: str) -> list[RunRecord]:
    """Return the runs named in a text, separated by commas.

    Raises: UserError for fewer than two runs, more than there are colours, a run named twice, or runs of different
    kinds.
    """
    names = [name.strip() for name in run_ids.split(",") if name.strip()]
    if not 2 <= len(names) <= len(COLORS):
        raise UserError(
            f"run_ids='{run_ids}' names {len(names)} runs; allowed: 2 to {len(COLORS)}, separated by commas, such as "
            "--run_ids ID,ID"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"run_ids names '{twice[0]}' twice; give different runs")
    runs = [read_run(name, "run_ids") for name in names]
    for run in runs:
        if run.stage not in KINDS:
            raise UserError(f"run_ids: '{run.id}' ({run.name}) is {kind_of(run)}; allowed: {', '.join(KINDS)}")
    if len({run.stage for run in runs}) > 1:
        shown = ", ".join(f"'{run.id}' {run.stage}" for run in runs)
        raise UserError(f"run_ids: runs of different kinds cannot be compared: {shown}; give runs of one kind")
    return runs


def letters(runs: Sequence[RunRecord]) -> list[str]:
    """Return a letter for each run."""
    return list(string.ascii_uppercase[: len(runs)])


def configured(run: RunRecord) -> dict[str, str]:
    """Return every key of a run's configuration, and what the run depends on outside it.

    A trial holds only the keys that were drawn for it. An alias may have pointed to another encoder in each run, so
    the run that made the encoder is a key of its own.
    """
    flat = {f"{section}.{key}": str(value) for section, keys in run.config.items() for key, value in keys.items()}
    flat = flat or run.params
    met = {name: run.tags[tag] for tag, name in MET.items() if tag in run.tags}
    if run.stage == "finetune" and flat.get("finetune.encoder"):
        sources = encoder_sources(run)
        met["encoder made by run"] = ", ".join(sources.run_ids) or "not recorded"
    return flat | met


def differing(values: Sequence[Mapping[str, str]]) -> dict[str, list[str | None]]:
    """Return the keys whose values differ. None stands for a key that is missing."""
    keys = sorted({key for one in values for key in one})
    rows = {key: [one.get(key) for one in values] for key in keys}
    return {key: row for key, row in rows.items() if len(set(row)) > 1}


def warnings(runs: Sequence[RunRecord], keys: Mapping[str, Any]) -> list[str]:
    """Return what the reader must know before comparing the figures."""
    out = []
    tags = [run.tags for run in runs]
    if len({one.get(Tags.DATA_SHA256) for one in tags}) > 1:
        what = "labels" if runs[0].stage == "finetune" else "bars"
        out.append(
            f"The runs did not read the same {what}: their content hashes differ. That is a part of any difference."
        )
    if runs[0].stage != "finetune" and (unlike := [key for key in keys if key.startswith(SCALE)]):
        named = ", ".join(unlike[:4])
        out.append(
            f"Losses and skills are not on one scale ({named} differ). The probe asks the same of every encoder."
        )
    if runs[0].stage == "evaluate" and len({(one.get(Tags.TRUTH), one.get(Tags.LABELS_SHA256)) for one in tags}) > 1:
        out.append("The runs were not judged by the same truth, so their scores are not comparable.")
    if len({one.get(Tags.COMMIT) for one in tags}) > 1:
        out.append("The runs come from different commits.")
    if any(one.get(Tags.IDENTITY) == "true" for one in tags):
        out.append("One run has the identity objective. Its loss, MAE and skill measure copying.")
    if any(one.get(Tags.WEAK_LABELS) == "true" for one in tags) and runs[0].stage == "finetune":
        out.append(WEAK_LABELS_TEXT)
    for letter, run in zip(letters(runs), runs, strict=True):
        if run.status != "FINISHED":
            out.append(f"{letter} is {run.status}: its figures come from an unfinished run.")
    return out


def build_comparison(runs: Sequence[RunRecord], short: bool = False) -> Document:
    """Return the comparison. ``short`` leaves out the pictures and all metrics but the main ones."""
    names = letters(runs)
    document = Document(f"{len(runs)} {runs[0].stage} runs side by side")
    document.add(
        Table(["", "run", "id", "status"], [
            (Strong(letter), run.name, Mono(run.id), run.status) for letter, run in zip(names, runs, strict=True)
        ])
    )  # fmt: skip
    keys = differing([configured(run) for run in runs])
    document.add(*(Notice(text, "warn") for text in warnings(runs, keys)))
    if runs[0].stage == "finetune":
        document.add(*_paired(runs, names))
    document.add(Heading("Parameters that differ"))
    if keys:
        rows: list[tuple[Text, ...]] = [
            (Mono(key), *("–" if value is None else Mono(value) for value in row)) for key, row in keys.items()
        ]
        document.add(Table(["key", *names], rows))
    else:
        document.add(Para("None. The configurations are the same."))
    document.add(Heading("Metrics"))
    document.add(_metrics(runs, names, MAIN_METRICS))
    if not short:
        everything = sorted({key for run in runs for key in run.metrics if not key.startswith(Metrics.SYSTEM)})
        document.add(*_pictures(runs, names), Heading("All metrics"), _metrics(runs, names, everything))
    return document


def _metrics(runs: Sequence[RunRecord], names: Sequence[str], wanted: Sequence[str]) -> Table:
    """Return the last values of each run, and the differences from the first run."""
    rows: list[tuple[Text, ...]] = []
    for key in wanted:
        values = [run.metrics.get(key) for run in runs]
        if all(value is None for value in values):
            continue
        beyond = [
            f"{value - values[0]:+.4g}" if value is not None and values[0] is not None else "–" for value in values[1:]
        ]
        rows.append((Mono(key), *(_number(value) for value in values), *beyond))
    return Table(["metric", *names, *(f"{name} - {names[0]}" for name in names[1:])], rows)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.5g}"


def _paired(runs: Sequence[RunRecord], names: Sequence[str]) -> list[Heading | Para | Table | Items]:
    """Return each run minus the first, window by window, where the folds match."""
    rows: list[tuple[Text, ...]] = []
    refused: list[Text] = []
    for name, run in zip(names[1:], runs[1:], strict=True):
        found = pair(runs[0], run)
        if isinstance(found, str):
            refused.append(f"{name} - {names[0]}: no paired difference, because {found}.")
            continue
        for metric, interval in found.differences.items():
            rows.append(
                (f"{name} - {names[0]}", TITLES.get(metric, metric), _signed(interval), word(interval), _basis(found))
            )
    out: list[Heading | Para | Table | Items] = [Heading("Paired differences")]
    if rows:
        out.append(Table(["runs", "score", "difference, 95 % interval", "result", "computed on"], rows))
    if refused:
        out.append(Items(refused))
    return out


def _basis(found: Paired) -> str:
    draws = f"{found.num_repeats} of {found.most_repeats} draws of the folds shared"
    return f"{found.num_windows} windows in {found.num_groups} groups, {draws}"


def word(interval: Interval) -> Text:
    """Return what an interval allows to say about a difference."""
    if interval.lo > 0:
        return Strong("better", True)
    return Strong("worse", False) if interval.hi < 0 else "no difference shown"


def _signed(i: Interval) -> str:
    return f"{i.mean:+.3f} [{i.lo:+.3f}, {i.hi:+.3f}]"


def _pictures(runs: Sequence[RunRecord], names: Sequence[str]) -> list[Heading | Picture]:
    """Return the scores with their intervals, and one picture for each family of curves that two runs have."""
    labels = [f"{name}: {run.name}" for name, run in zip(names, runs, strict=True)]
    out: list[Heading | Picture] = []
    if runs[0].stage == "finetune":
        scores = {title: [_score(run, name) for run in runs] for name, title in SCORES.items()}
        caption = (
            "Scores out of fold with their intervals. Overlapping intervals say little: the paired difference counts."
        )
        out.append(Picture("scores.png", png_bytes(scores_figure(labels, scores)), caption))
    parts = [(run.children("fold") if run.stage == "finetune" else [run])[:PARTS] for run in runs]
    for family, metrics in FAMILIES.items():
        curves = {metric: [[_curve(part, metric) for part in of_run] for of_run in parts] for metric in metrics}
        curves = {metric: [[c for c in of_run if c] for of_run in by_run] for metric, by_run in curves.items()}
        curves = {metric: by_run for metric, by_run in curves.items() if sum(map(bool, by_run)) > 1}
        if not curves:
            continue
        many = ", one line a fold" if runs[0].stage == "finetune" else ""
        name = f"curves-{metrics[0].removeprefix(Metrics.VAL).replace('/', '-')}.png"
        out.append(Picture(name, png_bytes(overlay_figure(labels, curves, family)), f"{family} by epoch{many}."))
    return [Heading("Curves"), *out] if out else []


def _curve(run: RunRecord, metric: str) -> dict[int, float]:
    if metric not in run.metrics:
        return {}
    return {step: value for step, value in run.history(metric).items() if math.isfinite(value)}


def _score(run: RunRecord, name: str) -> Interval | None:
    found = [run.metrics.get(f"{Metrics.CV}{name}{end}") for end in ("", "_lo", "_hi")]
    return None if None in found else Interval(*(float(value or 0) for value in found))
