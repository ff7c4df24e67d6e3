"""Sections ``finetune``, ``cv`` and ``gates``: how a detector is fitted, cross-validated and judged."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from moola_mlflow.core.config.base import Section, current_name


class GivenEncoderConfig(Section):
    """The encoder."""

    encoder: str = ""
    """Pre-trained encoder: models:/ or runs:/ URI, folder or .pt file. Several, separated by commas, are an ensemble;
    not set: the network starts from random weights."""


class FinetuneConfig(GivenEncoderConfig):
    """What the detector reads, and how its head is fitted."""

    freeze: bool = True
    """Whether the given encoder stays frozen (phase 1) or is trained too (phase 2)."""
    unfreeze_at: int = Field(0, ge=0)
    """Epochs of phase 2 in which the head trains alone; then the encoder is unfrozen and trains too."""
    inputs: Literal[
        "auto", "encoding", "price_path", "both", "encoding+features", "price_path+features", "both+features"
    ] = "auto"
    """What is read at each step: the encoding, the price-path features or both, and with `+features` the features of
    features.set too, your own among them; auto: encoding for the prior reader, both for a head."""
    reader: Literal["auto", "prior", "averaged", "head"] = "auto"
    """prior: the prior reader, for an encoder trained on rules; averaged: the average of the prior reader, a trained
    head on the encoding and one on the price-path features; head: a trained head; auto: prior if the encoder is frozen
    and has heads of rules, and finetune.inputs and finetune.head do not ask for a head. An event detector with a prior
    reader averages it with nets in any case."""
    head: str = "auto"
    """event: several events a window or none; span: one span in each window; pooled: the mean over the steps, as
    published; auto: event if the labels have windows without an event or with several and the encoder stays frozen,
    span otherwise."""
    precision: float = Field(0.8, gt=0, lt=1)
    """Precision that the threshold of an event detector is chosen for, on the windows that its folds held out."""
    unlabelled: Literal["none", "bars"] = "none"
    """bars: an event detector also learns from windows of bars.path that nobody looked at. If the labels hold windows
    without an event, by self-training; if they hold none, by positive-unlabelled learning with the base rate."""
    unlabelled_windows: int = Field(700, ge=50, lt=2**20)
    """Windows without labels that are drawn from the bars, at most."""
    base_rate: float = Field(0.4, gt=0, lt=1)
    """Share of windows that hold an event. It is assumed if no window is labelled none."""
    span_baseline: bool = True
    """Event detectors: also compare with a span detector, which learns only from windows with events. It is read as
    maps, averaged like the detector's, and as one hit in each window."""
    head_lr: float | None = Field(None, gt=0, le=1e6)
    """Learning rate of the head; none: optimizer.lr."""
    encoder_lr: float | None = Field(None, gt=0, le=1e6)
    """Learning rate of a given encoder in phase 2; none: optimizer.lr."""
    scratch_lr: float = Field(1e-3, gt=0, le=1e6)
    """Learning rate of an encoder that starts from random weights, as a baseline or as the detector's own."""
    gamma: float = Field(0.0, ge=0)
    """Exponent of the focal class loss; 0: cross-entropy."""
    class_balanced: bool = False
    """Whether training windows are drawn so that every class comes up equally often."""
    jitter_sigma: float = Field(0.0, ge=0)
    """Gaussian noise on the head's inputs in training, in standard deviations of each input."""
    mirror: bool = True
    """Whether half of the training windows are turned upside down."""
    tuned_on: str = ""
    """SHA-256 of the labels on which a sweep chose this configuration; the sweep writes it."""

    @field_validator("inputs", mode="before")
    @classmethod
    def _current_name(cls, value: Any) -> Any:
        """Return the name as it is now; parts may be in any order, and both is the encoding and price_path."""
        if not isinstance(value, str):
            return value
        parts = set(current_name(value).replace(" ", "").replace("both", "encoding+price_path").split("+"))
        if parts >= {"encoding", "price_path"}:
            parts = parts - {"encoding", "price_path"} | {"both"}
        order = ("auto", "both", "encoding", "price_path", "features")
        return "+".join(sorted(parts, key=lambda part: order.index(part) if part in order else len(order)))


class CvConfig(Section):
    """How the labelled windows are divided for cross-validation, and what the detector is compared with."""

    folds: int = Field(5, ge=2, lt=2**31)
    """Folds of the cross-validation."""
    repeats: int = Field(1, ge=1, lt=2**31)
    """How often new folds are drawn for each seed."""
    seeds: tuple[int, ...] = ()
    """Seeds over which everything is repeated, such as 13,17,23,29; not set: trainer.seed."""
    kind: Literal["auto", "time", "stratified"] = "auto"
    """time: blocks of time; stratified: the same share of each class; auto: time if the labels have times."""
    embargo_bars: int = Field(105, ge=0)
    """Minutes after a test span in which no training window may start; needs labels with times."""
    inner_share: float = Field(0.2, gt=0, le=0.5)
    """Share of each training part that is held out to choose the epoch and the temperature; taken as one of
    round(1 / inner_share) equal parts."""
    baselines: Literal["all", "quick"] = "all"
    """all: every baseline; quick: those that read no encoder, so a gain over networks without pre-training is not
    measured and its gate is missed."""
    workers: int = Field(0, ge=0, le=1024)
    """Processes that fit folds; 0: one for each core on the CPU."""

    @field_validator("seeds", mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, str | int):
            words = [word.strip() for word in str(value).split(",") if word.strip()]
            if not all(word.isdigit() for word in words):
                raise ValueError("write whole numbers with commas between them, such as 13,17,23,29")
            value = tuple(map(int, words))
        if isinstance(value, list | tuple) and any(isinstance(s, int) and not 0 <= s < 2**32 for s in value):
            raise ValueError("a seed is a whole number from 0 to 4294967295")
        if isinstance(value, list | tuple) and len(set(map(repr, value))) < len(value):
            raise ValueError("a seed is given twice: a second pass over the same folds adds nothing")
        return value


class EvaluateConfig(Section):
    """What is true in the bars that a detector is scored on, and how it is scored."""

    rule: str = ""
    """Rule that says which events are true: surge-1, one of your own, or a drawn rule such as strict-0-12; not set: the
    rule that made the detector's labels. Labels of a file take its place."""
    strict: bool = False
    """Truth by a rule: whether a found event that a tenth to a half of the windows name is wrong, instead of neither
    right nor wrong."""
    margin: int = Field(20, ge=0)
    """Truth by labels: bars at each end of a window looked at in which nothing is judged."""
    block_bars: int = Field(2000, ge=1, lt=2**31)
    """Bars of a block; intervals resample whole blocks."""


class GateModeConfig(Section):
    """What happens if a gate is missed."""

    mode: Literal["report", "strict"] = "report"
    """report: print and tag missed gates; strict: the command also ends with exit code 3."""


class EncoderLimits(Section):
    """What an encoder must show."""

    probe_r2_gain: float = 0.067
    """Encoder: least gain of the probe over the same network with random weights."""
    few_shot_gain: float = 4.5
    """Encoder of the objective rules: least gain in loss on fresh rules over the same network with random weights."""
    skill: float = 0.10
    """Encoder: least skill on the validation windows, against the best baseline."""


class DetectorLimits(Section):
    """What a detector must show."""

    f1_macro: float = 0.60
    """Detector: least out-of-fold macro F1."""
    joint_success_at_3: float = 0.40
    """Detector: least out-of-fold share of windows with the right class and the centre within 3 bars."""
    recall: float = 0.30
    """Detector: least recall of every class; below it the detector ignores a class."""
    ece: float = 0.10
    """Detector: calibration error, out of fold and after temperature scaling, must be below this. With few windows
    even a perfectly calibrated detector has an error e, and the limit is the root of the sum of both squares."""
    delta_joint_success_at_3: float = 0.0
    """Detector: the lower end of the interval of its gain over networks without pre-training must be above this."""
    map: float = 0.50
    """Event detector: least out-of-fold mean average precision."""
    event_recall: float = 0.10
    """Event detector: least out-of-fold recall of every class at its threshold; below it a class is ignored."""
    precision: float = 0.70
    """Event detector: least out-of-fold precision at its threshold."""
    event_ece: float = 0.05
    """Event detector: by how much at most the calibration error of its scores may exceed what a perfectly calibrated
    detector has with as many events."""
    delta_map: float = 0.0
    """Event detector: the lower end of the interval of its gain over the best baseline must be above this."""


class EncoderGatesConfig(EncoderLimits, GateModeConfig):
    """What the encoder must show, and what happens if it does not."""


class DetectorGatesConfig(DetectorLimits, GateModeConfig):
    """What the detector must show, and what happens if it does not."""


class GateLimits(DetectorLimits, EncoderLimits):
    """What a model version must show before `promote` moves an alias to it."""
