"""Training one configuration on prepared data: what ``pretrain`` does once and every trial of a sweep does again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from moola_mlflow import stages
from moola_mlflow.bars import Bars, read_bars
from moola_mlflow.batches import BatchSource, fit_scaling
from moola_mlflow.config import Config
from moola_mlflow.encoders import build_encoder
from moola_mlflow.errors import TrainingError
from moola_mlflow.features import feature_names
from moola_mlflow.features.quality import check_quality, quality_report
from moola_mlflow.objectives import build_objective
from moola_mlflow.splits import Split, split_by_time
from moola_mlflow.trainer import Pretraining, Trainer

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
    train = source.features(split.train)
    quality = quality_report(train, source.names, source.warmup, source.flip_rate())
    check_quality(quality)
    return TrainingData(bars, source, split, *fit_scaling(train, source.warmup), quality)


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
    sensitivity = trainer.leak()
    log({"leak/masked_sensitivity": sensitivity})
    if sensitivity != 0 and not objective.identity:
        raise TrainingError(
            f"leak/masked_sensitivity is {sensitivity:.3g}, allowed 0: the encoder sees steps it is to reconstruct; "
            "correct the objective's encoder_input, or set objective.hide_masked=false if an identity copy is wanted"
        )
    return sensitivity
