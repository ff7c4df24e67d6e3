"""The tracked half of a pre-training: follow the first process, resume a run, log each epoch as it ends."""

from __future__ import annotations

import shutil
import signal

import torch

from moola_mlflow.cli import progress as progress_module
from moola_mlflow.core import (
    Interrupted,
    Interrupts,
    PretrainKeys,
    configure_threads,
    is_launched,
    is_tuned,
    pick_device,
    pick_precision,
)
from moola_mlflow.models import LATEST_CHECKPOINT, Checkpointer
from moola_mlflow.tracking import Artifacts, Metrics, ResumePoint, Run, Tags, end_lost_run, resume_command
from moola_mlflow.training import (
    EpochEnded,
    MemoryRanOut,
    NumbersWrong,
    PeerLost,
    Trainer,
    TrainingEvent,
    WentBack,
    World,
    build_trainer,
    check_alike,
    check_names,
    join_world,
    prepare,
)

NUM_PICTURED = 3


def follow(config: PretrainKeys, interrupts: Interrupts) -> None:
    """Train as one of several processes, but not the first. Only the first one tracks and writes.

    If the first process is killed, nobody else sets the run's status, so this process does. ``torchrun`` then sends
    SIGTERM to all that are left. Whichever this process notices first, it writes the status before it ends.

    Raises: UserError; PeerLost; Interrupted.
    """
    configure_threads(config.runtime)
    device = pick_device(config.runtime.device)
    world = join_world(device)
    try:
        _train_along(config, world, device, interrupts)
    except (PeerLost, Interrupted):
        with interrupts.deferred():
            end_lost_run(world.run_id)
            raise


def _train_along(config: PretrainKeys, world: World, device: torch.device, interrupts: Interrupts) -> None:
    precision = pick_precision(config.runtime.precision, device, is_tuned(config.runtime))
    check_names(config)
    data = prepare(config, device)
    trainer = build_trainer(config, data, precision, world=world)
    check_alike(trainer, config, data.bars.sha256)
    trainer.should_stop = interrupts.reason
    trainer.evaluation.fit_baselines()
    if state := world.share_state(None):
        trainer.restore(state)
    with interrupts.deferred():
        trainer.fit()
    world.leave()


def go_on(active: Run, trainer: Trainer, checkpointer: Checkpointer, point: ResumePoint, sha256: str) -> None:
    """Restore the state of an interrupted run, and log the finished epochs that are missing from its curves."""
    point.check_data(sha256)
    for text in point.checkpoint.warnings:
        print(f"Warning: {text}", flush=True)
    trainer.restore(point.checkpoint.state)
    if point.fork:  # only now that the state is known to fit
        shutil.copytree(point.folder / "checkpoints", checkpointer.folder, dirs_exist_ok=True)
        active.tags({Tags.FORKED_FROM: point.run_id})
    checkpointer.go_on(point.checkpoint)
    if point.drift:
        active.tags({Tags.DRIFT: point.drift_text()})
    progress = trainer.progress
    logged = active.steps(Metrics.VAL_HUBER)
    for epoch, metrics in enumerate(progress.history):
        if epoch not in logged:
            active.metrics(metrics, step=epoch)
    print(f"Going on with run {point.run_id} at epoch {progress.epoch + 1}, step {progress.step + 1}", flush=True)


def fit_tracked(active: Run, trainer: Trainer, figures_every: int, interrupts: Interrupts) -> None:
    """Train, and log epochs, pictures and errors as they come.

    Raises: NumbersWrong; PeerLost; Interrupted if a signal asked training to stop.
    """
    # Not empty if training went back to an older checkpoint: those epochs give the same metrics, logged already.
    logged = active.steps(Metrics.VAL_HUBER)

    def track(event: TrainingEvent) -> None:
        if isinstance(event, WentBack):
            active.json(event.error.diagnosis, Artifacts.DIAGNOSIS)
            active.tags({Tags.NAN_RETRY: f"epoch {event.epoch + 1} again at {event.lr_scale:g} of the learning rate"})
        if isinstance(event, MemoryRanOut):
            active.tags({Tags.MICRO_BATCH: event.micro_batch})
        if not isinstance(event, EpochEnded):
            return
        if event.epoch not in logged:
            active.metrics(event.metrics, step=event.epoch)
        active.beat()
        active.draw_waiting()
        if event.epoch % figures_every == 0 or event.epoch == event.epochs - 1:
            from moola_mlflow.reports import reconstruction_figure

            names, title = trainer.model.objective.targets, f"validation windows, epoch {event.epoch + 1}"
            picture = reconstruction_figure(*trainer.evaluation.reconstruct(NUM_PICTURED), names, title)
            active.figure(picture, f"{Artifacts.RECONSTRUCTION_FIGURE}{event.epoch:03d}.png")

    display = progress_module.TrainingDisplay(trainer.epochs, trainer.steps)
    trainer.subscribers = (display, track)
    with interrupts.deferred(), display:  # raises Interrupted at its end if a signal came
        try:
            stopped = trainer.fit().stopped
        except NumbersWrong as e:
            active.json(e.diagnosis, Artifacts.DIAGNOSIS)
            active.draw_waiting()
            raise
        if stopped:
            print(
                f"Stopped; the state of the training is in {active.folder / 'checkpoints' / LATEST_CHECKPOINT}. "
                f"Go on with:\n{resume_command(active.folder, is_launched())}",
                flush=True,
            )
            if not interrupts.reason():  # the signal came to another process
                raise Interrupted(signal.SIGTERM)
