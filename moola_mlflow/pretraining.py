"""Training one configuration on prepared data: what ``pretrain`` does once and every trial of a sweep does again."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from moola_mlflow import distributed, runtime, stages
from moola_mlflow.bars import Bars, read_bars
from moola_mlflow.batches import BatchSource
from moola_mlflow.checkpoint import CheckpointFolder
from moola_mlflow.config import Config
from moola_mlflow.encoders import build_encoder
from moola_mlflow.errors import TrainingError
from moola_mlflow.features import feature_names
from moola_mlflow.features.quality import check_quality
from moola_mlflow.objectives import build_objective
from moola_mlflow.sharding import Pretraining
from moola_mlflow.signals import Interrupts
from moola_mlflow.splits import Split, split_by_time
from moola_mlflow.survey import survey
from moola_mlflow.trainer import Trainer

SECTIONS = ("bars", "features", "windows", "split")
"""Sections of the configuration that training data depends on."""


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
    windows = stages.cut_windows(bars, config)
    split = split_by_time(windows, config.split)
    source = stages.batch_source(windows, config, device)
    train = survey(source, split.train)
    quality = train.report(source.flip_rate())
    check_quality(quality)
    return TrainingData(bars, source, split, *train.scaling(), quality)


def follow(config: Config, interrupts: Interrupts) -> None:
    """Train as one of several processes that is not the first: it neither tracks nor writes.

    Raises: UserError; PeerLost; Interrupted.
    """
    tuned = config.runtime.tune == "on"
    runtime.set_threads(config.runtime.threads)
    device = runtime.pick_device(config.runtime.device)
    precision = runtime.pick_precision(config.runtime.precision, device, tuned)
    check_names(config)
    data = prepare(config, device)
    model = build_model(config, data.source, data.mean, data.std).to(device)
    world = distributed.join(device)
    nowhere = CheckpointFolder(Path(os.devnull))
    trainer = Trainer(model, data.source, data.split, config, precision, nowhere, world=world)
    trainer.should_stop = interrupts.reason
    trainer.evaluation.fit_rulers()
    if state := world.share_state(None):
        trainer.restore(state)
    with interrupts.deferred():
        trainer.fit()
    world.leave()


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
