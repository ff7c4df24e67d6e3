"""Turn predictions into rows of the JSON, tables of docs/explanation/objectives.md, and the probe gate's threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.science.objectives.readers import LabelTask, Reader
from benchmarks.science.objectives.rows import PATH_FEATURES, READERS
from benchmarks.science.objectives.variants import Pretrained
from moola_mlflow.evaluation.bootstrap import Interval, paired_difference
from moola_mlflow.evaluation.metrics import Predictions

JOINT, F1 = "joint_success_at_3", "f1_macro"


@dataclass(frozen=True)
class Result:
    """What one reader said of one labelled set under one seed. Shapes: groups int [N], overlap groups of the set."""

    reader: str
    task: LabelTask
    seed: int
    predictions: Predictions
    groups: np.ndarray
    seconds: float


def rows(results: Sequence[Result], done: Sequence[Pretrained], readers: Sequence[Reader] = READERS) -> list[dict]:
    """Return a row for each reader and number of labels, with scores a seed and paired differences."""
    out = []
    for reader in readers:
        for count in reader.counts:
            mine = [r for r in results if r.reader == reader.name and r.task.count == count]
            others = {
                "random": reader.against,
                "path features": PATH_FEATURES if reader.name != PATH_FEATURES else None,
                "frozen": reader.frozen,
            }
            if not mine:
                continue
            row: dict[str, Any] = {"reader": reader.name, "labels": count, "scores": _scores(mine)}
            row["fit_seconds"] = float(np.mean([r.seconds for r in mine]))
            if reader.encoder and not reader.path and not reader.trained_on and reader.head == "span":
                row["probe_gain"] = [one.probe["r2_gain"] for one in done if one.variant == reader.encoder]
            for what, name in others.items():
                # Of the same seeds: a reader that has two of them is not held against four of another.
                fits = {(r.task, r.seed) for r in mine}
                against = [r for r in results if r.reader == name and (r.task, r.seed) in fits]
                if against and name != reader.name:
                    row[f"joint against {what}"] = {"who": name, **_differences(mine, against)}
            out.append(row)
    return out


def _scores(mine: Sequence[Result]) -> dict[str, dict[str, list[float]]]:
    """Return each labeller's scores by seed, averaged over its labelled sets."""
    out: dict[str, dict[str, list[float]]] = {}
    for labeller in sorted({r.task.labeller for r in mine}):
        own = [r for r in mine if r.task.labeller == labeller]
        for metric in (F1, JOINT):
            by_seed = [[_score(r.predictions, metric) for r in own if r.seed == seed] for seed in _seeds(own)]
            out.setdefault(f"labeller {labeller}", {})[metric] = [float(np.mean(values)) for values in by_seed]
    return out


def _seeds(results: Sequence[Result]) -> list[int]:
    return sorted({r.seed for r in results})


def _score(predictions: Predictions, metric: str) -> float:
    return float(predictions.statistics()[metric](np.ones((1, len(predictions.label))))[0])


def _differences(a: Sequence[Result], b: Sequence[Result]) -> dict[str, list[float]]:
    """Return the paired difference of Joint@3 with its interval: each labeller, and all windows together."""
    labellers = sorted({r.task.labeller for r in a})
    chosen = {f"labeller {k}": [k] for k in labellers} | {"all": labellers}
    out = {}
    for name, kept in chosen.items():
        (one, groups), (other, _) = (_joined([r for r in side if r.task.labeller in kept]) for side in (a, b))
        out[name] = list(map(float, paired_difference(one, other, JOINT, groups)))
    return out


def _joined(results: Sequence[Result]) -> tuple[Predictions, np.ndarray]:
    """Lay labelled sets behind one another, a repeat a seed; sets share no bars, so no group spans two of them."""
    tasks, seeds = sorted({(r.task.labeller, r.task.seed) for r in results}), _seeds(results)
    by_key = {(r.task.labeller, r.task.seed, r.seed): r for r in results}
    firsts = [by_key[*task, seeds[0]] for task in tasks]
    groups, offset = [], 0
    for first in firsts:
        groups.append(first.groups + offset)
        offset = int(groups[-1].max()) + 1

    def stacked(what: str) -> np.ndarray:
        each = [[getattr(by_key[*task, seed].predictions, what) for task in tasks] for seed in seeds]
        return np.concatenate([np.concatenate(sets, axis=1) for sets in each])

    label, span = (np.concatenate([getattr(f.predictions, what) for f in firsts]) for what in ("label", "span"))
    joined = Predictions(label, span, stacked("probability"), stacked("predicted"), firsts[0].predictions.classes)
    return joined, np.concatenate(groups)


def threshold(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the probe gain that best separates frozen encoders that help from those that do not.

    An encoder helps where its Joint@3 beats the network at random with an interval clear of 0. The threshold lies in
    the middle of the widest gap among those with the fewest encoders on the wrong side; the margin is half that gap.
    """
    frozen = [row for row in found if row["labels"] == 174 and "probe_gain" in row]
    helps = {
        row["reader"]: row["joint against random"]["all"][1] > 0 if "joint against random" in row else False
        for row in frozen
    }
    gains = {row["reader"]: float(np.mean(row["probe_gain"])) for row in frozen}
    ordered = sorted(gains.values())
    options = []
    for low, high in pairwise(ordered):
        middle = (low + high) / 2
        wrong = [name for name in gains if (gains[name] > middle) != helps[name]]
        options.append((len(wrong), low - high, middle, wrong))
    best = min(options)
    return {"threshold": best[2], "margin": -best[1] / 2, "wrong": best[3], "gains": gains, "helps": helps}


def tables(report: dict[str, Any]) -> str:
    """Return the Markdown of docs/explanation/objectives.md."""
    found, out = report["rows"], []
    for count in sorted({row["labels"] for row in found}, key=lambda n: n != 174):
        out += [
            f"{count} labels:",
            "",
            "| reader | F1 | Joint@3 | F1, second labeller | Joint@3, second labeller | probe gain "
            "| Joint@3 over random | Joint@3 over path features |",
            "|---|---|---|---|---|---|---|---|",
            *(_line(row) for row in found if row["labels"] == count),
            "",
        ]
    out += [
        "174 labels, Joint@3, first labeller / second labeller:",
        "",
        "| reader | over random | over path features | over the same read frozen |",
        "|---|---|---|---|",
        *(_apart(row) for row in found if row["labels"] == 174 and "joint against path features" in row),
        "",
    ]
    gate = report["threshold"]
    out.append(
        f"Probe gain that separates best: {gate['threshold']:.3f} ± {gate['margin']:.3f}; on the wrong side: "
        f"{', '.join(gate['wrong']) or 'none'}."
    )
    return "\n".join(out)


def _line(row: dict[str, Any]) -> str:
    cells = [_spread(row["scores"][f"labeller {k}"][metric]) for k in (1, 2) for metric in (F1, JOINT)]
    cells.append(_spread(row["probe_gain"], 3) if "probe_gain" in row else "")
    for what in ("random", "path features"):
        difference = row.get(f"joint against {what}")
        cells.append(_interval(Interval(*difference["all"])) if difference else "")
    return f"| {row['reader']} | " + " | ".join(cells) + " |"


def _apart(row: dict[str, Any]) -> str:
    cells = []
    for what in ("random", "path features", "frozen"):
        difference = row.get(f"joint against {what}")
        each = (_interval(Interval(*difference[f"labeller {k}"])) for k in (1, 2)) if difference else ()
        cells.append(" / ".join(each))
    return f"| {row['reader']} | " + " | ".join(cells) + " |"


def _spread(values: Sequence[float], digits: int = 2) -> str:
    mean, spread = np.mean(values), np.std(values, ddof=1) if len(values) > 1 else 0.0
    return f"{mean:.{digits}f} ± {spread:.{digits}f}"


def _interval(one: Interval) -> str:
    return f"{one.mean:+.3f} ({one.lo:+.3f} to {one.hi:+.3f})"
