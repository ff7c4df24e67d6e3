"""The methods that a fine-tuning compares, and the detector that is fitted on all labels in the end.

Every network baseline reads what the detector reads and gets the same mirrored windows, epochs and batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from moola_mlflow.core import FinetuneKeys, UserError, nearest_name
from moola_mlflow.evaluation.baselines import BASELINES
from moola_mlflow.evaluation.crossval import ClassicalMethod, FoldOutcome, HeadMethod, Method, NetworkMethod, fresh_copy
from moola_mlflow.evaluation.evidence import DETECTOR
from moola_mlflow.evaluation.folds import NestedFold
from moola_mlflow.evaluation.prior_method import PriorMethod, has_priors, priors_of
from moola_mlflow.features import input_names, price_path_features
from moola_mlflow.labels import LabelledSet, Targets
from moola_mlflow.models import (
    HEADS,
    Detector,
    Encoder,
    EncoderDetector,
    Ensemble,
    Inputs,
    build_encoder,
    describe_encoder,
    detector_inputs,
    encoder_features,
    members_of,
)
from moola_mlflow.training import HeadInputs, HeadSettings, fit_detector, fit_head, mirrored
from moola_mlflow.windows import fit_scaling

ENCODERS_OWN = ("encoder.", "features.", "windows.warmup")
"""What a given encoder brings with it."""
SAMPLES_OWN = ("labels.n", "labels.rule", "labels.sample_seed", "labels.seed", "labels.overlap", "bars.")
"""What only labels made from sample bars are made by."""


@dataclass(frozen=True)
class FinetuneSetting:
    """Labels, encoder and configuration of one fine-tuning.

    ``encoder`` is None where nothing was pre-trained; ``architecture`` is the network then built, or built again from
    random numbers as a baseline: the whole of it, where it is an ensemble.
    """

    labels: LabelledSet
    encoder: Encoder | None
    architecture: Encoder
    config: FinetuneKeys
    device: torch.device
    precision: str

    @property
    def reader(self) -> str:
        """What reads the inputs: ``prior`` or ``head``."""
        tuned = self.config.finetune
        fits = self.kind == "frozen" and tuned.head == "span" and has_priors(self.encoder)
        return "prior" if tuned.reader != "head" and fits else "head"

    @property
    def inputs(self) -> Inputs:
        """What the detector reads: the prior reader, the encoding alone."""
        return "encoding" if self.reader == "prior" else self.config.finetune.inputs

    @property
    def which(self) -> Inputs:
        """What the networks without pre-training read: what the detector reads, or, where it reads path features
        alone, what a network would have in their place, an encoding."""
        return "encoding" if self.inputs == "price_path" else self.inputs

    @property
    def kind(self) -> str:
        """How the detector is fitted: ``price_path`` and ``frozen`` on cached inputs, ``unfrozen`` or ``scratch``."""
        if self.config.finetune.inputs == "price_path":
            return "price_path"
        if self.encoder is None:
            return "scratch"
        return "frozen" if self.config.finetune.freeze else "unfrozen"


@dataclass(frozen=True)
class RandomEncoderMethod:
    """A head on a frozen encoder of the same architecture and scaling whose weights are drawn anew for each fold.

    One network for all folds would make the comparison with it a matter of that draw's luck: over four seeds its
    Joint@3 has a standard deviation of 0.04 (docs/explanation/objectives.md).
    """

    encoder: Encoder
    which: Inputs
    device: torch.device
    settings: HeadSettings
    name: str = "random_encoder"

    def inputs(self, ohlc_NT4: np.ndarray, draw: int) -> Tensor:
        """Return what the head reads under one draw. Shapes: [N, T, 4] -> [N, T, P]."""
        return detector_inputs(fresh_copy(self.encoder, draw), self.which, ohlc_NT4, self.device)

    def run(self, targets: Targets, fold: NestedFold) -> FoldOutcome:
        inputs = _both_ways(lambda ohlc: self.inputs(ohlc, fold.fit_seed), targets.ohlc, self.settings.mirror)
        return HeadMethod(self.name, inputs, self.settings).run(targets, fold)


def without_effect(config: FinetuneKeys) -> list[str]:
    """Return what to say of given keys that other keys leave without effect."""
    out, given = [], config.given()
    for condition, keys, why in (
        (bool(config.finetune.encoder.strip()), ENCODERS_OWN, "a given encoder brings its own"),
        (config.labels.path != "sample", SAMPLES_OWN, "the labels come from a file"),
        (config.finetune.freeze, ("finetune.unfreeze_at",), "the encoder is frozen (finetune.freeze)"),
    ):
        idle = [f"{key}={value}" for key, value in given.items() if key.startswith(keys)]
        if condition and idle:
            out.append(f"without effect: {', '.join(idle)}; {why}.")
    return out


def make_setting(
    labels: LabelledSet, encoders: Sequence[Encoder], config: FinetuneKeys, device: torch.device, precision: str
) -> FinetuneSetting:
    """Put a fine-tuning together. Raises: UserError for an unknown head, or encoders of other windows."""
    head = config.finetune.head
    if head not in HEADS:
        raise UserError(f"finetune.head='{head}' is unknown{nearest_name(head, HEADS)} Allowed: {', '.join(HEADS)}")
    head_settings(config)
    for encoder in encoders:
        length = encoder.card["window"]["length"]
        if length != labels.ohlc.shape[1]:
            raise UserError(
                f"the encoder reads windows of {length} bars, the labels hold {labels.ohlc.shape[1]}; "
                "take an encoder trained with windows.length equal to the labels' windows"
            )
    pretrained = None if not encoders else encoders[0] if len(encoders) == 1 else Ensemble(encoders)
    if config.finetune.reader == "prior":
        _check_prior(pretrained, config)
    architecture = pretrained if pretrained is not None else _architecture(labels, config)
    return FinetuneSetting(labels, pretrained, architecture.to(device), config, device, precision)


def _check_prior(encoder: Encoder | None, config: FinetuneKeys) -> None:
    """Refuse what the prior reader cannot read. Raises: UserError."""
    tuned = config.finetune
    if encoder is None or tuned.inputs == "price_path" or not tuned.freeze or tuned.head != "span":
        raise UserError(
            "finetune.reader=prior reads the encodings of frozen encoders at a span; give encoder=, keep "
            "freeze_encoder=true and finetune.head=span, or set finetune.reader=head"
        )
    priors_of(encoder)


def _architecture(labels: LabelledSet, config: FinetuneKeys) -> Encoder:
    """Return the configured network, scaled by all labelled windows.

    Nothing else is known of it. Only a frozen random encoder keeps this scaling, and has a small advantage by it.
    """
    parts = config.encoder
    num = len(input_names(config.features.set, parts.inputs))
    encoder = build_encoder(parts.name, num, parts.hidden, parts.layers, parts.dropout)
    encoder.card = describe_encoder(config, encoder)
    features = encoder_features(encoder, labels.ohlc).numpy(force=True)
    encoder.set_scaling(*fit_scaling(features, config.windows.warmup))
    encoder.card = describe_encoder(config, encoder)
    return encoder


def head_settings(
    config: FinetuneKeys, *, fresh: bool = False, head: str | None = None, precision: str = "fp32"
) -> HeadSettings:
    """Return how heads are fitted; ``fresh`` for an encoder trained from random initialisation.

    Raises: UserError where an encoder that is to be trained on would never be.
    """
    tuned, trainer, lr = config.finetune, config.trainer, config.optimizer.lr
    trained_on = bool(tuned.encoder.strip()) and not tuned.freeze and tuned.inputs != "price_path"
    if trained_on and not fresh and tuned.unfreeze_at >= trainer.epochs:
        raise UserError(
            f"finetune.unfreeze_at={tuned.unfreeze_at} lies beyond the {trainer.epochs} epochs (trainer.epochs), "
            f"counted from 0: the encoder would stay frozen; allowed: 0 to {trainer.epochs - 1}, or freeze_encoder=true"
        )
    return HeadSettings(
        epochs=trainer.epochs,
        batch_size=trainer.batch_size,
        lr=tuned.head_lr or lr,
        weight_decay=config.optimizer.weight_decay,
        patience=trainer.patience,
        clip_norm=trainer.clip_norm,
        gamma=tuned.gamma,
        class_balanced=tuned.class_balanced,
        jitter_sigma=tuned.jitter_sigma,
        mirror=tuned.mirror,
        head=head or tuned.head,
        encoder_lr=tuned.scratch_lr if fresh else tuned.encoder_lr or lr,
        unfreeze_at=0 if fresh else tuned.unfreeze_at,
        precision=precision,
    )


def build_methods(setting: FinetuneSetting) -> list[Method]:
    """Return the detector and, after it, every baseline.

    Networks without pre-training have the detector's architecture: of an ensemble, all members side by side. The one
    with a pooled head is the published form, which has one encoder: of an ensemble, the first member's.
    """
    config, which, whole = setting.config, setting.which, setting.architecture
    methods: list[Method] = [detector_method(setting)]
    if setting.kind != "scratch":
        methods.append(_scratch("scratch", setting, whole, which, config.finetune.head))
    methods.append(_scratch("pooled_scratch", setting, members_of(whole)[0], "encoding", "pooled"))
    methods.append(RandomEncoderMethod(whole, which, setting.device, head_settings(config)))
    if setting.kind != "price_path":
        methods.append(HeadMethod("path_features", _cached(setting, None, "price_path"), head_settings(config)))
    return [*methods, *(ClassicalMethod(name) for name in BASELINES)]


def detector_method(setting: FinetuneSetting) -> Method:
    inputs = setting.inputs
    if setting.reader == "prior":
        assert setting.encoder is not None
        return PriorMethod(DETECTOR, _cached(setting, setting.encoder, inputs), priors_of(setting.encoder))
    if setting.kind == "scratch":
        return _scratch(DETECTOR, setting, setting.architecture, inputs, setting.config.finetune.head)
    if setting.kind != "unfrozen":
        return HeadMethod(DETECTOR, _cached(setting, setting.encoder, inputs), head_settings(setting.config))
    assert setting.encoder is not None
    settings = head_settings(setting.config, precision=setting.precision)
    return NetworkMethod(DETECTOR, _features(setting, setting.encoder, inputs), settings, setting.encoder)


def _scratch(name: str, setting: FinetuneSetting, architecture: Encoder, which: Inputs, head: str) -> NetworkMethod:
    settings = head_settings(setting.config, fresh=True, head=head, precision=setting.precision)
    # One scaling is fitted for all members: on steps at which the features of each are warm.
    warmup = max(member.card["window"]["warmup"] for member in members_of(architecture))
    features = _features(setting, architecture, which)
    return NetworkMethod(name, features, settings, architecture, fresh=True, warmup=warmup)


def _cached(setting: FinetuneSetting, encoder: Encoder | None, which: Inputs) -> HeadInputs:
    """Return a head's inputs of all labelled windows. Shapes: [N, T, P]."""

    def of(ohlc_NT4: np.ndarray) -> Tensor:
        return detector_inputs(encoder, which, ohlc_NT4, setting.device)

    return _both_ways(of, setting.labels.ohlc, setting.config.finetune.mirror)


def _features(setting: FinetuneSetting, encoder: Encoder, which: Inputs) -> HeadInputs:
    """Return an encoder's raw features, followed by a head's further inputs. Shapes: [N, T, F + K]."""

    def of(ohlc_NT4: np.ndarray) -> Tensor:
        parts = [encoder_features(encoder, ohlc_NT4)]
        if which != "encoding":
            parts.append(torch.from_numpy(price_path_features(ohlc_NT4)))
        return torch.cat([part.to(setting.device) for part in parts], -1)

    return _both_ways(of, setting.labels.ohlc, setting.config.finetune.mirror)


def _both_ways(of: Callable[[np.ndarray], Tensor], ohlc_NT4: np.ndarray, mirror: bool) -> HeadInputs:
    """Return the inputs of windows, and those of the windows upside down if they are wanted."""
    return HeadInputs(of(ohlc_NT4), of(mirrored(ohlc_NT4)) if mirror else None)


def refit_detector(setting: FinetuneSetting, epochs: int, seed: int) -> tuple[Encoder | None, Detector]:
    """Fit on all labels for as many epochs as the folds chose; return the encoder that is read, if any, and the head.

    Nothing is held out: nothing is chosen here.
    """
    targets, method = Targets.of(setting.labels), detector_method(setting)
    if isinstance(method, PriorMethod):
        return setting.encoder, method.fit(targets, np.arange(len(setting.labels)))
    assert isinstance(method, HeadMethod | NetworkMethod)
    everything, none = np.arange(len(setting.labels)), np.zeros(0, np.int64)
    settings = replace(method.settings, stop_after=epochs)
    if isinstance(method, HeadMethod):
        fitted = fit_head(method.inputs, targets, everything, none, settings, seed)
    else:
        encoder = method.start(everything, seed)
        fitted = fit_detector(encoder, method.features, targets, everything, none, settings, seed)
    if isinstance(fitted.model, EncoderDetector):
        return fitted.model.encoder.eval(), fitted.model.detector.eval()
    return None if setting.kind == "price_path" else setting.encoder, fitted.model.eval()
