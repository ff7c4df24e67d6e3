"""evaluate: score a registered detector on bars, by labels or by a rule: curves, a table, charts of its errors."""

from __future__ import annotations

import time
from pathlib import Path

from rich.table import Table

from moola_mlflow.bars import Bars
from moola_mlflow.cli.bar_steps import load_bars
from moola_mlflow.cli.progress import table_console
from moola_mlflow.cli.scanning import (
    Detector,
    log_best_rows,
    open_detector,
    place_detector,
    results_folder,
    scan_precision,
    show_windows,
)
from moola_mlflow.core import (
    EvaluateKeys,
    Interrupts,
    UserError,
    check_outputs,
    configure_allocator,
    configure_threads,
    is_true,
    note_outputs,
)
from moola_mlflow.evaluation import (
    BarsTruth,
    FoundEvents,
    collect_bars_evidence,
    find_at_any_score,
    truth_of_labels,
    truth_of_rule,
)
from moola_mlflow.labels import EventLabels, Rule, find_rule
from moola_mlflow.models import check_thresholds
from moola_mlflow.reports import SCORE_HEADERS, EvaluateReport, EvaluateResult, result_fields
from moola_mlflow.tracking import Artifacts, Run, Tags, read_true_labels, run_name

FILES = (Artifacts.EVALUATION_PAGE, Artifacts.EVALUATION, Artifacts.EVALUATION_TABLE)
KIND = "evaluation"


def run(
    config: EvaluateKeys, preset: str, interrupts: Interrupts, out: str = "", overwrite: str = "false"
) -> EvaluateResult:
    """Scan bars with a detector, judge its events, and log scores, a table and a page; copy the files to ``out``."""
    allocator = configure_allocator(config.runtime)
    name = run_name("evaluate", Path(config.bars.path).stem, 0, config.project.name)
    with Run.start("evaluate", name, config.tracking.experiment) as active:
        active.config(config)
        active.params({"out": out or "none"})
        configure_threads(config.runtime)
        _check_truth_keys(config)
        folder = results_folder(out, *FILES)
        outputs = [folder / file for file in FILES] if folder else []
        check_outputs(outputs, KIND, is_true("overwrite", overwrite))
        detector, uri = open_detector(active, config.detect.detector)
        check_thresholds(config.given(), detector)
        precision, device = scan_precision(config), place_detector(detector, config)
        active.tags({Tags.DEVICE: device, Tags.PRECISION: precision, Tags.ALLOCATOR: allocator})
        labels = _labels(active, config, detector.length)
        rule = None if labels is not None else _rule(config, detector)
        bars = load_bars(active, config.bars, detector.length, "evaluate")
        started = time.perf_counter()
        gap = config.bars.max_gap_minutes
        found = find_at_any_score(bars, detector, config.detect, gap, precision, show_windows(active))
        truth = _truth(active, config, found, labels, rule)
        evidence = collect_bars_evidence(found, truth, config.evaluate.block_bars, config.evaluate.strict)
        report = EvaluateReport(evidence, detector, uri, config, labels)
        active.tags({Tags.TRUTH: truth.source, Tags.HEADLINE: evidence.headline()})
        for place in [active.folder, *([folder] if folder else [])]:
            report.write(place)
        note_outputs(outputs, KIND)
        for file in FILES:
            active.artifact(active.folder / file)
        log_best_rows(active, report.errors(), "score", Artifacts.ERRORS_TABLE)
        for title, figure in report.figures().items():
            active.figure(figure, f"{Artifacts.FIGURES}{title}.png")
        active.metrics(report.metrics(time.perf_counter() - started))
        if report.warnings:
            active.tags({Tags.WARNINGS: " ".join(report.warnings)})
        active.note(report.note(active.id))
        _print(report, active.id, f"{folder / FILES[0]}" if folder else f"{FILES[0]} of the run")
    table, headline = evidence.table(), evidence.headline()
    return EvaluateResult(**result_fields(active), headline=headline, table=table, evidence=evidence)


def _check_truth_keys(config: EvaluateKeys) -> None:
    """Refuse keys of the truth that is not asked for. Raises: UserError."""
    given, by_rule = config.given(), ("evaluate.rule", "evaluate.strict")
    if config.labels.path and (also := [key for key in by_rule if key in given]):
        raise UserError(f"labels='{config.labels.path}' and {also[0]}={given[also[0]]} each say what is true; give one")
    if not config.labels.path and "evaluate.margin" in given:
        raise UserError("evaluate.margin is about labels, and none are given; name them with labels=")


def _labels(active: Run, config: EvaluateKeys, length: int) -> EventLabels | None:
    """Read the labels that say what is true, and log them as an input. None: a rule says it."""
    if not config.labels.path:
        return None
    labels = read_true_labels(config.labels, length)
    active.labels(labels, "evaluate")
    active.tags({Tags.LABELS_SHA256: labels.sha256})
    return labels


def _rule(config: EvaluateKeys, detector: Detector) -> Rule:
    """Return the rule that says what is true: the one that is asked for, or that of the detector's weak labels."""
    own = detector.card.get("labels") or {}
    named = config.evaluate.rule or (str(own.get("rule") or "") if own.get("weak") else "")
    if not named:
        raise UserError(
            "what is true is not known: the detector's labels are not of a rule; give windows that you looked at with "
            "labels=FILE, or a rule with evaluate.rule=surge-1"
        )
    return find_rule(named)


def _truth(
    active: Run, config: EvaluateKeys, found: FoundEvents, labels: EventLabels | None, rule: Rule | None
) -> BarsTruth:
    bars: Bars = found.bars
    if labels is not None:
        return truth_of_labels(bars, labels, found.classes, config.evaluate.margin)
    assert rule is not None
    print(f"Truth: the rule {rule.name} reads a window at every bar", flush=True)
    gap = config.bars.max_gap_minutes
    return truth_of_rule(bars, rule, found.classes, found.windows.length, gap, show_windows(active))


def _print(report: EvaluateReport, run_id: str, where: str) -> None:
    scores, figures = Table(*SCORE_HEADERS), Table("", "", show_header=False)
    for row in report.score_rows():
        scores.add_row(*row)
    for pair in report.figure_rows():
        figures.add_row(*pair)
    for table in (scores, figures):
        table_console().print(table)
    for text in [*(f"Warning: {text}" for text in report.warnings), *(f"Note: {text}" for text in report.notes)]:
        print(text, flush=True)
    print(f"{report.scored()}\n{report.evidence.headline()} -> {where}\n{report.next_step(run_id)}", flush=True)
