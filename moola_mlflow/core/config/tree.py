"""The configuration tree: every key, its type, its range and its meaning.

Docstrings below attributes are the help texts of ``moola NAME --help``.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping
from typing import Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from moola_mlflow.core.config.base import Section, from_text
from moola_mlflow.core.config.sweep import SweepConfig


class BarsConfig(Section):
    """Where bars come from, and how they are read."""

    path: str = "sample"
    """A file, a folder, a glob, or `sample` for the embedded synthetic series."""
    instrument: str | None = None
    """A symbol or id, `front` (highest volume each trade date), or `all`; needed when a file holds several."""
    timezone: str = "UTC"
    """IANA zone of times that carry none."""
    stamp: Literal["start", "end"] = "start"
    """Whether a bar is stamped with its start or its end."""
    max_gap_minutes: int = Field(5, ge=1)
    """A longer step between two bars ends a segment."""
    repair: Literal["refuse", "drop"] = "refuse"
    """What to do with bad rows: refuse the file, or drop them and log how many of each kind."""
    sample_bars: int = Field(200_000, ge=1, lt=2**31)
    """Length of the synthetic series, in bars."""
    sample_seed: int = Field(1, ge=0)
    """Seed of the synthetic series."""


class FeaturesConfig(Section):
    set: str = "relativity11"
    """relativityN: the first N rows of the feature table, 10 or more; +NAME adds those of features/NAME.py."""
    hybrid_lookback: int = Field(0, ge=0)
    """Bars after a leg's extreme within which the hybrid rule may end it; 0 = primary rule alone."""
    hybrid_min_retrace: float = Field(0.5, gt=0)
    """Retracement, in ATR, that the hybrid rule asks for."""
    hybrid_same_bar: bool = False
    """Whether the bar that set the extreme may itself confirm it (the published variant: true)."""


class WindowsConfig(Section):
    length: int = Field(105, ge=2, lt=2**31)
    """Bars a window."""
    stride: int = Field(52, ge=1, lt=2**31)
    """Bars between the starts of neighbouring windows."""
    warmup: int = Field(20, ge=0)
    """First steps of a window that are never a loss position."""
    weights: dict[str, float] = Field({})
    """How often windows of an instrument (symbol or id) are drawn for training; those not named: 1."""

    @field_validator("weights", mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        value = from_text(value, "{ES: 2, NQ: 0.5}")
        return {str(name): weight for name, weight in value.items()} if isinstance(value, Mapping) else value

    @field_validator("weights")
    @classmethod
    def _not_negative(cls, value: dict[str, float]) -> dict[str, float]:
        if any(weight < 0 or weight > 1e6 for weight in value.values()):
            raise ValueError("a weight is a number from 0 (never drawn) to 1000000")
        return value

    @model_validator(mode="after")
    def _warmup_fits(self) -> WindowsConfig:
        if self.warmup >= self.length:
            raise ValueError(
                f"warmup {self.warmup} leaves no valid step in a window of {self.length}; lower windows.warmup below it"
            )
        return self


class SplitConfig(Section):
    train: float = Field(0.8, gt=0, lt=1)
    """Share of the time-ordered windows that train."""
    val: float = Field(0.1, gt=0, lt=1)
    """Share that chooses the epoch."""
    test: float = Field(0.1, gt=0, lt=1)
    """Share that is scored once."""
    train_end: dt.date | None = None
    """Last UTC date of the training windows; dates replace the shares and come all three together."""
    val_end: dt.date | None = None
    """Last UTC date of the validation windows."""
    test_end: dt.date | None = None
    """Last UTC date of the test windows."""

    @model_validator(mode="after")
    def _consistent(self) -> SplitConfig:
        dates = [self.train_end, self.val_end, self.test_end]
        given = [date for date in dates if date is not None]
        if given and len(given) < 3:
            raise ValueError("train_end, val_end and test_end come together: give all three or none")
        if given != sorted(set(given)):
            shown = ", ".join(str(date) for date in given)
            raise ValueError(f"train_end < val_end < test_end is needed, the dates are {shown}; put them in order")
        if given and not (given[0].year >= 1900 and given[-1].year <= 2200):
            raise ValueError(f"dates from {given[0]} to {given[-1]}; allowed: years 1900 to 2200")
        if not given and self.train + self.val + self.test > 1 + 1e-9:
            total = self.train + self.val + self.test
            raise ValueError(f"train + val + test = {total:g}, more than 1; lower one of them")
        return self


class EncoderConfig(Section):
    name: str = "bilstm"
    """Architecture, by its name in the encoder registry."""
    hidden: int = Field(128, ge=1, le=2**16)
    """Units per direction; the encoding has twice as many."""
    layers: int = Field(2, ge=1, le=64)
    """Stacked layers."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout between layers."""


class ObjectiveConfig(Section):
    name: str = "masked"
    """Objective, by its name in the objective registry, or a weighted sum such as `path+0.5*masked`."""
    mask_strategy: Literal["random", "patch"] = "random"
    """Hide single steps or blocks of steps."""
    mask_ratio: float | None = Field(None, gt=0, lt=1)
    """Share of the valid steps that is hidden; default 0.15 (random) or 0.4 (patch)."""
    mask_patch: int = Field(10, ge=1)
    """Steps in a block of the patch strategy."""
    hide_masked: bool = True
    """false is the published objective: the encoder sees the steps it must reconstruct (an identity copy)."""
    uncertainty: bool = False
    """Loss H / (2 s^2) + log s with a learned log s."""
    log_sigma_min: float = -3.0
    """Lower clamp of the learned log s (published: -6)."""
    units: Literal["z", "raw"] = "z"
    """Units of the loss: z-scored features, or raw ones (published)."""
    jitter_sigma: float = Field(0.03, ge=0)
    """Gaussian input noise in z units, training only; the target stays clean."""

    @model_validator(mode="before")
    @classmethod
    def _ratio_by_strategy(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("mask_ratio") is None:
            return {**data, "mask_ratio": 0.4 if data.get("mask_strategy") == "patch" else 0.15}
        return data


class OptimizerConfig(Section):
    lr: float = Field(1e-3, gt=0, le=1e6)
    """Peak learning rate of AdamW (betas 0.9, 0.999)."""
    weight_decay: float = Field(1e-2, ge=0)
    """Decoupled weight decay, on weight matrices only."""


class ScheduleConfig(Section):
    warmup_epochs: float = Field(5, ge=0)
    """Epochs of linear warm-up from 0 to lr; at most half of the run."""
    final_fraction: float = Field(0.1, ge=0, le=1)
    """Share of lr where the cosine ends."""


class TrainerConfig(Section):
    epochs: int = Field(20, ge=1, lt=2**31)
    """Passes over the training windows."""
    batch_size: int = Field(64, ge=1, lt=2**31)
    """Windows a step."""
    clip_norm: float = Field(1.0, gt=0)
    """Largest gradient norm."""
    patience: int = Field(10, ge=1)
    """Epochs without a better validation Huber before training stops."""
    seed: int = Field(17, ge=0, lt=2**32)
    """Seed of weights, masks, jitter and shuffling."""
    nan_retry: bool = False
    """Whether a loss that is no number sends training back to its last good epoch, once, at half the learning rate."""


class RuntimeConfig(Section):
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """auto = bf16 autocast where the hardware has it, fp16 on older GPUs, fp32 otherwise."""
    threads: int = Field(0, ge=0, le=1024)
    """torch threads of each part of a batch; 0 = one: more may be slower, see docs/explanation/performance.md."""
    shards: int = Field(0, ge=0, le=1024)
    """Parts of a batch that are trained side by side; 0: one a core (or OMP_NUM_THREADS), of 16 windows or more."""
    tune: Literal["on", "off"] = "on"
    """off: plain PyTorch (its own allocation, dropout, threads and, where precision is auto, fp32), to compare with."""


class TrackingConfig(Section):
    experiment: str = "moola"
    """Experiment of runs that the launcher did not make."""
    resume: str = Field("never", pattern=r"^(never|auto|new(:(offline-)?[0-9a-f]{32})?|(offline-)?[0-9a-f]{32})$")
    """never: a new run; auto: go on with the newest unfinished one of this configuration; a run's id: with that one;
    new or new:ID: from its latest checkpoint in a run of its own."""
    allow_drift: str = ""
    """Keys that may differ when a run goes on, with commas between them; the change is recorded."""
    figures_every: int = Field(5, ge=1)
    """Epochs between two pictures of the same reconstructed windows."""


class RegistryConfig(Section):
    name: str = Field("moola-encoder", pattern=r"^[^/:\s][^/:]{0,250}$")
    """Registered model to add a version to; `none` skips registration."""


class LabelsConfig(Section):
    path: str = "sample"
    """A parquet file of labelled windows, or `sample`: weak labels on sample bars."""
    n: int = Field(174, ge=2, lt=2**31)
    """Labelled windows to make; all that are found where they are fewer."""
    sample_seed: int = Field(1001, ge=0)
    """Seed of the sample bars that labels come from; not bars.sample_seed, whose bars pre-training sees."""
    overlap: bool = False
    """Whether windows that a rule labels may share bars."""
    seed: int = Field(17, ge=0, lt=2**32)
    """Draws the windows of `sample`, whatever trainer.seed is: repeats over seeds score the same windows."""


class FinetuneConfig(Section):
    encoder: str = ""
    """Encoder to read with (models:/ or runs:/ URI, folder, .pt); several, with commas: ensemble; not set: scratch."""
    freeze: bool = True
    """Whether pre-trained encoders stay as they are (phase 1) or are trained on (phase 2)."""
    unfreeze_at: int = Field(0, ge=0)
    """Epoch from which on an encoder that is not frozen is trained; before it the head alone is."""
    inputs: Literal["encoding", "path", "both"] = "both"
    """What the head reads: the encoding, the path features, or both."""
    head: str = "span"
    """span: start and end as softmax over steps; pooled: the published mean pool."""
    head_lr: float | None = Field(None, gt=0, le=1e6)
    """Learning rate of the head; none: optimizer.lr."""
    encoder_lr: float | None = Field(None, gt=0, le=1e6)
    """Learning rate of a pre-trained encoder that is not frozen; none: optimizer.lr."""
    scratch_lr: float = Field(1e-3, gt=0, le=1e6)
    """Learning rate of an encoder trained from random initialisation."""
    gamma: float = Field(0.0, ge=0)
    """Of the focal class loss; 0 is cross-entropy."""
    class_balanced: bool = False
    """Draw training windows so that classes come up equally often."""
    jitter_sigma: float = Field(0.0, ge=0)
    """Gaussian noise on inputs in training, in units of each input's own spread."""
    mirror: bool = True
    """Turn half of the training windows upside down."""
    tuned_on: str = ""
    """SHA-256 of the labels on which a sweep chose this configuration; written by the sweep."""


class CvConfig(Section):
    folds: int = Field(5, ge=2, lt=2**31)
    """Folds of the cross-validation."""
    repeats: int = Field(1, ge=1, lt=2**31)
    """Times the folds are drawn anew for each seed."""
    seeds: tuple[int, ...] = ()
    """Seeds over which the whole is repeated, such as 13,17,23,29; not set: trainer.seed."""
    kind: Literal["auto", "time", "stratified"] = "auto"
    """time: contiguous blocks; stratified: even classes; auto: time where the labels have times."""
    embargo_bars: int = Field(105, ge=0)
    """Minutes after a test span in which no training window may start; without times none is kept."""
    inner_share: float = Field(0.2, gt=0, le=0.5)
    """Share of each training part held out for epoch and temperature, as one of round(1 / inner_share) parts."""
    workers: int = Field(0, ge=0, le=1024)
    """Processes that fit folds; 0: one a core on the CPU."""

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


class DetectConfig(Section):
    detector: str = "models:/moola-detector@champion"
    """Detector that reads the bars: models:/ or runs:/ URI, or a folder."""
    stride: int = Field(21, ge=1, lt=2**31)
    """Bars between two windows that are read; one that ends at a segment's last bar is read too."""
    min_probability: float = Field(0.8, ge=0, le=1)
    """Least calibrated probability of a hit: a detector names a class in every window."""
    min_span_score: float = Field(0.8, ge=0, le=1)
    """Least share of the span head's belief within 3 bars of the span's centre; heads without one are not asked."""
    margin: int = Field(20, ge=0)
    """Bars that a window must hold on either side of a hit's span: those that the class is read from."""
    top: int = Field(50, ge=0, le=1000)
    """Charts on the page, of the most probable hits."""


class GatesConfig(Section):
    mode: Literal["report", "strict"] = "report"
    """report: a missed gate is told and tagged; strict: the command also ends with exit code 3."""
    probe_r2_gain: float = 0.067
    """Encoder: what training must add to the probe of the same network at random."""
    skill: float = 0.10
    """Encoder: least skill against the best baseline, validation windows."""
    f1_macro: float = 0.60
    """Detector: least out-of-fold macro F1."""
    joint_success_at_3: float = 0.40
    """Detector: least out-of-fold share of windows with the class right and the centre within 3 bars."""
    recall: float = 0.30
    """Detector: least recall of any class; below it the detector has collapsed."""
    ece: float = 0.10
    """Detector: the calibration error, out of fold and after temperature, must be below."""
    delta_joint_success_at_3: float = 0.0
    """Detector: the lower end of the interval of its gain over scratch and random networks must be above."""


class Config(Section):
    """The whole tree."""

    bars: BarsConfig = BarsConfig()
    features: FeaturesConfig = FeaturesConfig()
    windows: WindowsConfig = WindowsConfig()
    split: SplitConfig = SplitConfig()
    encoder: EncoderConfig = EncoderConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    trainer: TrainerConfig = TrainerConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    tracking: TrackingConfig = TrackingConfig()
    registry: RegistryConfig = RegistryConfig()
    labels: LabelsConfig = LabelsConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    cv: CvConfig = CvConfig()
    sweep: SweepConfig = SweepConfig()
    gates: GatesConfig = GatesConfig()
    detect: DetectConfig = DetectConfig()

    @model_validator(mode="after")
    def _patch_fits(self) -> Config:
        objective, windows = self.objective, self.windows
        hidden = round((objective.mask_ratio or 0) * (windows.length - windows.warmup))
        if objective.mask_strategy == "patch" and objective.mask_patch > max(1, hidden):
            raise ValueError(
                f"objective.mask_patch={objective.mask_patch} is more than the {hidden} steps that are hidden of a "
                f"window (mask_ratio {objective.mask_ratio:g} of {windows.length - windows.warmup}); lower mask_patch "
                "or raise mask_ratio"
            )
        return self

    def flat(self) -> dict[str, Any]:
        """Return every leaf under its dotted name, in the order of the tree."""
        return {f"{s}.{k}": v for s, section in self.model_dump(mode="json").items() for k, v in section.items()}

    def given(self) -> dict[str, Any]:
        """Return the keys that a preset or the command line has set to another value than the default."""
        default = Config().flat()
        named = {f"{name}.{key}" for name in Config.model_fields for key in getattr(self, name).model_fields_set}
        return {key: value for key, value in self.flat().items() if key in named and value != default[key]}

    def to_yaml(self) -> str:
        """Return the whole resolved tree as YAML that can be read back as a preset."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def sha256(self) -> str:
        """Return the SHA-256 of the resolved tree."""
        return hashlib.sha256(self.to_yaml().encode()).hexdigest()
