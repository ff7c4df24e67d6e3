"""The encoders of the study: each a pre-training of the same small network on the same bars, or none at all."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.science.objectives.hidden_path import CHANNEL, ChannelSource, HiddenPath, path_channel
from moola_mlflow.bars.reader import read_bars
from moola_mlflow.core import BarsConfig, PretrainKeys, SplitConfig, make_config, runtime
from moola_mlflow.evaluation.probing import frozen_copy, probe
from moola_mlflow.features.relativity import compute_features, feature_names
from moola_mlflow.features.zigzag import Hybrid
from moola_mlflow.models.encoders import build_encoder
from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.files import checkpoint
from moola_mlflow.models.objectives import build_objective
from moola_mlflow.models.objectives.base import Objective
from moola_mlflow.training.engine import Pretraining
from moola_mlflow.training.trainer import Trainer, TrainerSettings
from moola_mlflow.windows.batches import BatchSource, fit_scaling
from moola_mlflow.windows.splits import split_by_time
from moola_mlflow.windows.windows import make_windows

FEATURES = "relativity11"
Build = Callable[[int, int], Objective]
"""(encoding size, inputs) -> a study-only objective."""


@dataclass(frozen=True)
class Variant:
    """How an encoder came to be; ``trained`` false is the network as it was initialised."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    build: Build | None = None
    channel: bool = False
    trained: bool = True


def _blocks(size: int, inputs: int) -> Objective:
    return HiddenPath(size, inputs, inputs, (10,), 0.4)


def _channel(size: int, inputs: int) -> Objective:
    return HiddenPath(size, inputs, len(CHANNEL), (10, 20, 30), 0.6)


IDENTITY = {"objective.hide_masked": False, "objective.uncertainty": True, "objective.units": "raw"}
VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("random", trained=False),
        Variant("identity", IDENTITY),
        Variant("masked random", {}),
        Variant("masked patch", {"objective.mask_strategy": "patch"}),
        Variant("masked blocks, path targets", build=_blocks),
        Variant("random, path inputs", channel=True, trained=False),
        Variant("hidden path channel", build=_channel, channel=True),
        Variant("path 8 epochs", {"objective.name": "price_path", "trainer.epochs": 8}),
        Variant("path", {"objective.name": "price_path"}),
        Variant("path, lr 4e-3", {"objective.name": "price_path", "optimizer.lr": 4e-3}),
        Variant("path + 0.5 masked", {"objective.name": "price_path+0.5*masked"}),
    )
}


@dataclass(frozen=True)
class Scale:
    """The size of the study; the defaults are what the docs quote."""

    bars: int = 200_000
    hidden: int = 32
    epochs: int = 24


@dataclass(frozen=True)
class Pretrained:
    """An encoder's weights and what the label-free probe says of it."""

    variant: str
    seed: int
    state: dict[str, np.ndarray]
    probe: dict[str, float]
    val_huber: list[float]
    seconds: float


def empty_encoder(variant: Variant, hidden: int) -> Encoder:
    """Return the study's network, initialised from torch's generator."""
    num_inputs = len(feature_names(FEATURES)) + len(CHANNEL) * variant.channel
    encoder = build_encoder("bilstm", num_inputs, hidden, layers=2, dropout=0.1)
    encoder.card = {}
    return encoder


def pretrain(variant: Variant, seed: int, scale: Scale) -> Pretrained:
    """Train one variant on sample bars of seed 1, keep its best epoch, and probe it on held-out bars."""
    started = time.perf_counter()
    base = {"encoder.hidden": scale.hidden, "trainer.epochs": scale.epochs, "trainer.seed": seed}
    config = make_config(PretrainKeys, {}, {**base, **variant.settings, "trainer.epochs": _epochs(variant, scale)})
    windows = make_windows(read_bars(BarsConfig(sample_bars=scale.bars)), stride=config.windows.stride)
    kind = ChannelSource if variant.channel else BatchSource
    source = kind(windows, FEATURES, Hybrid(), config.windows.warmup, torch.device("cpu"))
    split = split_by_time(windows, SplitConfig())
    torch.manual_seed(seed)
    encoder = empty_encoder(variant, scale.hidden)
    encoder.set_scaling(*fit_scaling(source.features(split.train), source.warmup))
    initial, hubers = frozen_copy(encoder), list[float]()
    precision = runtime.pick_precision("auto", torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        size = encoder.output_size
        objective = (
            variant.build(size, len(source.names))
            if variant.build
            else build_objective(config.objective, source.names, size)
        )
        model = Pretraining(encoder, objective)
        trainer = Trainer(
            model, source, split, TrainerSettings.of(config, precision), checkpoint.Checkpointer(Path(folder))
        )
        if variant.trained:
            trainer.evaluation.fit_baselines()
            hubers = [row["val/huber"] for row in trainer.fit().progress.history]
            model.load_state_dict(
                checkpoint.load_checkpoint(Path(folder) / checkpoint.BEST_CHECKPOINT)["model_state_dict"]
            )
        scores = probe(model.encoder, initial, source, split, trainer.autocast)
    state = {name: tensor.numpy() for name, tensor in encoder.state_dict().items()}
    gained = {name.removeprefix("probe/"): value for name, value in scores.metrics().items()}
    return Pretrained(variant.name, seed, state, gained, hubers, time.perf_counter() - started)


def _epochs(variant: Variant, scale: Scale) -> int:
    return min(scale.epochs, int(variant.settings.get("trainer.epochs", scale.epochs)))


def encoder_of(done: Pretrained, hidden: int) -> Encoder:
    """Return the trained encoder, frozen in evaluation mode."""
    encoder = empty_encoder(VARIANTS[done.variant], hidden)
    encoder.load_state_dict({name: torch.from_numpy(value) for name, value in done.state.items()})
    return encoder.eval()


def inputs_of(variant: Variant, ohlc_NT4: np.ndarray) -> Tensor:
    """Return what the variant's encoder reads of raw windows. Shapes: float32 [N, T, F]."""
    x_NTF = torch.from_numpy(compute_features(ohlc_NT4, FEATURES))
    return torch.cat([x_NTF, path_channel(torch.from_numpy(ohlc_NT4))], -1) if variant.channel else x_NTF
