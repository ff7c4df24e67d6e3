"""The detectors of the study: what reads an encoder, and what it says of labelled windows of fresh bars."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from benchmarks.science.objectives.second_labeller import second_labels
from benchmarks.science.objectives.variants import VARIANTS, Pretrained, Scale, empty_encoder, encoder_of, inputs_of
from moola_mlflow.bars.reader import read_bars
from moola_mlflow.core import BarsConfig, CvConfig
from moola_mlflow.evaluation.crossval import (
    ClassicalMethod,
    HeadMethod,
    Method,
    NetworkMethod,
    cross_validate,
    pooled_predictions,
)
from moola_mlflow.evaluation.folds import plan_folds
from moola_mlflow.evaluation.metrics import Predictions
from moola_mlflow.features.price_path import price_path_features
from moola_mlflow.labels.labelled_set import LabelledSet
from moola_mlflow.labels.targets import Targets
from moola_mlflow.labels.weak import weak_labels
from moola_mlflow.training.head import HeadInputs, HeadSettings, mirrored

SECOND_BARS = 1000
"""The second labeller's bars have seeds this much higher: its windows never overlap the first one's."""
SCRATCH_LR, ENCODER_LR = 1e-3, 1e-4


@dataclass(frozen=True)
class Reader:
    """One row of the table.

    ``encoder`` names the variant that is read; ``ensemble`` reads the encodings of all seeds side by side.
    ``against`` is the row of the same reader on a network at random, ``frozen`` that of an encoder that is trained on
    here and only read there.
    """

    name: str
    encoder: str | None = None
    path: bool = False
    ensemble: bool = False
    trained_on: bool = False
    fresh: bool = False
    head: str = "span"
    classical: str | None = None
    against: str | None = None
    frozen: str | None = None
    counts: tuple[int, ...] = (174,)
    """Numbers of labels it is run with."""


@dataclass(frozen=True)
class LabelTask:
    """One labelled set: which labeller, the seed of its bars, and how many windows."""

    labeller: int
    seed: int
    count: int


@functools.lru_cache(maxsize=32)
def labelled(task: LabelTask, num_bars: int) -> LabelledSet:
    """Label windows of sample bars that no encoder has seen; a process does it once."""
    seed = task.seed + SECOND_BARS * (task.labeller - 1)
    make = weak_labels if task.labeller == 1 else second_labels
    return make(read_bars(BarsConfig(sample_bars=num_bars, sample_seed=seed)), task.count, seed)


@torch.no_grad()
def method(
    reader: Reader, done: Sequence[Pretrained], labels: LabelledSet, seed: int, scale: Scale, settings: HeadSettings
) -> Method:
    """Return a reader's method on some labels; ``done`` holds the encoders of all variants and seeds."""
    if reader.classical:
        return ClassicalMethod(reader.classical)
    settings = replace(settings, head=reader.head)
    mine = [one for one in done if one.variant == reader.encoder and (reader.ensemble or one.seed == seed)]
    if reader.trained_on:
        variant = VARIANTS[str(reader.encoder)]

        def features(ohlc_NT4: np.ndarray) -> Tensor:
            own = [torch.from_numpy(price_path_features(ohlc_NT4))] * reader.path
            return torch.cat([inputs_of(variant, ohlc_NT4), *own], -1)

        x = HeadInputs(features(labels.ohlc), features(mirrored(labels.ohlc)))
        encoder = empty_encoder(variant, scale.hidden) if reader.fresh else encoder_of(mine[0], scale.hidden)
        settings = replace(settings, encoder_lr=SCRATCH_LR if reader.fresh else ENCODER_LR)
        return NetworkMethod(reader.name, x, settings, encoder, reader.fresh)

    def inputs(ohlc_NT4: np.ndarray) -> Tensor:
        parts = [encoder_of(one, scale.hidden)(inputs_of(VARIANTS[one.variant], ohlc_NT4)) for one in mine]
        parts += [torch.from_numpy(price_path_features(ohlc_NT4))] * reader.path
        return torch.cat(parts, -1)

    return HeadMethod(reader.name, HeadInputs(inputs(labels.ohlc), inputs(mirrored(labels.ohlc))), settings)


def predictions(
    reader: Reader, done: Sequence[Pretrained], labels: LabelledSet, seed: int, scale: Scale, settings: HeadSettings
) -> Predictions:
    """Return what a reader says of every labelled window, out of 5 purged folds by time; folds and fits by ``seed``."""
    folds = plan_folds(labels, CvConfig(), [seed])
    one = method(reader, done, labels, seed, scale, settings)
    (outcomes,) = cross_validate([one], Targets.of(labels), folds).values()
    return pooled_predictions(outcomes, folds, labels)
