"""pretrain: raw bars to a registered encoder."""

from __future__ import annotations

import time

import pandas as pd

from moola_mlflow.cli import steps
from moola_mlflow.cli.concluding import local_model
from moola_mlflow.cli.tracked_training import fit_tracked, follow, go_on
from moola_mlflow.core import (
    GateError,
    Interrupts,
    PretrainKeys,
    configure_allocator,
    configure_threads,
    is_tuned,
    pick_device,
    pick_precision,
    process_rank,
)
from moola_mlflow.evaluation import all_gates_passed, encoder_gates, frozen_copy, gates_summary, gates_table
from moola_mlflow.models import BEST_CHECKPOINT, Checkpointer, about_training, load_checkpoint, save_encoder
from moola_mlflow.reports import (
    PretrainResult,
    Results,
    encoder_card,
    encoder_version_tags,
    pretrain_note,
    result_fields,
    score_encoder,
)
from moola_mlflow.tracking import Artifacts, ResumePoint, Run, Tags, find_resume_point, run_name, with_failure_recorded
from moola_mlflow.training import (
    build_trainer,
    check_alike,
    check_leak,
    check_names,
    describe_processes,
    join_world,
    prepare,
)


def run(config: PretrainKeys, preset: str, interrupts: Interrupts) -> PretrainResult | None:
    """Train an encoder on bars, score it on the held-out split, log everything and register a version.

    A process that follows the first one of several returns None.
    """
    started = time.perf_counter()
    allocator = configure_allocator(config.runtime)
    if process_rank():
        follow(config, interrupts)
        return None
    name = run_name("pretrain", preset, config.trainer.seed, config.project.name)
    with_failure_recorded("pretrain", lambda: check_names(config))
    point = with_failure_recorded("pretrain", lambda: find_resume_point(config))
    with _open(config, name, point) as active:
        if not point:
            active.config(config)
        threads = configure_threads(config.runtime)
        device = pick_device(config.runtime.device)
        precision = pick_precision(config.runtime.precision, device, is_tuned(config.runtime))
        active.tags({Tags.DEVICE: device, Tags.PRECISION: precision, Tags.THREADS: threads})
        active.tags({Tags.ALLOCATOR: allocator})
        world = join_world(device, active.id)  # before bars are read: a process that is lost later is noticed
        data = prepare(config, device, steps.LoggedPreparation(active, config))
        bars, split, source = data.bars, data.split, data.source
        folder = active.folder / "checkpoints"
        checkpointer = Checkpointer(folder, about_training(config, active.id))
        trainer = build_trainer(config, data, precision, checkpointer, world)
        model = trainer.model
        active.tags({Tags.SHARDS: trainer.engine.parts, Tags.PROCESSES: world.size})
        print(
            f"{len(bars):,} bars, {len(source.windows):,} windows: {len(split.train):,} train, {len(split.val):,} val, "
            f"{len(split.test):,} test; {len(source.input_names)} features; {device}, {precision}, "
            f"{describe_processes(world.size, trainer.engine.parts, threads)}",
            flush=True,
        )
        check_alike(trainer, config, bars.sha256)
        trainer.should_stop = interrupts.reason
        trainer.evaluation.fit_baselines()
        for text in model.objective.notes():
            print(text, flush=True)
        model.encoder.task_heads = model.objective.task_heads()
        initial = frozen_copy(model.encoder)
        active.tags({Tags.IDENTITY: str(model.objective.identity).lower()})
        check_leak(trainer, active.metrics)
        if point:
            go_on(active, trainer, checkpointer, point, bars.sha256)
            active.config(config)  # not before: a run that cannot go on so must stay as it was
        world.share_state(point.checkpoint.state if point else None)
        fit_tracked(active, trainer, config.tracking.figures_every, interrupts)
        active.draw_waiting()  # of a run that had no epoch left
        world.leave()
        checkpointer.finish()
        model.load_state_dict(load_checkpoint(folder / BEST_CHECKPOINT)["model_state_dict"])
        results = score_encoder(trainer, config, initial, check_leak(trainer, active.metrics), started)
        _log_results(active, results)
        active.artifact(folder, "checkpoints")
        card = encoder_card(trainer, results, bars, dict(data.quality), active.id)
        checked = encoder_gates(card, config.gates)
        active.json(gates_table(checked), Artifacts.GATES)
        model.encoder.task_heads = model.objective.task_heads()
        save_encoder(model.encoder, card, active.folder / Artifacts.ENCODER)
        active.artifact(active.folder / Artifacts.ENCODER, Artifacts.ENCODER)
        uri, registered = active.uri(Artifacts.ENCODER), "not registered"
        if config.registry.name != "none":
            tags = encoder_version_tags(card, preset, results, checked)
            version = active.register("encoder", config.registry.name, active.folder / "encoder", tags)
            registered = f"{config.registry.name}, by moola sync {active.folder}"
            if version:
                uri = f"models:/{config.registry.name}/{version}"
                registered = f"{config.registry.name} version {version}"
        active.note(pretrain_note(results, preset, uri, checked))
        outcome = gates_summary(checked)
        print(f"Test: {results.headline()}\nGates {outcome}\nEncoder: {registered}", flush=True)
        if config.gates.mode == "strict" and not all_gates_passed(checked):
            raise GateError(f"gates {outcome}. The run is logged whole ({registered}); gates.mode is strict")
    encoder = local_model(active, uri, Artifacts.ENCODER)
    return PretrainResult(
        **result_fields(active), encoder=encoder, best_epoch=results.best_epoch, history=pd.DataFrame(results.history)
    )


def _open(config: PretrainKeys, name: str, point: ResumePoint | None) -> Run:
    if point and not point.fork:
        return Run.resume(point.run_id, "pretrain", name, config.tracking.experiment)
    return Run.start("pretrain", name, config.tracking.experiment)


def _log_results(active: Run, results: Results) -> None:
    from moola_mlflow.reports import curves_figure, lr_figure

    active.metrics(results.metrics())
    active.json(results.skills(), Artifacts.SKILL)
    active.json(results.published(), Artifacts.TRAINING_RESULTS)
    active.text(results.curves_page(f"Training: {active.id or active.folder.name}"), Artifacts.CURVES_PAGE)
    active.figure(curves_figure(results.history, results.best_epoch), Artifacts.LOSS_CURVES_FIGURE)
    active.figure(lr_figure(results.history), Artifacts.LEARNING_RATE_FIGURE)
