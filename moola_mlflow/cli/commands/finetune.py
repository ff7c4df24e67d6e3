"""finetune: labelled windows and an encoder to a calibrated detector, with the evidence for it."""

from __future__ import annotations

import time

from moola_mlflow.cli import steps
from moola_mlflow.cli.concluding import conclude, finetuned, register_detector
from moola_mlflow.cli.event_finetune import finetune_events
from moola_mlflow.cli.tracked_crossval import cross_validate_tracked
from moola_mlflow.core import (
    FinetuneKeys,
    Interrupts,
    configure_allocator,
    configure_threads,
    is_tuned,
    pick_device,
    pick_precision,
    usable_cores,
)
from moola_mlflow.evaluation import (
    Evidence,
    FinetuneSetting,
    collect_evidence,
    detector_gates,
    gates_summary,
    gates_table,
    ineffective_keys,
    left_out_baselines,
    make_setting,
    plan_folds,
    refit_detector,
)
from moola_mlflow.models import PatternDetector, save_detector
from moola_mlflow.reports import (
    FinetuneResult,
    collapse_warning,
    detector_card,
    detector_version_tags,
    evidence_figures,
    finetune_console_lines,
    finetune_note,
    list_doubts,
    uses_identity_encoder,
    wrong_windows_page,
)
from moola_mlflow.tracking import Artifacts, Metrics, Run, Tags, check_registry_kind, load_encoders, run_name


def run(config: FinetuneKeys, preset: str, interrupts: Interrupts) -> FinetuneResult:
    """Cross-validate a detector and its baselines, fit it again on all labels, and register it with its evidence."""
    started = time.perf_counter()
    tuned, allocator = is_tuned(config.runtime), configure_allocator(config.runtime)
    seeds = config.cv.seeds or (config.trainer.seed,)
    name = run_name("finetune", preset, seeds[0], config.project.name)
    with Run.start("finetune", name, config.tracking.experiment) as active:
        active.config(config)
        check_registry_kind(config.registry.name, "detector")  # before minutes of folds are spent
        configure_threads(config.runtime)
        device = pick_device(config.runtime.device)
        precision = pick_precision(config.runtime.precision, device, tuned)
        workers = (config.cv.workers or usable_cores()) if device.type == "cpu" else 1
        active.tags({Tags.DEVICE: device, Tags.PRECISION: precision, Tags.WORKERS: workers})
        active.tags({Tags.ALLOCATOR: allocator})
        if (events := steps.labels_with_events(config)) is not None:
            return finetune_events(active, config, events, preset, workers, interrupts)
        labels = steps.load_labels(active, config)
        folds = plan_folds(labels, config.cv, seeds)  # refuses sets that are too small before an encoder is fetched
        encoders = load_encoders(config.finetune.encoder)
        steps.log_encoders(active, encoders)
        setting = make_setting(labels, [encoder for _, encoder in encoders], config, device, precision)
        overlap, warnings = steps.check_overlap(active, labels, encoders)
        warnings = [*labels.warnings, *warnings, *steps.check_label_features(active, labels, config, encoders)]
        print(
            f"{len(labels)} labelled windows: {labels.counts()}; {len(folds)} folds in all; {device}, {precision}, "
            f"{workers} processes",
            flush=True,
        )
        outcomes = cross_validate_tracked(active, setting, folds, workers, interrupts)
        evidence = collect_evidence(
            labels, folds, outcomes, pretrained=setting.kind in ("frozen", "unfrozen"),
            left_out=left_out_baselines(setting),
        )  # fmt: skip
        warnings += [*list_doubts(setting, evidence), *ineffective_keys(config)]
        if collapse := collapse_warning(evidence, config.gates.recall):
            warnings.append(collapse)
        gates = detector_gates(evidence.gate_figures(uses_identity_encoder(setting)), config.gates)
        _log(active, config, evidence)
        active.json(gates_table(gates), Artifacts.GATES)
        card = detector_card(setting, evidence, encoders, overlap, active.id)
        uri = _refit(active, setting, evidence, card, preset, gates_summary(gates))
        active.metrics({Metrics.TOTAL_SECONDS: time.perf_counter() - started})
        tags = {Tags.GATES: gates_summary(gates), Tags.HEADLINE: evidence.headline()}
        active.tags({**tags, Tags.DELTA_INPUTS: setting.baseline_inputs, Tags.BASELINES: config.cv.baselines})
        note = finetune_note(setting, evidence, gates, uri, warnings)
        conclude(active, note, warnings, finetune_console_lines(evidence, gates), gates, config.gates.mode, uri)
    return finetuned(active, evidence, uri)


def _log(active: Run, config: FinetuneKeys, evidence: Evidence) -> None:
    active.metrics(evidence.metrics())
    active.json({**evidence.summary(), "config": config.model_dump(mode="json")}, Artifacts.CV_SUMMARY)
    active.table(evidence.rows(), Artifacts.PREDICTIONS)
    active.table(evidence.baseline_rows(), Artifacts.BASELINE_PREDICTIONS)
    active.text(wrong_windows_page(evidence), Artifacts.WRONG_WINDOWS_PAGE)
    for name, figure in evidence_figures(evidence).items():
        active.figure(figure, f"{Artifacts.FIGURES}{name}.png")


def _refit(
    active: Run, setting: FinetuneSetting, evidence: Evidence, card: dict[str, object], preset: str, gates: str
) -> str:
    """Fit on all labels, save and register; return the detector's URI."""
    encoder, head = refit_detector(setting, evidence.epochs(), setting.config.trainer.seed)
    detector = PatternDetector(
        head.cpu(), encoder.cpu() if encoder is not None else None, setting.inputs,
        setting.labels.classes, evidence.temperature(), card, setting.features,
    )  # fmt: skip
    save_detector(detector, active.folder / Artifacts.DETECTOR)
    tags = detector_version_tags(setting, evidence, preset, gates)
    return register_detector(active, setting.config.registry.name, tags)
