"""label: make weak labels from bars by a rule, so that fine-tuning runs without an annotator."""

from __future__ import annotations

from pathlib import Path

from moola_mlflow.cli.bar_steps import load_bars
from moola_mlflow.core import Interrupts, LabelKeys, UserError, check_outputs, is_true, markdown_code, note_outputs
from moola_mlflow.labels import (
    EventLabels,
    LabelledSet,
    Patterns,
    choose_events,
    choose_labels,
    find_patterns,
    labels_target,
    sample_bars,
    write_labels,
)
from moola_mlflow.reports import LabelResult, result_fields
from moola_mlflow.tracking import Artifacts, Metrics, Run, Tags, run_name

KIND = "labels by a rule"
WEAK = (
    "This is a WEAK labeller: a fixed rule ({rule}) made these labels from prices, nobody has looked at them. "
    "A score on them says how well the rule is imitated, not that a market can be read."
)


def run(
    config: LabelKeys,
    preset: str,
    interrupts: Interrupts,
    out: str = "out/labels.parquet",
    overwrite: str = "false",
) -> LabelResult:
    """Label windows of bars, log the result, and write the labelled set as parquet."""
    seed = config.trainer.seed
    name = run_name("label", Path(config.bars.path).stem, seed, config.project.name)
    with Run.start("label", name, config.tracking.experiment) as active:
        if config.bars.path == "sample":
            config = config.model_copy(update={"bars": sample_bars(config.bars, config.labels)})
        active.config(config)
        active.params({"out": out})
        active.tags({Tags.WEAK_LABELS: "true"})
        path = labels_target(out)
        bars = load_bars(active, config.bars, config.windows.length, "label")
        if any(Path(file.path).resolve() == path.resolve() for file in bars.files):
            raise UserError(f"out='{out}' holds the bars themselves; give another name, nothing was overwritten")
        check_outputs([path], KIND, is_true("overwrite", overwrite))
        length, gap = config.windows.length, config.bars.max_gap_minutes
        options = config.labels
        patterns = find_patterns(bars, seed, length, gap, options.overlap, options.rule, options.rejects)
        labels = (choose_events if options.rejects else choose_labels)(patterns, options.n, seed)
        write_labels(labels, path)
        if active.tracked:  # else the file is in a folder of its own
            note_outputs([path], KIND)
        active.metrics(_metrics(patterns, labels))
        active.tags({Tags.LABELS_SHA256: labels.sha256})
        if labels.warnings:
            active.tags({Tags.WARNINGS: " ".join(labels.warnings)})
        events = EventLabels.of(labels) if isinstance(labels, LabelledSet) else labels
        active.table(events.rows(), Artifacts.LABELS_TABLE)
        active.artifact(path)
        _tell(active, config, patterns, labels, path)
    return LabelResult(**result_fields(active), labels=events, path=path)


def _metrics(patterns: Patterns, labels: LabelledSet | EventLabels) -> dict[str, float]:
    return {
        Metrics.LABELS_CANDIDATES: patterns.num_candidates,
        Metrics.LABELS_CANDIDATES_NO_SURGE: patterns.num_no_surge,
        Metrics.LABELS_CANDIDATES_NO_LABEL: patterns.num_no_label,
        Metrics.LABELS_FOUND: int((patterns.label >= 0).sum()),
        Metrics.LABELS_USED: len(labels),
        **{f"{Metrics.LABELS}{name}": count for name, count in labels.counts().items()},
    }


def _tell(active: Run, config: LabelKeys, patterns: Patterns, labels: LabelledSet | EventLabels, path: Path) -> None:
    weak = WEAK.format(rule=patterns.rule)
    counts = ", ".join(f"{count:,} {name}" for name, count in labels.counts().items())
    summary = f"{len(labels):,} weak labels of {len(patterns.label):,} found: {counts}"
    if isinstance(labels, EventLabels):
        summary = f"{len(labels):,} windows that the rule looked at, of {len(patterns.label):,}: {counts}"
    warnings = "".join(f"\n\nWarning: {warning}" for warning in labels.warnings)
    active.note(
        f"**{summary}.**\n\n{weak}{warnings}\n\n"
        f"Bars {markdown_code(config.bars.path)}, content SHA-256 `{labels.sha256}`. "
        f"File: {markdown_code(path.resolve())}, and `runs:/{active.id}/{path.name}`."
    )
    for warning in labels.warnings:
        print(f"Warning: {warning}", flush=True)
    where = f"{path.resolve()}, and runs:/{active.id}/{path.name}"
    print(f"{summary} -> {where}\n{weak}\nsha256 {labels.sha256}", flush=True)
