"""From a configuration to a trainer, without tracking: data, checks, model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from moola_mlflow.bars import Bars, read_bars
from moola_mlflow.core import FeaturesConfig, FeaturesKeys, Metrics, TrainingError, TrainingKeys
from moola_mlflow.features import Hybrid, check_quality, input_names
from moola_mlflow.models import Checkpointer, build_encoder, build_objective
from moola_mlflow.training.distributed import World
from moola_mlflow.training.engine import Pretraining
from moola_mlflow.training.trainer import Trainer, TrainerSettings
from moola_mlflow.windows import (
    BatchSource,
    Split,
    Windows,
    check_drawn,
    feature_statistics,
    input_scaling,
    make_windows,
    split_by_time,
    with_weights,
)

DATA_SECTIONS = ("bars", "features", "windows", "split")
"""Sections of the configuration that training data depends on."""
SHARED_SECTIONS = (*DATA_SECTIONS, "encoder", "objective", "optimizer", "schedule", "trainer")
"""Sections that all processes of a training must agree on."""


@dataclass(frozen=True)
class TrainingData:
    """Bars, cut, split and checked. Configurations with equal ``DATA_SECTIONS`` and ``encoder.inputs`` can share them.

    Shapes: mean, std [P], of the encoder's inputs.
    """

    bars: Bars
    source: BatchSource
    split: Split
    mean: Tensor
    std: Tensor
    quality: dict[str, object]
    """The feature quality report of the training windows."""


class PrepareObserver:
    """Is called after each step of :func:`prepare`. This base class does nothing."""

    def bars_read(self, bars: Bars) -> None:
        """Take the bars, before any window is cut."""

    def windows_split(self, windows: Windows, split: Split) -> None:
        """Take the windows and their split, before any feature is computed."""

    def flip_rate(self, source: BatchSource) -> float:
        """Return the swing flip rate of all windows. An observer that reports on features knows it already.

        Raises: UserError for features that cannot be learned from.
        """
        return source.flip_rate()


def prepare(config: TrainingKeys, device: torch.device, observer: PrepareObserver | None = None) -> TrainingData:
    """Read, cut, split and check the data of one training.

    Raises: UserError for bars or features that cannot be learned from.
    """
    observer = observer or PrepareObserver()
    bars = read_bars(config.bars, min_bars=config.windows.length)
    observer.bars_read(bars)
    windows, split = cut_and_split(bars, config)
    observer.windows_split(windows, split)
    source = batch_source(windows, config, device)
    flip_rate = observer.flip_rate(source)
    train = feature_statistics(source, split.train)
    quality = train.report(flip_rate)
    check_quality(quality)
    return TrainingData(bars, source, split, *input_scaling(train, split.train), quality)


def cut_windows(bars: Bars, config: FeaturesKeys | TrainingKeys) -> Windows:
    """Cut the configured windows."""
    return make_windows(bars, config.windows.length, config.windows.stride, config.bars.max_gap_minutes)


def cut_and_split(bars: Bars, config: TrainingKeys) -> tuple[Windows, Split]:
    """Return the configured windows and their split.

    Raises: UserError if there are no windows, a part of the split is empty, or no training window is ever drawn.
    """
    windows = with_weights(cut_windows(bars, config), config.windows.weights)
    split = split_by_time(windows, config.split)
    check_drawn(windows, split.train, config.windows.weights)
    return windows, split


def hybrid(features: FeaturesConfig) -> Hybrid:
    """Return the configured zigzag variant."""
    return Hybrid(features.hybrid_lookback, features.hybrid_min_retrace, features.hybrid_same_bar)


def batch_source(windows: Windows, config: FeaturesKeys | TrainingKeys, device: torch.device) -> BatchSource:
    """Return the source of batches over windows."""
    inputs = config.encoder.inputs if isinstance(config, TrainingKeys) else "features"
    return BatchSource(
        windows, config.features.set, hybrid(config.features), config.windows.warmup, device, inputs=inputs
    )


def check_names(config: TrainingKeys) -> None:
    """Refuse an unknown encoder, objective or feature set before any bar is read. Raises: UserError."""
    names = input_names(config.features.set, config.encoder.inputs)
    build_encoder(config.encoder.name, len(names), hidden=1, layers=1, dropout=0.0)
    build_objective(config.objective, names, encoding_size=1)


def build_model(config: TrainingKeys, source: BatchSource, mean: Tensor, std: Tensor) -> Pretraining:
    """Return encoder and objective, initialised from the seed, with the scaling of the training windows.

    Shapes: mean, std [F].
    """
    torch.manual_seed(config.trainer.seed)
    parts = config.encoder
    encoder = build_encoder(parts.name, len(source.input_names), parts.hidden, parts.layers, parts.dropout)
    encoder.set_scaling(mean, std)
    return Pretraining(encoder, build_objective(config.objective, source.input_names, encoder.output_size))


def build_trainer(
    config: TrainingKeys,
    data: TrainingData,
    precision: str,
    checkpointer: Checkpointer | None = None,
    world: World | None = None,
) -> Trainer:
    """Return a trainer of the configured model on prepared data; without a checkpointer it writes nothing."""
    model = build_model(config, data.source, data.mean, data.std).to(data.source.device)
    settings = TrainerSettings.of(config, precision)
    return Trainer(model, data.source, data.split, settings, checkpointer, world=world)


def check_leak(trainer: Trainer, log: Callable[[Mapping[str, float]], None] = lambda metrics: None) -> float | None:
    """Return how far hidden input reaches the encoder, and log it; None for an objective without masks.

    Raises: TrainingError above 0 if the objective claims to hide its masked steps.
    """
    objective = trainer.model.objective
    if not objective.checks_leak:
        return None
    sensitivity = trainer.evaluation.leak()
    log({Metrics.LEAK: sensitivity})
    if sensitivity != 0 and not objective.identity:
        raise TrainingError(
            f"{Metrics.LEAK} is {sensitivity:.3g}, allowed 0: the encoder sees steps it is to reconstruct; "
            "correct the objective's encoder_input, or set objective.hide_masked=false if an identity copy is wanted"
        )
    return sensitivity


def check_alike(trainer: Trainer, config: TrainingKeys, sha256: str) -> None:
    """Check that all processes of a training have the same configuration, bars and hardware settings.

    The paths of the bars may differ; their content may not.

    Raises: UserError with everything that differs; PeerLost.
    """
    keys = {k: v for k, v in config.flat().items() if k.split(".")[0] in SHARED_SECTIONS and k != "bars.path"}
    trainer.engine.world.compare(
        {
            "SHA-256 of the bars": sha256[:12],
            "training windows": len(trainer.split.train),
            "precision": trainer.settings.precision,
            "parts of a batch": trainer.engine.parts,
            "runtime.tune": config.runtime.tune,
            **keys,
        }
    )
