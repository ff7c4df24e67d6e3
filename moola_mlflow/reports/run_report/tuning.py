"""Write the report's sections on fine-tunings: the two phases, impact, classes and pointers."""

from __future__ import annotations

from collections.abc import Sequence

from moola_mlflow.core import Metrics
from moola_mlflow.evaluation import ORACLE_BASELINES, Interval
from moola_mlflow.reports.document import Block, Heading, Mono, Notice, Para, Picture, Strong, Table, Text
from moola_mlflow.reports.run_report.conclusions import shown, signed, title
from moola_mlflow.reports.run_report.facts import FINISHED, Tuned
from moola_mlflow.reports.run_report.pretraining import absent, commit, duration, gate_table
from moola_mlflow.tracking import Artifacts, RunRecord, Tags

SECTIONS = {
    "frozen": ("Phase 1: frozen encoder", "No fine-tuning has used this encoder frozen."),
    "unfrozen": ("Phase 2: unfrozen encoder", "No fine-tuning has trained this encoder further."),
}
SCORES = {
    "f1_macro": "F1 macro", "accuracy": "accuracy", "joint_success_at_3": "Joint@3", "joint_success_at_5": "Joint@5",
    "auroc": "AUROC", "auprc": "AUPRC", "ece": "ECE", "brier": "Brier",
}  # fmt: skip
POINTERS = {
    "hit_at_3": "centre within 3 bars", "hit_at_5": "centre within 5 bars", "centre_mae": "centre, mean error in bars",
    "length_mae": "length, mean error in bars",
}  # fmt: skip
FIGURES = {
    "paired_differences": "Difference between the detector and each baseline, on the same windows.",
    "confusion": "Labelled and predicted classes, out of fold.",
    "recall": "Recall of each class, with its interval.",
    "pointer_errors": "Errors of the pointers.",
    "reliability": "Confidence against accuracy, before and after temperature.",
}

Pair = tuple[RunRecord, Tuned]


def shown_of(pairs: Sequence[Pair], kind: str) -> Pair | None:
    """Return the run of a kind that is reported in full: the newest that holds scores.

    It is never chosen by its score, because the best of several runs scores too well by chance.
    """
    of_kind = [pair for pair in pairs if pair[1].kind == kind]
    return next((pair for pair in reversed(of_kind) if pair[1].done), of_kind[-1] if of_kind else None)


def phase(kind: str, pairs: Sequence[Pair], command: str) -> list[Block]:
    """Return the section of one phase: all its runs, and the newest in full."""
    heading, missing = SECTIONS[kind]
    blocks: list[Block] = [Heading(heading)]
    pair = shown_of(pairs, kind)
    if pair is None:
        return [*blocks, absent(missing, command)]
    of_kind = [one for one in pairs if one[1].kind == kind]
    if len(of_kind) > 1:
        rows: list[tuple[Text, ...]] = [
            (Mono(run.id), run.name, run.status, *(_score(t, name) for name in ("f1_macro", "joint_success_at_3")))
            for run, t in of_kind
        ]
        blocks += [
            Para(
                "All runs of this phase. The newest that holds scores follows in full. It is not chosen by its score."
            ),
            Table(["run", "name", "status", "F1 macro", "Joint@3"], rows),
        ]
    run, t = pair
    blocks.append(_setup(run, t))
    if not t.done:
        return [*blocks, absent(f"This run has no scores: it is {t.status}.", command)]
    if t.warnings:
        blocks.append(Notice(f"Warning of the run: {t.warnings}", "warn"))
    rows2 = [(label, shown(t.scores[name]), _std(t, name)) for name, label in SCORES.items() if name in t.scores]
    if t.ece_before is not None:
        rows2.append(("ECE before temperature", f"{t.ece_before:.3f}", "–"))
    blocks.append(Table(["out of fold", "mean, 95 % interval", "std over folds"], rows2))
    return [*blocks, *gate_table(t.gates)]


def _setup(run: RunRecord, t: Tuned) -> Table:
    config = run.config
    tune, cv, trainer, optimizer = (config.get(name) or {} for name in ("finetune", "cv", "trainer", "optimizer"))
    rates = f"lr {optimizer.get('lr')}" + (f", head {tune['head_lr']}" if tune.get("head_lr") else "")
    if t.kind == "unfrozen":
        first = (tune.get("unfreeze_at") or 0) + 1
        rates += f", encoder {tune.get('encoder_lr') or optimizer.get('lr')} from epoch {first} on"
    seeds = cv.get("seeds") or [trainer.get("seed")]
    rows: list[tuple[Text, ...]] = [
        ("run", (Mono(run.id), f" {run.name}")),
        ("status", Strong(run.status, run.status == FINISHED)),
        ("commit", commit(run)),
        ("encoder", (Mono(str(tune.get("encoder"))), f" and {t.others} more" if t.others else "")),
        ("labels", (Mono(run.tags.get(Tags.DATA_SHA256, "not recorded")), " (SHA-256), ", _counts(t))),
        ("detector", f"head {tune.get('head')}, inputs {tune.get('inputs')}, {trainer.get('epochs')} epochs, {rates}"),
        ("cross-validation", f"folds {cv.get('folds')}, repeats {cv.get('repeats')}, seeds "
                             f"{', '.join(map(str, seeds))}; purged; {t.num_groups or '?'} groups of windows"),
    ]  # fmt: skip
    if Metrics.TOTAL_SECONDS in run.metrics:
        rows.append(("time", duration(run.metrics[Metrics.TOTAL_SECONDS])))
    return Table(["setting", "value"], rows)


def _counts(t: Tuned) -> str:
    return ", ".join(f"{count} {name}" for name, count in t.counts.items()) or "counts not recorded"


def _score(t: Tuned, name: str) -> str:
    return shown(t.scores[name]) if name in t.scores else "–"


def _std(t: Tuned, name: str) -> str:
    value = t.std.get(name)
    return f"{value:.3f}" if value is not None and value == value else "–"


def impact(pairs: Sequence[Pair], command: str) -> list[Block]:
    """Return how each phase's detector compares with every baseline on the same folds."""
    blocks: list[Block] = [Heading("Impact of the pre-training")]
    reported = [pair for kind in SECTIONS if (pair := shown_of(pairs, kind)) and pair[1].done]
    if not reported:
        return [*blocks, absent("There is no comparison with baselines yet.", command)]
    for run, t in reported:
        blocks += [Heading(f"{SECTIONS[t.kind][0]}, and its baselines", 3)]
        blocks.append(Notice(t.headline, {"gain": "good", "loss": "bad"}.get(t.claim() or "", "")))
        rows: list[tuple[Text, ...]] = [
            (Strong("detector"), _score(t, "f1_macro"), _score(t, "joint_success_at_3"), "", "")
        ]
        for name, row in t.baselines.items():
            d = t.differences.get(name, {}).get("joint_success_at_3")
            cells = [shown(row[key]) if key in row else "–" for key in ("f1_macro", "joint_success_at_3")]
            word = "not counted: it knows how weak labels are made" if t.weak and name in ORACLE_BASELINES else _word(d)
            rows.append((title(name, t.kind), *cells, signed(d) if d else "–", word))
        blocks.append(Table(["method", "F1 macro", "Joint@3", "detector minus method (Joint@3)", "result"], rows))
        blocks += _figures(run, t, ("paired_differences",))
    return blocks


def _word(difference: Interval | None) -> Text:
    if difference is None:
        return ""
    if difference.lo > 0:
        return Strong("gain", True)
    return Strong("loss", False) if difference.hi < 0 else "no gain"


def classes_and_pointers(pairs: Sequence[Pair], command: str) -> list[Block]:
    """Return the scores of each class, and those of the pointers."""
    blocks: list[Block] = [Heading("Classes and pointers")]
    reported = [pair for kind in SECTIONS if (pair := shown_of(pairs, kind)) and pair[1].done]
    if not reported:
        return [*blocks, absent("There are no scores by class and of the pointers yet.", command)]
    for run, t in reported:
        names = [name.removeprefix("recall_") for name in t.scores if name.startswith("recall_")]
        rows = [
            (
                name,
                str(t.counts.get(name, "?")),
                *(_score(t, f"{kind}_{name}") for kind in ("precision", "recall", "f1")),
            )
            for name in names
        ]
        blocks += [
            Heading(f"{SECTIONS[t.kind][0]}, by class", 3),
            Table(["class", "windows", "precision", "recall", "F1"], rows),
            Table(["pointers", "mean, 95 % interval"], [(text, _score(t, name)) for name, text in POINTERS.items()]),
            *_figures(run, t, ("confusion", "recall", "pointer_errors", "reliability")),
        ]
    return blocks


def _figures(run: RunRecord, t: Tuned, names: Sequence[str]) -> list[Block]:
    phase_number = 1 + list(SECTIONS).index(t.kind)
    return [
        Picture(f"phase{phase_number}-{name}.png", png, FIGURES[name])
        for name in names
        if (png := run.bytes(f"{Artifacts.FIGURES}{name}.png"))
    ]
