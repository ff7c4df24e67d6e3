"""The methods that a fine-tuning compares, and the detector that is fitted on all labels in the end.

Every network baseline reads what the detector reads and gets the same mirrored windows, epochs and batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from moola_mlflow.batches import fit_scaling
from moola_mlflow.config import Config
from moola_mlflow.crossval import ClassicalMethod, HeadMethod, Method, NetworkMethod, Targets, fresh_copy
from moola_mlflow.detection import detector_inputs, encoder_features
from moola_mlflow.detector import HEADS, Detector, EncoderDetector
from moola_mlflow.encoder_files import describe
from moola_mlflow.encoders import Encoder, build_encoder
from moola_mlflow.encoders.ensemble import Ensemble
from moola_mlflow.errors import UserError, nearest
from moola_mlflow.evidence import DETECTOR
from moola_mlflow.features import feature_names
from moola_mlflow.features.path import path_features
from moola_mlflow.finetune import HeadSettings, Inputs, fit_detector, fit_head, mirrored
from moola_mlflow.labels import LabelledSet

CLASSICAL = ("majority", "logistic", "boosting", "rule")


@dataclass(frozen=True)
class Setting:
    """Labels, encoder and configuration of one fine-tuning.

    ``encoder`` is None where nothing was pre-trained; ``architecture`` is the network then built, or built again from
    random numbers as a baseline.
    """

    labels: LabelledSet
    encoder: Encoder | None
    architecture: Encoder
    config: Config
    device: torch.device
    precision: str

    @property
    def which(self) -> Inputs:
        """What the networks without pre-training read: what the detector reads, or, where it reads path features
        alone, what a network would have in their place, an encoding."""
        inputs = self.config.finetune.inputs
        return "encoding" if inputs == "path" else inputs

    @property
    def kind(self) -> str:
        """How the detector is fitted: ``path`` and ``frozen`` on cached inputs, ``unfrozen``, or from ``scratch``."""
        if self.config.finetune.inputs == "path":
            return "path"
        if self.encoder is None:
            return "scratch"
        return "frozen" if self.config.finetune.freeze else "unfrozen"


def make_setting(
    labels: LabelledSet, encoders: Sequence[Encoder], config: Config, device: torch.device, precision: str
) -> Setting:
    """Put a fine-tuning together. Raises: UserError for an unknown head, or encoders of other windows."""
    head = config.finetune.head
    if head not in HEADS:
        raise UserError(f"finetune.head='{head}' is unknown{nearest(head, HEADS)} Allowed: {', '.join(HEADS)}")
    for encoder in encoders:
        length = encoder.card["window"]["length"]
        if length != labels.ohlc.shape[1]:
            raise UserError(
                f"the encoder reads windows of {length} bars, the labels hold {labels.ohlc.shape[1]}; "
                "take an encoder trained with windows.length equal to the labels' windows"
            )
    architecture = encoders[0] if encoders else _architecture(labels, config)
    pretrained = None if not encoders else encoders[0] if len(encoders) == 1 else Ensemble(encoders)
    if pretrained is not None:
        pretrained.to(device)
    return Setting(labels, pretrained, architecture.to(device), config, device, precision)


def _architecture(labels: LabelledSet, config: Config) -> Encoder:
    """Return the configured network, scaled by all labelled windows.

    Nothing else is known of it. Only a frozen random encoder keeps this scaling, and has a small advantage by it.
    """
    parts, num = config.encoder, len(feature_names(config.features.set))
    encoder = build_encoder(parts.name, num, parts.hidden, parts.layers, parts.dropout)
    encoder.card = describe(config, encoder)
    features = encoder_features(encoder, labels.ohlc).numpy(force=True)
    encoder.set_scaling(*fit_scaling(features, config.windows.warmup))
    encoder.card = describe(config, encoder)
    return encoder


def head_settings(config: Config, *, fresh: bool = False, head: str | None = None) -> HeadSettings:
    """Return how heads are fitted; ``fresh`` for an encoder trained from random initialisation."""
    tuned, trainer, lr = config.finetune, config.trainer, config.optimizer.lr
    return HeadSettings(
        epochs=trainer.epochs,
        batch_size=trainer.batch_size,
        lr=tuned.head_lr or lr,
        weight_decay=config.optimizer.weight_decay,
        patience=trainer.patience,
        gamma=tuned.gamma,
        class_balanced=tuned.class_balanced,
        jitter_sigma=tuned.jitter_sigma,
        mirror=tuned.mirror,
        head=head or tuned.head,
        inputs=tuned.inputs,
        encoder_lr=tuned.scratch_lr if fresh else tuned.encoder_lr or lr,
        unfreeze_at=0 if fresh else tuned.unfreeze_at,
    )


def build_methods(setting: Setting, seed: int) -> list[Method]:
    """Return the detector and, after it, every baseline, for one seed.

    The frozen random encoder is drawn from the seed. Of an ensemble, the network from scratch is one member's.
    """
    config, which = setting.config, setting.which
    methods: list[Method] = [detector_method(setting)]
    if setting.kind != "scratch":
        methods.append(_scratch("scratch", setting, which, config.finetune.head))
    methods.append(_scratch("pooled_scratch", setting, "encoding", "pooled"))
    random = fresh_copy(setting.encoder or setting.architecture, seed)
    methods.append(HeadMethod("random_encoder", *_cached(setting, random, which), head_settings(config)))
    if setting.kind != "path":
        methods.append(HeadMethod("path_features", *_cached(setting, None, "path"), head_settings(config)))
    return [*methods, *(ClassicalMethod(name) for name in CLASSICAL)]


def detector_method(setting: Setting) -> Method:
    inputs = setting.config.finetune.inputs
    if setting.kind == "scratch":
        return _scratch(DETECTOR, setting, inputs, setting.config.finetune.head)
    if setting.kind != "unfrozen":
        return HeadMethod(DETECTOR, *_cached(setting, setting.encoder, inputs), head_settings(setting.config))
    assert setting.encoder is not None
    features = _features(setting, setting.encoder, inputs)
    return NetworkMethod(
        DETECTOR, *features, head_settings(setting.config), setting.encoder, precision=setting.precision
    )


def _scratch(name: str, setting: Setting, which: Inputs, head: str) -> NetworkMethod:
    features = _features(setting, setting.architecture, which)
    settings = head_settings(setting.config, fresh=True, head=head)
    warmup = setting.architecture.card["window"]["warmup"]
    return NetworkMethod(
        name, *features, settings, setting.architecture, fresh=True, warmup=warmup, precision=setting.precision
    )


def _cached(setting: Setting, encoder: Encoder | None, which: Inputs) -> tuple[Tensor, Tensor | None]:
    """Return a head's inputs, and those of the windows upside down where they are wanted. Shapes: [N, T, P]."""
    ohlc = setting.labels.ohlc
    inputs = detector_inputs(encoder, which, ohlc, setting.device)
    flipped = (
        detector_inputs(encoder, which, mirrored(ohlc), setting.device) if setting.config.finetune.mirror else None
    )
    return inputs, flipped


def _features(setting: Setting, encoder: Encoder, which: Inputs) -> tuple[Tensor, Tensor | None]:
    """Return an encoder's raw features with a head's further inputs beside them. Shapes: [N, T, F + K]."""

    def of(ohlc: np.ndarray) -> Tensor:
        parts = [encoder_features(encoder, ohlc)]
        if which != "encoding":
            parts.append(torch.from_numpy(path_features(ohlc)))
        return torch.cat([part.to(setting.device) for part in parts], -1)

    ohlc = setting.labels.ohlc
    return of(ohlc), of(mirrored(ohlc)) if setting.config.finetune.mirror else None


def refit(setting: Setting, epochs: int, seed: int) -> tuple[Encoder | None, Detector]:
    """Fit on all labels for as many epochs as the folds chose; return the encoder that is read, if any, and the head.

    Nothing is held out: nothing is chosen here.
    """
    targets, method = Targets.of(setting.labels), detector_method(setting)
    everything, none = np.arange(len(setting.labels)), np.zeros(0, np.int64)
    common = (targets.label, targets.start, targets.end, everything, none, targets.num_classes)
    if isinstance(method, HeadMethod):
        fitted = fit_head(
            method.inputs, *common, method.settings, seed, mirrored_NTP=method.mirrored, stop_after=epochs
        )
    else:
        assert isinstance(method, NetworkMethod)
        fitted = fit_detector(
            method.start(everything, seed), method.features, *common, method.settings, seed,
            mirrored_NTF=method.mirrored, stop_after=epochs, precision=method.precision,
        )  # fmt: skip
    if isinstance(fitted.model, EncoderDetector):
        return fitted.model.encoder.eval(), fitted.model.detector.eval()
    return None if setting.kind == "path" else setting.encoder, fitted.model.eval()
