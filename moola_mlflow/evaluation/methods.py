"""The methods that a fine-tuning compares, and the final fit of the detector on all labels.

Every network baseline reads the detector's inputs and gets the same mirrored windows, epochs and batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moola_mlflow.core import FinetuneKeys, UserError, nearest_name
from moola_mlflow.evaluation.averaged_method import AveragedMethod
from moola_mlflow.evaluation.baselines import BASELINES
from moola_mlflow.evaluation.crossval import ClassicalMethod, FoldOutcome, HeadMethod, Method, NetworkMethod, fresh_copy
from moola_mlflow.evaluation.evidence import DETECTOR, WITHOUT_PRETRAINING
from moola_mlflow.evaluation.folds import NestedFold
from moola_mlflow.evaluation.prior_method import PriorMethod, has_priors, priors_of
from moola_mlflow.features import FeatureChoice, input_names
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
    further_inputs,
    members_of,
    parts_of,
)
from moola_mlflow.training import HeadInputs, HeadSettings, fit_detector, fit_head, hybrid, mirrored
from moola_mlflow.windows import fit_scaling

ENCODERS_OWN = ("encoder.", "features.", "windows.warmup")
"""Keys that a given encoder overrides."""
SAMPLES_OWN = ("labels.n", "labels.rule", "labels.sample_seed", "labels.seed", "labels.overlap", "bars.")
"""Keys that only labels from sample bars use."""


@dataclass(frozen=True)
class FinetuneSetting:
    """Labels, encoder and configuration of one fine-tuning.

    ``encoder`` is None without pre-training. ``architecture`` is the network that is then trained from scratch, and the
    one that baselines rebuild with random weights; of an ensemble it has all members.
    """

    labels: LabelledSet
    encoder: Encoder | None
    architecture: Encoder
    config: FinetuneKeys
    device: torch.device
    precision: str

    @property
    def reader(self) -> str:
        """What reads the inputs: ``prior``, ``averaged`` or ``head``."""
        tuned = self.config.finetune
        fits = self.kind == "frozen" and tuned.head == "span" and has_priors(self.encoder)
        if tuned.reader == "head" or not fits:
            return "head"
        return "averaged" if tuned.reader == "averaged" else "prior"

    @property
    def inputs(self) -> Inputs:
        """What the detector reads."""
        given = self.config.finetune.inputs
        if given == "auto":
            return "encoding" if self.reader == "prior" else "both"
        return given

    @property
    def features(self) -> FeatureChoice | None:
        """The hand-made features that the detector reads beside the rest."""
        own = self.config.features
        return FeatureChoice(own.set, hybrid(own)) if "features" in parts_of(self.inputs) else None

    @property
    def baseline_inputs(self) -> Inputs:
        """What the networks without pre-training read: the detector's inputs, or an encoding instead of path features
        alone, which need no network."""
        no_network: dict[str, Inputs] = {"price_path": "encoding", "price_path+features": "encoding+features"}
        return no_network.get(self.inputs, self.inputs)

    @property
    def kind(self) -> str:
        """How the detector is fitted: ``price_path`` and ``frozen`` on cached inputs, ``unfrozen`` or ``scratch``."""
        if _no_encoder(self.config):
            return "price_path"
        if self.encoder is None:
            return "scratch"
        return "frozen" if self.config.finetune.freeze else "unfrozen"


def _no_encoder(config: FinetuneKeys) -> bool:
    """Return whether the head reads no encoding, whatever encoder is given."""
    return config.finetune.inputs in ("price_path", "price_path+features")


@dataclass(frozen=True)
class RandomEncoderMethod:
    """A head on a frozen encoder of the same architecture and scaling, with new random weights in each fold.

    With one random encoder for all folds the comparison would depend on that draw: over four seeds its Joint@3 has a
    standard deviation of 0.04 (docs/explanation/objectives.md).
    """

    encoder: Encoder
    reads: Inputs
    device: torch.device
    settings: HeadSettings
    features: FeatureChoice | None = None
    name: str = "random_encoder"

    def inputs(self, ohlc_NT4: np.ndarray, seed: int) -> Tensor:
        """Return the head's inputs with the encoder of one seed. Shapes: [N, T, 4] -> [N, T, P]."""
        encoder = fresh_copy(self.encoder, seed)
        return detector_inputs(encoder, self.reads, ohlc_NT4, self.device, features=self.features)

    def run(self, targets: Targets, fold: NestedFold) -> FoldOutcome:
        inputs = _both_ways(lambda ohlc: self.inputs(ohlc, fold.fit_seed), targets.ohlc, self.settings.mirror)
        return HeadMethod(self.name, inputs, self.settings).run(targets, fold)


def ineffective_keys(config: FinetuneKeys) -> list[str]:
    """Return a warning for each group of given keys that have no effect, with the reason."""
    reads_features = "features" in parts_of(config.finetune.inputs)
    encoders_own = tuple(key for key in ENCODERS_OWN if not (reads_features and key == "features."))
    return idle_keys(
        config.given(),
        (bool(config.finetune.encoder.strip()), encoders_own, "a given encoder has its own"),
        (config.labels.path != "sample", SAMPLES_OWN, "the labels come from a file"),
        (True, ("finetune.unlabelled", "finetune.base_rate"), "only an event detector (finetune.head=event) reads it"),
        (config.finetune.freeze, ("finetune.unfreeze_at",), "the encoder is frozen (finetune.freeze)"),
    )


def idle_keys(given: Mapping[str, Any], *groups: tuple[bool, tuple[str, ...], str]) -> list[str]:
    """Return a warning for each group of keys that has given ones and holds: (whether it holds, first letters, why)."""
    out = []
    for condition, keys, why in groups:
        idle = [f"{key}={value}" for key, value in given.items() if key.startswith(keys)]
        if condition and idle:
            out.append(f"no effect: {', '.join(idle)}; {why}.")
    return out


def make_setting(
    labels: LabelledSet, encoders: Sequence[Encoder], config: FinetuneKeys, device: torch.device, precision: str
) -> FinetuneSetting:
    """Return a checked setting of a span detector. Raises: UserError for an unknown head, or another window length.

    The head ``auto`` means ``span`` here: windows without an event, or with several, are for an event detector.
    """
    if config.finetune.head == "auto":
        config = config.model_copy(update={"finetune": config.finetune.model_copy(update={"head": "span"})})
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
    if config.finetune.reader in ("prior", "averaged"):
        _check_prior(pretrained, config)
    architecture = pretrained if pretrained is not None else _architecture(labels, config)
    return FinetuneSetting(labels, pretrained, architecture.to(device), config, device, precision)


def _check_prior(encoder: Encoder | None, config: FinetuneKeys) -> None:
    """Check that the prior reader can read the encoder. Raises: UserError."""
    tuned = config.finetune
    if encoder is None or _no_encoder(config) or not tuned.freeze or tuned.head != "span":
        raise UserError(
            f"finetune.reader={tuned.reader} reads the encodings of frozen encoders at a span; give encoder=, keep "
            "freeze_encoder=true and finetune.head=span, or set finetune.reader=head"
        )
    if tuned.reader == "averaged" and tuned.inputs not in ("auto", "both"):
        raise UserError(
            f"finetune.reader=averaged reads encoding and price-path features, not finetune.inputs={tuned.inputs}; "
            "leave finetune.inputs out, or set it to both"
        )
    priors_of(encoder)


def _architecture(labels: LabelledSet, config: FinetuneKeys) -> Encoder:
    """Return the configured network with the scaling of all labelled windows.

    Only a frozen random encoder keeps this scaling; test windows in it give it a small advantage.
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
    """Return how heads are fitted; ``fresh`` means that the encoder starts from random weights.

    Raises: UserError if an encoder is to be trained but would stay frozen in every epoch.
    """
    tuned, trainer, lr = config.finetune, config.trainer, config.optimizer.lr
    trained_on = bool(tuned.encoder.strip()) and not tuned.freeze and not _no_encoder(config)
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
    """Return the detector, followed by the baselines that ``cv.baselines`` asks for."""
    baselines, left_out = _baselines(setting), left_out_baselines(setting)
    return [detector_method(setting), *(make() for name, make in baselines.items() if name not in left_out)]


def left_out_baselines(setting: FinetuneSetting) -> list[str]:
    """Return the names of the baselines that ``cv.baselines=quick`` leaves out."""
    quick = setting.config.cv.baselines == "quick"
    return [name for name in _baselines(setting) if quick and name in WITHOUT_PRETRAINING]


def _baselines(setting: FinetuneSetting) -> dict[str, Callable[[], Method]]:
    """Return how each baseline is made, by name.

    Networks without pre-training have the detector's architecture; for an ensemble, all its members. The network with a
    pooled head is the published form with one encoder; for an ensemble, its first member.
    """
    config, inputs, whole = setting.config, setting.baseline_inputs, setting.architecture
    settings = head_settings(config)

    def hand_made(name: str, reads: Inputs) -> Method:
        return HeadMethod(name, _cached(setting, None, reads), settings)

    makers: dict[str, Callable[[], Method]] = {
        "scratch": lambda: _scratch("scratch", setting, whole, inputs, config.finetune.head),
        "pooled_scratch": lambda: _scratch("pooled_scratch", setting, members_of(whole)[0], "encoding", "pooled"),
        "random_encoder": lambda: RandomEncoderMethod(whole, inputs, setting.device, settings, setting.features),
        "path_features": lambda: hand_made("path_features", "price_path"),
        "hand_made": lambda: hand_made("hand_made", "price_path+features"),
    }
    if setting.kind == "scratch":
        del makers["scratch"]
    if setting.kind == "price_path":
        del makers["path_features"]
    if setting.kind == "price_path" or setting.features is None:
        del makers["hand_made"]
    return makers | {name: partial(ClassicalMethod, name) for name in BASELINES}


def detector_method(setting: FinetuneSetting) -> Method:
    """Return the detector as a method of the comparison."""
    inputs = setting.inputs
    if setting.reader == "averaged":
        assert setting.encoder is not None
        encoding, path = (_cached(setting, setting.encoder, reads) for reads in ("encoding", "price_path"))
        settings = head_settings(setting.config)
        return AveragedMethod(DETECTOR, encoding, path, priors_of(setting.encoder), settings)
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


def _scratch(name: str, setting: FinetuneSetting, architecture: Encoder, inputs: Inputs, head: str) -> NetworkMethod:
    settings = head_settings(setting.config, fresh=True, head=head, precision=setting.precision)
    # One scaling is fitted for all members, on the steps after the longest warm-up.
    warmup = max(member.card["window"]["warmup"] for member in members_of(architecture))
    features = _features(setting, architecture, inputs)
    return NetworkMethod(name, features, settings, architecture, fresh=True, warmup=warmup)


def _cached(setting: FinetuneSetting, encoder: Encoder | None, inputs: Inputs) -> HeadInputs:
    """Return a head's inputs of all labelled windows. Shapes: [N, T, P]."""

    def of(ohlc_NT4: np.ndarray) -> Tensor:
        return detector_inputs(encoder, inputs, ohlc_NT4, setting.device, features=setting.features)

    return _both_ways(of, setting.labels.ohlc, setting.config.finetune.mirror)


def _features(setting: FinetuneSetting, encoder: Encoder, inputs: Inputs) -> HeadInputs:
    """Return an encoder's raw features, followed by a head's further inputs. Shapes: [N, T, F + K]."""

    def of(ohlc_NT4: np.ndarray) -> Tensor:
        parts = [encoder_features(encoder, ohlc_NT4), further_inputs(inputs, ohlc_NT4, setting.features)]
        return torch.cat([part.to(setting.device) for part in parts], -1)

    return _both_ways(of, setting.labels.ohlc, setting.config.finetune.mirror)


def _both_ways(of: Callable[[np.ndarray], Tensor], ohlc_NT4: np.ndarray, mirror: bool) -> HeadInputs:
    """Return the inputs of windows, and of their mirror images if wanted."""
    return HeadInputs(of(ohlc_NT4), of(mirrored(ohlc_NT4)) if mirror else None)


def refit_detector(setting: FinetuneSetting, epochs: int, seed: int) -> tuple[Encoder | None, Detector]:
    """Fit on all labels and return the encoder that the detector reads, if any, and the head.

    No window is held out: the folds have chosen the number of epochs.
    """
    targets, method = Targets.of(setting.labels), detector_method(setting)
    if isinstance(method, AveragedMethod):
        return setting.encoder, method.fit(targets, np.arange(len(setting.labels)), seed)
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
