"""Fine-tune an event detector: fit it and its baselines on the same folds, and register it with its evidence."""

from __future__ import annotations

import time
from collections.abc import Sequence

from moola_mlflow.cli import steps
from moola_mlflow.cli.concluding import conclude, finetuned, register_detector
from moola_mlflow.core import FinetuneKeys, Interrupts, is_tuned
from moola_mlflow.evaluation import (
    EventEvidence,
    EventSetting,
    Gate,
    build_event_methods,
    collect_event_evidence,
    detector_gates,
    fit_event_methods,
    gates_summary,
    gates_table,
    ineffective_event_keys,
    make_event_setting,
    num_processes,
)
from moola_mlflow.labels import EventLabels
from moola_mlflow.models import Encoder, HeldOutFit, save_event_detector
from moola_mlflow.reports import (
    FinetuneResult,
    event_card,
    event_console_lines,
    event_doubts,
    event_figures,
    event_fit_line,
    event_note,
    event_version_tags,
    wrong_windows_page,
)
from moola_mlflow.tracking import Artifacts, Metrics, Run, Tags, load_encoders


def finetune_events(
    active: Run, config: FinetuneKeys, labels: EventLabels, preset: str, workers: int, interrupts: Interrupts
) -> FinetuneResult:
    """Fit an event detector and every baseline, score them out of fold, and register the detector."""
    started = time.perf_counter()
    steps.log_event_labels(active, labels)
    encoders = load_encoders(config.finetune.encoder)
    steps.log_encoders(active, encoders)
    unlabelled = steps.load_unlabelled(active, config, labels)
    setting = make_event_setting(labels, [encoder for _, encoder in encoders], config, unlabelled)
    overlap, warnings = steps.check_overlap(active, labels, encoders)
    warnings = [*labels.warnings, *warnings]
    evidence = _evidence(active, setting, workers, interrupts)
    idle = ineffective_event_keys(config, labels.counts()["none"] > 0)
    warnings += [*event_doubts(setting, evidence, config.gates.event_recall), *idle]
    gates = detector_gates(evidence.gate_figures(), config.gates)
    _log(active, setting, evidence, gates)
    uri = _register(active, setting, evidence, encoders, overlap, preset, gates_summary(gates))
    active.metrics({Metrics.TOTAL_SECONDS: time.perf_counter() - started})
    note = event_note(setting, evidence, gates, uri, warnings)
    conclude(active, note, warnings, event_console_lines(evidence, gates), gates, config.gates.mode, uri)
    return finetuned(active, evidence, uri)


def _evidence(active: Run, setting: EventSetting, workers: int, interrupts: Interrupts) -> EventEvidence:
    """Fit all methods on all repeats and score them. Raises: Interrupted if the command was asked to stop."""
    repeats, methods = [repeat for _, repeat, _ in setting.seeds()], build_event_methods(setting)
    processes = num_processes(workers, len(methods) * len(repeats))
    print(
        f"{len(setting.labels)} windows looked at, events: {setting.labels.counts()}; {setting.config.cv.folds} folds, "
        f"fits of each method: {len(repeats)}; {setting.settings.device}, {processes} "
        f"process{'es' if processes > 1 else ''}",
        flush=True,
    )

    def log(name: str, number: int, fit: HeldOutFit, seconds: float) -> None:
        active.beat()
        print(event_fit_line(name, repeats[number], fit, seconds), flush=True)

    with interrupts.deferred():  # raises at its end what interrupted it
        fits = fit_event_methods(
            setting, methods, workers=workers, on_fit=log, on_net=active.beat, should_stop=interrupts.reason,
            tuned=is_tuned(setting.config.runtime),
        )  # fmt: skip
    return collect_event_evidence(setting, fits)


def _log(active: Run, setting: EventSetting, evidence: EventEvidence, gates: Sequence[Gate]) -> None:
    active.metrics(evidence.metrics())
    active.json({**evidence.summary(), "config": setting.config.model_dump(mode="json")}, Artifacts.CV_SUMMARY)
    active.json(gates_table(gates), Artifacts.GATES)
    active.table(evidence.rows(), Artifacts.PREDICTIONS)
    active.json(evidence.scored_events(), Artifacts.SCORED_EVENTS)
    if rows := evidence.baseline_rows():
        active.table(rows, Artifacts.BASELINE_PREDICTIONS)
    active.text(wrong_windows_page(evidence), Artifacts.WRONG_WINDOWS_PAGE)
    for name, figure in event_figures(evidence).items():
        active.figure(figure, f"{Artifacts.FIGURES}{name}.png")
    tags = {Tags.GATES: gates_summary(gates), Tags.HEADLINE: evidence.headline()}
    active.tags({**tags, Tags.BASELINES: setting.config.cv.baselines})


def _register(
    active: Run,
    setting: EventSetting,
    evidence: EventEvidence,
    encoders: Sequence[tuple[str, Encoder]],
    overlap: float | None,
    preset: str,
    gates: str,
) -> str:
    """Save and register the detector of the first repeat: the average of the nets of all folds. Return its URI."""
    card = event_card(setting, evidence, encoders, overlap, active.id)
    save_event_detector(evidence.fit.detector.with_card(card), active.folder / Artifacts.DETECTOR)
    tags = event_version_tags(setting, evidence, preset, gates)
    return register_detector(active, setting.config.registry.name, tags)
