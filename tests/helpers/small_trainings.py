"""Small trainings on sample bars: what tests of the trainer, the engine and resuming share."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from moola_mlflow.bars.reader import read_bars
from moola_mlflow.core import BarsConfig, PretrainKeys, SplitConfig, make_config
from moola_mlflow.features.zigzag import Hybrid
from moola_mlflow.models.encoders import build_encoder
from moola_mlflow.models.files.checkpoint import Checkpointer, about_training
from moola_mlflow.models.objectives import build_objective
from moola_mlflow.training.engine import Pretraining
from moola_mlflow.training.trainer import Trainer, TrainerSettings
from moola_mlflow.windows.batches import BatchSource, fit_scaling
from moola_mlflow.windows.splits import split_by_time
from moola_mlflow.windows.windows import Windows, make_windows

SMALL = {"encoder.hidden": 8, "trainer.batch_size": 16, "trainer.epochs": 3, "schedule.warmup_epochs": 1}
TIMING = ("epoch_seconds", "windows_per_second")


def small_windows(num_bars: int = 12_000) -> Windows:
    return make_windows(read_bars(BarsConfig(sample_bars=num_bars)))


def make_trainer(windows: Windows, folder: Path, precision: str = "fp32", **overrides: object) -> Trainer:
    """Return a trainer of a small network that keeps its checkpoints in ``folder``."""
    return trainer_of(make_config(PretrainKeys, {}, {**SMALL, **overrides}), windows, folder, precision)


def trainer_of(config: PretrainKeys, windows: Windows, folder: Path, precision: str = "fp32") -> Trainer:
    source = BatchSource(windows, config.features.set, Hybrid(), config.windows.warmup, torch.device("cpu"))
    split = split_by_time(windows, SplitConfig())
    torch.manual_seed(config.trainer.seed)
    encoder = build_encoder(config.encoder.name, len(source.names), config.encoder.hidden, 2, config.encoder.dropout)
    encoder.set_scaling(*fit_scaling(source.features(split.train), source.warmup))
    model = Pretraining(encoder, build_objective(config.objective, source.names, encoder.output_size))
    checkpointer = Checkpointer(folder, about_training(config, "r"))
    trainer = Trainer(model, source, split, TrainerSettings.of(config, precision), checkpointer)
    trainer.evaluation.fit_baselines()
    return trainer


def resumed(windows: Windows, folder: Path, precision: str = "fp32", **overrides: object) -> Trainer:
    """Return a trainer that goes on from the latest checkpoint in ``folder``."""
    trainer = make_trainer(windows, folder, precision, **overrides)
    assert trainer.checkpointer is not None
    latest = trainer.checkpointer.load_latest()
    torch.manual_seed(time.time_ns())  # what was drawn before must not matter
    trainer.restore(latest.state)
    trainer.checkpointer.go_on(latest)
    return trainer


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def histories(trainer: Trainer) -> list[dict[str, float]]:
    """Return the metrics of every epoch but its seconds."""
    return [{k: v for k, v in row.items() if k not in TIMING} for row in trainer.progress.history]
