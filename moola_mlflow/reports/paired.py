"""Compare two fine-tunings window by window on the same folds: the paired difference, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from moola_mlflow.evaluation import HEADLINE_METRICS, Interval, Predictions, paired_difference
from moola_mlflow.reports.paired_events import event_differences, window_groups
from moola_mlflow.tracking import Artifacts, RunRecord, Tags, read_input_labels

DRAWN_BY = ("folds", "kind", "embargo_bars")
"""Keys of ``cv`` that the folds depend on, with seed and repeat."""
PREDICTIONS, SUMMARY = Artifacts.PREDICTIONS, Artifacts.CV_SUMMARY


@dataclass(frozen=True)
class Paired:
    """Second run minus first run for each metric, with 95 % intervals over groups of windows."""

    differences: dict[str, Interval]
    num_windows: int
    num_groups: int
    num_repeats: int
    """Draws of the folds (seed and repeat) that both runs have. The difference is over these."""
    most_repeats: int
    """Draws of the run with more of them."""


def pair(first: RunRecord, second: RunRecord) -> Paired | str:
    """Return the paired differences of second minus first, or the reason why there are none."""
    runs = (first, second)
    sha256 = [run.tags.get(Tags.DATA_SHA256, "") for run in runs]
    if not all(sha256) or sha256[0] != sha256[1]:
        return "they were not scored on the same labels (the content hashes differ)"
    summaries = [run.json(SUMMARY) for run in runs]
    tables = [_rows(run.json(PREDICTIONS)) for run in runs]
    for run, summary, rows in zip(runs, summaries, tables, strict=True):
        if not isinstance(summary, dict) or not rows:
            return f"{run.name} ({run.status}) holds no out-of-fold predictions"
    kinds = [summary.get("kind") == "event" for summary in summaries if isinstance(summary, dict)]
    if any(kinds) and not all(kinds):
        return "one is of an event detector and one of a span detector, whose scores mean different things"
    if all(kinds):
        found = event_differences(runs, [one for one in summaries if isinstance(one, dict)], tables)
        return found if isinstance(found, str) else Paired(*found)
    drawn = [{key: (summary.get("config") or {}).get("cv", {}).get(key) for key in DRAWN_BY} for summary in summaries]
    if drawn[0] != drawn[1]:
        unlike = [f"cv.{key} {drawn[0][key]} and {drawn[1][key]}" for key in DRAWN_BY if drawn[0][key] != drawn[1][key]]
        return f"their folds differ ({', '.join(unlike)})"
    folds = [_folds(summary) for summary in summaries]
    common = sorted(key for key in folds[0] if folds[0][key] == folds[1].get(key))
    if not common:
        seeds = [sorted({seed for seed, _ in one}) for one in folds]
        return (
            "their folds differ: no draw of seed and repeat has folds of equal sizes in both (seeds "
            f"{seeds[0]} and {seeds[1]})"
        )
    left, right = _predictions(tables[0], common), _predictions(tables[1], common)
    if isinstance(left, str):
        return left
    if isinstance(right, str):
        return right
    (ids, one), (other_ids, other) = left, right
    if ids != other_ids or not (np.array_equal(one.label, other.label) and np.array_equal(one.span, other.span)):
        return "their predictions are not of the same windows"
    groups = window_groups(runs, summaries, ids, read_input_labels)
    if isinstance(groups, str):
        return groups
    differences = {metric: paired_difference(other, one, metric, groups) for metric in HEADLINE_METRICS}
    return Paired(differences, len(ids), len(np.unique(groups)), len(common), max(map(len, folds)))


def _rows(logged: Any) -> list[dict[str, Any]]:
    """Return the rows of a table artifact."""
    try:
        return [dict(zip(logged["columns"], row, strict=True)) for row in logged["data"]]
    except (KeyError, TypeError, ValueError):
        return []


def _folds(summary: dict[str, Any]) -> dict[tuple[int, int], list[tuple[int, ...]]]:
    """Return the sizes of the folds of each seed and repeat."""
    out: dict[tuple[int, int], list[tuple[int, ...]]] = {}
    for row in summary.get("fold_results") or []:
        sizes = tuple(int(row[key]) for key in ("fold", "num_train", "num_test", "num_purged"))
        out.setdefault((int(row["seed"]), int(row["repeat"])), []).append(sizes)
    return {key: sorted(rows) for key, rows in out.items()}


def _predictions(rows: list[dict[str, Any]], draws: list[tuple[int, int]]) -> tuple[list[str], Predictions] | str:
    """Return the windows' ids and their predictions. The table counts repeats from 1.

    The differences need classes and spans alone, so the predicted class has probability 1.
    """
    by_draw = {draw: [row for row in rows if (row["seed"], row["repeat"] - 1) == draw] for draw in draws}
    first = by_draw[draws[0]]
    ids = [str(row["window_id"]) for row in first]
    if any([str(row["window_id"]) for row in one] != ids for one in by_draw.values()) or len(set(ids)) < len(ids):
        return "a table of predictions is damaged: its repeats do not hold the same windows"
    classes = tuple(sorted({str(row[key]) for row in rows for key in ("label", "predicted")}))
    code = {name: i for i, name in enumerate(classes)}
    label = np.array([code[str(row["label"])] for row in first])
    span = np.array([[row["expansion_start"], row["expansion_end"]] for row in first])
    guess_KN = np.array([[code[str(row["predicted"])] for row in one] for one in by_draw.values()])
    predicted = np.array([[[row["predicted_start"], row["predicted_end"]] for row in one] for one in by_draw.values()])
    return ids, Predictions(label, span, np.eye(len(classes))[guess_KN], predicted, classes)
