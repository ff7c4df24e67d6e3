"""Compare two event detectors on the same windows: mAP, and precision, recall and F1 at the thresholds of their folds.

A run logs its out-of-fold events, which give mAP. Runs of earlier versions did not: they logged only how many events
each window holds, how many were found and how many of these are right, which gives the other three scores.

Shape legend: N windows, K draws of the folds, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from moola_mlflow.core import FinetuneKeys, UserError, make_config
from moola_mlflow.evaluation import Interval, ScoredEvents, bootstrap_many, mean_paired_difference
from moola_mlflow.labels import EventLabels, LabelledSet, overlap_groups
from moola_mlflow.tracking import Artifacts, RunRecord, Tags, read_input_events

MAP = "map"
SCORES = ("precision", "recall", "f1")
ALL_WINDOWS = "all windows looked at"


def event_differences(
    runs: Sequence[RunRecord], summaries: Sequence[dict[str, Any]], tables: Sequence[list[dict[str, Any]]]
) -> tuple[dict[str, Interval], int, int, int, int] | str:
    """Return the differences of second minus first, and the numbers of windows, groups, shared and most draws.

    The result is a text if there is no difference: the reason.
    """
    folds = [(summary.get("config") or {}).get("cv", {}).get("folds") for summary in summaries]
    if folds[0] != folds[1]:
        return f"their folds differ (cv.folds {folds[0]} and {folds[1]})"
    if any(summary.get("scored_on") != ALL_WINDOWS for summary in summaries):
        return "a query chose some of their windows, and only those drawn at random are scored"
    draws = [sorted({(row["seed"], row["repeat"]) for row in table}) for table in tables]
    common = [draw for draw in draws[0] if draw in draws[1]]
    if not common:
        return f"they share no draw of seed and repeat ({draws[0]} and {draws[1]})"
    counts, ids = [], list[list[str]]()
    for table in tables:
        own = [[row for row in table if (row["seed"], row["repeat"]) == draw] for draw in common]
        ids += [[str(row["window_id"]) for row in rows] for rows in own]
        counts.append([[[row[name] for name in ("events", "found", "right")] for row in rows] for rows in own])
    if any(one != ids[0] for one in ids):
        return "their predictions are not of the same windows"
    groups = window_groups(runs, summaries, ids[0], read_input_events)
    if isinstance(groups, str):
        return groups
    group_N = np.unique(groups, return_inverse=True)[1]
    num_groups = int(group_N.max()) + 1
    sides = [_sums(np.array(one, np.float64), group_N, num_groups) for one in counts]
    found = bootstrap_many(lambda w: _scores(w, sides[1]) - _scores(w, sides[0]), num_groups)
    differences = {name: Interval(*map(float, found[:, k])) for k, name in enumerate(SCORES)}
    if (of_map := map_difference(runs, common)) is not None:
        differences = {MAP: of_map, **differences}
    return differences, len(ids[0]), num_groups, len(common), max(map(len, draws))


def map_difference(runs: Sequence[RunRecord], draws: Sequence[tuple[int, int]]) -> Interval | None:
    """Return the difference in mAP of the second run minus the first over draws of seed and repeat.

    Repeats are averaged, then groups of overlapping windows are resampled. None if a run did not log its out-of-fold
    events, or if the labelled events differ.
    """
    first, second = (scored_draws(run.json(Artifacts.SCORED_EVENTS)) for run in runs)
    if any(draw not in one for one in (first, second) for draw in draws):
        return None
    try:
        return mean_paired_difference([second[draw] for draw in draws], [first[draw] for draw in draws], MAP)
    except ValueError:
        return None


def scored_draws(logged: Any) -> dict[tuple[int, int], ScoredEvents]:
    """Return the out-of-fold events of each draw that a run logged; nothing if it logged none, or damaged ones."""
    try:
        true_label, true_group = (np.asarray(logged["true"][name], np.int64) for name in ("label", "group"))
        classes, num_groups, out = tuple(logged["classes"]), int(logged["num_groups"]), {}
        for row in logged["draws"]:
            label, right, group = (np.asarray(row[name], np.int64) for name in ("label", "right", "group"))
            mass = np.asarray(row["mass"], np.float64)
            if not len(label) == len(right) == len(group) == len(mass):
                raise ValueError("columns of different lengths")
            out[row["seed"], row["repeat"]] = ScoredEvents(
                label, mass, right, group, true_label, true_group, num_groups, classes
            )
    except (KeyError, TypeError, ValueError):
        return {}
    return out


def _sums(counts_KN3: np.ndarray, group_N: np.ndarray, num_groups: int) -> np.ndarray:
    """Return the counts of each group. Shapes: [K, N, 3] -> [K, G, 3]."""
    member_NG = (group_N[:, None] == np.arange(num_groups)).astype(np.float64)
    return np.einsum("knc,ng->kgc", counts_KN3, member_NG)


def _scores(w_RG: np.ndarray, sums_KG3: np.ndarray) -> np.ndarray:
    """Return precision, recall and F1, averaged over the draws in which they are defined. Shapes: [R, 3]."""
    events, found, right = np.moveaxis(np.einsum("rg,kgc->rkc", w_RG, sums_KG3), -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        each = np.stack([right / found, right / events, 2 * right / (found + events)], -1)
        known = np.isfinite(each)
        return np.asarray(np.where(known, each, 0).sum(1) / known.sum(1))


def window_groups(
    runs: Sequence[RunRecord],
    summaries: Sequence[dict[str, Any]],
    ids: list[str],
    read: Callable[[FinetuneKeys], LabelledSet | EventLabels],
) -> np.ndarray | str:
    """Return the overlap group of each window, or why it is not known. Shapes: int [N].

    A run records only the number of groups. If it equals the number of windows, each window is a group of its own.
    Otherwise ``read`` reads the labels again.
    """
    if summaries[0].get("num_groups") == len(ids):
        return np.arange(len(ids))
    why = ""
    for run in runs:
        try:
            labels = read(make_config(FinetuneKeys, run.config, {}))
        except (UserError, OSError, KeyError, TypeError, ValueError) as e:
            why = " ".join(str(e).split())[:200]
            continue
        if labels.sha256 == run.tags.get(Tags.DATA_SHA256) and [str(name) for name in labels.window_id] == ids:
            return overlap_groups(labels, across_instruments=True)
        why = "their file has changed"
    return f"labelled windows overlap, and the labels cannot be read again ({why})"
