"""Training one configuration on prepared data: what ``pretrain`` does once and every trial of a sweep does again."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from moola_mlflow import abandoned, checkpoint, console, distributed, runtime, stages
from moola_mlflow.bars import Bars, read_bars
from moola_mlflow.batches import BatchSource
from moola_mlflow.checkpoint import CheckpointFolder
from moola_mlflow.config import Config
from moola_mlflow.diagnosis import NumbersWrong
from moola_mlflow.distributed import PeerLost, World
from moola_mlflow.encoders import build_encoder
from moola_mlflow.errors import TrainingError
from moola_mlflow.events import EpochEnded, Event, MemoryRanOut, WentBack
from moola_mlflow.features import feature_names
from moola_mlflow.features.quality import check_quality
from moola_mlflow.objectives import build_objective
from moola_mlflow.resume import ResumePoint
from moola_mlflow.sharding import Pretraining
from moola_mlflow.signals import Interrupted, Interrupts
from moola_mlflow.splits import Split, split_by_time
from moola_mlflow.survey import survey
from moola_mlflow.tracking import Run
from moola_mlflow.trainer import Trainer
from moola_mlflow.windows import Windows, check_drawn

NUM_PICTURED = 3
SECTIONS = ("bars", "features", "windows", "split")
"""Sections of the configuration that training data depends on."""
COMMON = (*SECTIONS, "encoder", "objective", "optimizer", "schedule", "trainer")
"""Sections that all processes of a training must agree on."""


@dataclass(frozen=True)
class TrainingData:
    """Bars cut, split and checked; configurations that agree in ``SECTIONS`` can share it. Shapes: mean, std [F]."""

    bars: Bars
    source: BatchSource
    split: Split
    mean: Tensor
    std: Tensor
    quality: dict[str, object]
    """The feature quality report of the training windows alone."""


def prepare(config: Config, device: torch.device) -> TrainingData:
    """Read, cut, split and check without logging anything.

    Raises: UserError for bars or features that cannot be learned from.
    """
    bars = read_bars(config.bars, min_bars=config.windows.length)
    windows, split = cut_and_split(bars, config)
    source = stages.batch_source(windows, config, device)
    train = survey(source, split.train)
    quality = train.report(source.flip_rate())
    check_quality(quality)
    return TrainingData(bars, source, split, *train.scaling(), quality)


def cut_and_split(bars: Bars, config: Config) -> tuple[Windows, Split]:
    """Return the configured windows and their split.

    Raises: UserError where there are none, a part of the split is empty, or no training window is ever drawn.
    """
    windows = stages.cut_windows(bars, config)
    split = split_by_time(windows, config.split)
    check_drawn(windows, split.train, config.windows.weights)
    return windows, split


def follow(config: Config, interrupts: Interrupts) -> None:
    """Train as one of several processes that is not the first: it neither tracks nor writes.

    Where the first is gone without a word, which alone could tell, it ends the run. ``torchrun`` then sends SIGTERM to
    all that are left: whatever of the two is noticed first, the run's status is written before this process ends.

    Raises: UserError; PeerLost; Interrupted.
    """
    runtime.use_threads(config.runtime)
    device = runtime.pick_device(config.runtime.device)
    world = distributed.join(device)
    try:
        _train_along(config, world, device, interrupts)
    except (PeerLost, Interrupted):
        with interrupts.deferred():
            abandoned.end_lost(world.run_id)
            raise


def _train_along(config: Config, world: World, device: torch.device, interrupts: Interrupts) -> None:
    precision = runtime.pick_precision(config.runtime.precision, device, runtime.is_tuned(config.runtime))
    check_names(config)
    data = prepare(config, device)
    model = build_model(config, data.source, data.mean, data.std).to(device)
    nowhere = CheckpointFolder(Path(os.devnull))
    trainer = Trainer(model, data.source, data.split, config, precision, nowhere, world=world)
    check_alike(trainer, data.bars.sha256)
    trainer.should_stop = interrupts.reason
    trainer.evaluation.fit_rulers()
    if state := world.share_state(None):
        trainer.restore(state)
    with interrupts.deferred():
        trainer.fit()
    world.leave()


def check_alike(trainer: Trainer, sha256: str) -> None:
    """Compare what the processes of a training are about to train on, once all have read their bars.

    Where the bars lie may differ: their content may not.

    Raises: UserError with everything that differs; PeerLost.
    """
    keys = {k: v for k, v in trainer.config.flat().items() if k.split(".")[0] in COMMON and k != "bars.path"}
    trainer.engine.world.compare(
        {
            "SHA-256 of the bars": sha256[:12],
            "training windows": len(trainer.split.train),
            "precision": trainer.precision,
            "parts of a batch": trainer.engine.parts,
            "runtime.tune": trainer.config.runtime.tune,
            **keys,
        }
    )


def check_names(config: Config) -> None:
    """Refuse an unknown encoder, objective or feature set before any bar is read."""
    names = feature_names(config.features.set)
    build_encoder(config.encoder.name, len(names), hidden=1, layers=1, dropout=0.0)
    build_objective(config.objective, names, encoding_size=1)


def build_model(config: Config, source: BatchSource, mean: Tensor, std: Tensor) -> Pretraining:
    """Return encoder and objective, initialised from the seed, with the training windows' scaling. Shapes: [F], [F]."""
    torch.manual_seed(config.trainer.seed)
    parts = config.encoder
    encoder = build_encoder(parts.name, len(source.names), parts.hidden, parts.layers, parts.dropout)
    encoder.set_scaling(mean, std)
    return Pretraining(encoder, build_objective(config.objective, source.names, encoder.output_size))


def check_leak(trainer: Trainer, log: Callable[[Mapping[str, float]], None] = lambda metrics: None) -> float | None:
    """Log how far hidden input reaches the encoder, and return it; None where the objective has no masks.

    Raises: TrainingError above 0, where the objective claims to hide.
    """
    objective = trainer.model.objective
    if not objective.checks_leak:
        return None
    sensitivity = trainer.evaluation.leak()
    log({"leak/masked_sensitivity": sensitivity})
    if sensitivity != 0 and not objective.identity:
        raise TrainingError(
            f"leak/masked_sensitivity is {sensitivity:.3g}, allowed 0: the encoder sees steps it is to reconstruct; "
            "correct the objective's encoder_input, or set objective.hide_masked=false if an identity copy is wanted"
        )
    return sensitivity


def go_on(active: Run, trainer: Trainer, point: ResumePoint, sha256: str) -> None:
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


def fit_tracked(active: Run, trainer: Trainer, interrupts: Interrupts) -> None:
    """Train, and log epochs, pictures and whatever went wrong as they come.

    Raises: NumbersWrong; PeerLost; Interrupted where training was asked to stop.
    """
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
        active.draw_waiting()
        if event.epoch % every == 0 or event.epoch == event.epochs - 1:
            from moola_mlflow.plots.training import reconstruction_figure

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
            active.draw_waiting()
            raise
        if stopped:
            print(f"Stopped; the state of the training is in {trainer.folder.folder / checkpoint.LATEST}", flush=True)
            if not interrupts.reason():  # another process was asked
                raise Interrupted(signal.SIGTERM)
