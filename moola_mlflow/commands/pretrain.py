"""pretrain: raw bars to a registered encoder."""

from __future__ import annotations

import shutil
import signal
import time

from moola_mlflow import (
    checkpoint,
    console,
    distributed,
    encoder_files,
    gates,
    resume,
    runtime,
    stages,
    tracking,
)
from moola_mlflow.config import Config
from moola_mlflow.diagnosis import NumbersWrong
from moola_mlflow.errors import GateError
from moola_mlflow.events import EpochEnded, Event, MemoryRanOut, WentBack
from moola_mlflow.plots.training import curves_figure, lr_figure, reconstruction_figure
from moola_mlflow.pretraining import build_model, check_leak, check_names, follow
from moola_mlflow.probe import frozen_copy
from moola_mlflow.results import Results, encoder_card, note, score, version_tags
from moola_mlflow.resume import ResumePoint
from moola_mlflow.signals import Interrupted, Interrupts
from moola_mlflow.splits import split_by_time
from moola_mlflow.survey import survey
from moola_mlflow.tracking import Run
from moola_mlflow.trainer import Trainer

NUM_PICTURED = 3


def run(config: Config, preset: str, interrupts: Interrupts) -> None:
    """Train an encoder on bars, score it on the held-out split, log everything and register a version."""
    started = time.perf_counter()
    tuned = config.runtime.tune == "on"
    if tuned:
        runtime.tune_allocator()
    if runtime.rank():
        follow(config, interrupts)
        return
    name = tracking.run_name("pretrain", preset, config.trainer.seed)
    point = tracking.recorded("pretrain", lambda: resume.find(config))
    with Run(
        "pretrain", name, config.tracking.experiment, point.run_id if point and not point.fork else None
    ) as active:
        if not point:
            active.config(config)
        check_names(config)
        threads = runtime.set_threads(config.runtime.threads or (0 if tuned else runtime.allowed_cores()))
        device = runtime.pick_device(config.runtime.device)
        precision = runtime.pick_precision(config.runtime.precision, device, tuned)
        active.tags({"moola.device": device, "moola.precision": precision, "moola.threads": threads})
        bars = stages.load_bars(active, config, "training")
        windows = stages.cut_windows(bars, config)
        split = split_by_time(windows, config.split)
        active.metrics({f"split/{part}": len(getattr(split, part)) for part in ("train", "val", "test")})
        active.metrics({"split/dropped": split.dropped})
        source = stages.batch_source(windows, config, device)
        report = stages.check_features(active, source)
        print(
            f"{len(bars):,} bars, {len(windows):,} windows: {len(split.train):,} train, {len(split.val):,} val, "
            f"{len(split.test):,} test; {len(source.names)} features; {device}, {precision}, {threads} threads",
            flush=True,
        )
        train = survey(source, split.train)
        quality = train.report(report["swing_flip_rate"])
        model = build_model(config, source, *train.scaling()).to(device)
        del train  # the batches compute their own
        initial = frozen_copy(model.encoder)
        folder = active.folder / "checkpoints"
        keeper = checkpoint.CheckpointFolder(folder)
        world = distributed.join(device)
        trainer = Trainer(model, source, split, config, precision, keeper, run_id=active.id, world=world)
        active.tags({"moola.shards": trainer.engine.parts, "moola.processes": world.size})
        trainer.should_stop = interrupts.reason
        trainer.evaluation.fit_rulers()
        active.tags({"moola.identity": str(model.objective.identity).lower()})
        check_leak(trainer, active.metrics)
        if point:
            _go_on(active, trainer, point, bars.sha256)
            active.config(config)  # not before: a run that cannot go on so must stay as it was
        world.share_state(point.state if point else None)
        _fit(active, trainer, interrupts)
        world.leave()
        keeper.forget_previous()
        model.load_state_dict(checkpoint.load(folder / checkpoint.BEST)["model_state_dict"])
        results = score(trainer, initial, check_leak(trainer, active.metrics), started)
        _log_results(active, results)
        active.artifact(folder, "checkpoints")
        card = encoder_card(trainer, results, bars, quality, active.id)
        checked = gates.encoder_gates(card, config.gates)
        active.json(gates.table(checked), "gates.json")
        encoder_files.save_encoder(model.encoder, card, active.folder / "encoder")
        active.artifact(active.folder / "encoder", "encoder")
        uri, registered = f"runs:/{active.id}/encoder", "not registered"
        if config.registry.name != "none":
            tags = version_tags(card, preset, results, checked)
            version = active.register("encoder", config.registry.name, active.folder / "encoder", tags)
            registered = f"{config.registry.name}, by moola sync {active.folder}"
            if version:
                uri = f"models:/{config.registry.name}/{version}"
                registered = f"{config.registry.name} version {version}"
        active.note(note(results, preset, uri, checked))
        verdict = gates.summary(checked)
        print(f"Test: {results.headline()}\nGates {verdict}\nRun {active.id}: {registered}", flush=True)
        if config.gates.mode == "strict" and not gates.all_passed(checked):
            raise GateError(f"gates {verdict}. The run is logged whole ({registered}); gates.mode is strict")


def _go_on(active: Run, trainer: Trainer, point: ResumePoint, sha256: str) -> None:
    """Take up the state that a run left; what its curves lack of finished epochs is logged now."""
    point.check_data(sha256)
    for text in point.warnings:
        print(f"Warning: {text}", flush=True)
    trainer.restore(point.state)
    if point.fork:  # only now that the state is known to fit
        shutil.copytree(point.folder / "checkpoints", trainer.folder.folder, dirs_exist_ok=True)
        active.tags({"moola.forked_from": point.run_id})
    trainer.folder.load_latest()
    if point.drift:
        active.tags({"moola.drift": point.drift_text()})
    progress = trainer.progress
    logged = active.steps("val/huber")
    for epoch, metrics in enumerate(progress.history):
        if epoch not in logged:
            active.metrics(metrics, step=epoch)
    print(f"Going on with run {point.run_id} at epoch {progress.epoch + 1}, step {progress.step + 1}", flush=True)


def _fit(active: Run, trainer: Trainer, interrupts: Interrupts) -> None:
    every = trainer.config.tracking.figures_every
    # Not empty where an older checkpoint had to be taken: those epochs come out the same, and have their points.
    logged = active.steps("val/huber")

    def track(event: Event) -> None:
        if isinstance(event, WentBack):
            active.json(event.error.diagnosis, "diagnosis.json")
            active.tags({"moola.nan_retry": f"epoch {event.epoch} again at {event.lr_scale:g} of the learning rate"})
        if isinstance(event, MemoryRanOut):
            active.tags({"moola.micro_batch": event.micro_batch})
        if not isinstance(event, EpochEnded):
            return
        if event.epoch not in logged:
            active.metrics(event.metrics, step=event.epoch)
        active.beat()
        if event.epoch % every == 0 or event.epoch == event.epochs - 1:
            names, title = trainer.model.objective.targets, f"validation windows, epoch {event.epoch}"
            picture = reconstruction_figure(*trainer.evaluation.reconstruct(NUM_PICTURED), names, title)
            active.figure(picture, f"figures/reconstruction_epoch_{event.epoch:03d}.png")

    display = console.TrainingDisplay(trainer.config.trainer.epochs, trainer.steps)
    trainer.subscribers = (display, track)
    with interrupts.deferred(), display:  # raises Interrupted at its end where training was asked to stop
        try:
            stopped = trainer.fit().stopped
        except NumbersWrong as e:
            active.json(e.diagnosis, "diagnosis.json")
            raise
        if stopped:
            print(f"Stopped; the state of the training is in {trainer.folder.folder / checkpoint.LATEST}", flush=True)
            if not interrupts.reason():  # another process was asked
                raise Interrupted(signal.SIGTERM)


def _log_results(active: Run, results: Results) -> None:
    active.metrics(results.metrics())
    active.json(results.skills(), "skill.json")
    active.json(results.published(), "training_results.json")
    active.figure(curves_figure(results.history, results.best_epoch), "figures/loss_curves.png")
    active.figure(lr_figure(results.history), "figures/learning_rate.png")
