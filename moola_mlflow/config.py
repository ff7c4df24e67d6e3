"""The configuration tree: every key, its type, its range and its meaning, in one place.

Order of precedence: preset file < dotted key < short parameter. Extra keys are refused with the
nearest valid one. Docstrings below attributes are the help texts of ``moola NAME --help``.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator

from moola_mlflow.errors import UserError, nearest

MAX_YAML_BYTES = 2**20
MAX_YAML_NODES = 20_000
"""Values that a preset may unfold to: a reference to a reference to a reference is a bomb."""
MAX_DIGITS = 300
"""Python does not print whole numbers of more than some thousand digits, not even in a message."""


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False, validate_default=True
    )


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
    weights: dict[str, float] = {}
    """How often windows of an instrument (symbol or id) are drawn for training; those not named: 1."""

    @field_validator("weights", mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, str):  # from the command line
            try:
                value = read_yaml(value)
            except (yaml.YAMLError, ValueError, RecursionError) as e:
                raise ValueError("write YAML such as {ES: 2, NQ: 0.5}") from e
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
    dropout: float = Field(0.65, ge=0, lt=1)
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
    """torch threads of each part of a batch; 0 = one: more may be slower, see docs/performance.md."""
    shards: int = Field(0, ge=0, le=1024)
    """Parts of a batch that are trained side by side; 0: one a core (or OMP_NUM_THREADS), of 16 windows or more."""
    tune: Literal["on", "off"] = "on"
    """off: plain PyTorch (its own allocation, dropout, threads and, where precision is auto, fp32), to compare with."""


class TrackingConfig(Section):
    experiment: str = "moola"
    """Experiment of runs that the launcher did not make."""
    resume: str = Field("never", pattern=r"^(never|auto|new(:[0-9a-f]{32})?|[0-9a-f]{32})$")
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
    """Encoder to read with (models:/ or runs:/ URI, folder, .pt); several, with commas: an ensemble; none: scratch."""
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
    """Seeds over which the whole is repeated, such as 13,17,23,29; none: trainer.seed."""
    kind: Literal["auto", "time", "stratified"] = "auto"
    """time: contiguous blocks; stratified: even classes; auto: time where the labels have times."""
    embargo_bars: int = Field(105, ge=0)
    """Minutes after a test span in which no training window may start; without times none is kept."""
    inner_share: float = Field(0.2, gt=0, lt=1)
    """Share of each training part held out to choose the epoch and the temperature."""
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


class Dimension(Section):
    """One searched key: ``low`` and ``high``, or ``choices``; a YAML list is short for choices."""

    low: float | None = None
    """Least value."""
    high: float | None = None
    """Largest value."""
    log: bool = False
    """Draw on a logarithmic scale."""
    step: float | None = Field(None, gt=0)
    """Distance between two values; whole numbers have 1."""
    choices: tuple[bool | int | float | str | None, ...] | None = None
    """The values themselves."""
    when: dict[str, Any] = {}
    """Other keys and the value (or list of values) that they must have for this one to be searched."""

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        return {"choices": value} if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _not_empty(self) -> Dimension:
        if self.choices is not None:
            if not self.choices or self.low is not None or self.high is not None or self.log or self.step:
                raise ValueError("choices need at least one value, and neither low, high, log nor step beside them")
            if len({repr(choice) for choice in self.choices}) < len(self.choices):
                raise ValueError("a choice is given twice")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give low and high, or choices")
        if self.low > self.high:
            raise ValueError(f"the range from {self.low:g} to {self.high:g} is empty; low must not be above high")
        if self.log and (self.low <= 0 or self.step):
            raise ValueError(f"log needs low above 0 and no step; low is {self.low:g}, step {self.step}")
        return self


class SweepConfig(Section):
    stage: Literal["pretrain", "finetune"] = "pretrain"
    """What a trial trains."""
    objective: Literal["auto", "val/huber", "probe/r2_gain", "inner/joint_success_at_3"] = "auto"
    """What the search improves, never the learned-sigma loss; auto = val/huber, or Joint@3 inside folds."""
    space: dict[str, Dimension] = {}
    """Searched keys by dotted name."""
    enqueue: tuple[dict[str, Any], ...] = ()
    """Points that are tried first: dotted keys with their values; keys left out are drawn."""
    n_trials: int = Field(20, ge=1, lt=2**20)
    """Trials that shall end complete or pruned, counted over everyone who works on the study."""
    workers: int = Field(1, ge=1, le=256)
    """Processes on this machine."""
    study: str = Field("", max_length=200)
    """Name under which several commands, here or on other machines, share one sweep; none: one of its own."""
    storage: str = ""
    """Where workers coordinate (sqlite:///file or postgresql://...); none: beside the tracking store."""
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    """tpe: Optuna's, with constant liar; random; grid: every combination, in an order drawn from the seed."""
    seed: int = Field(17, ge=0, lt=2**32)
    """Seed of the drawn points."""
    startup_trials: int = Field(8, ge=0)
    """Trials drawn at random before tpe learns from them."""
    pruner: Literal["median", "hyperband", "none"] = "median"
    """median: stop a trial that is worse than the median of the others at its epoch; hyperband; none."""
    prune_after: int = Field(3, ge=0)
    """Epochs (folds, for finetune) that no trial is pruned before."""
    prune_startup: int = Field(3, ge=0)
    """Trials that run whole before the median prunes."""
    budget: Literal["epochs", "windows", "seconds"] = "epochs"
    """What every trial gets equally: trainer.epochs, or budget_amount of windows trained on or of seconds."""
    budget_amount: float | None = Field(None, gt=0)
    """Windows or seconds of training a trial gets (seconds of CPU time where it trains on the CPU)."""
    heartbeat_s: int = Field(10, ge=1, le=3600)
    """Seconds between two signs of life of a running trial."""
    grace_s: int = Field(60, ge=1, le=86400)
    """Seconds without a sign of life after which a trial counts as dead, and is tried again."""
    max_retries: int = Field(3, ge=0)
    """Times that a trial whose worker died is tried again with its values; then a new one takes its place."""
    max_failures: int = Field(10, ge=0)
    """Trials that may fail by themselves before the sweep gives up; each is replaced by a new one."""
    register_best: bool = False
    """Register the best trial's encoder as candidate."""

    @field_validator("space", "enqueue", mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, str):  # from the command line
            try:
                value = read_yaml(value)
            except (yaml.YAMLError, ValueError, RecursionError) as e:
                raise ValueError("write YAML such as {optimizer.lr: {low: 1e-4, high: 1e-2, log: true}}") from e
        return value

    @model_validator(mode="after")
    def _consistent(self) -> SweepConfig:
        inner = self.objective == "inner/joint_success_at_3"
        if self.objective != "auto" and inner != (self.stage == "finetune"):
            raise ValueError(f"objective {self.objective} is not one of stage {self.stage}; set sweep.objective=auto")
        if (self.budget == "epochs") != (self.budget_amount is None):
            raise ValueError(
                f"budget {self.budget} with budget_amount {self.budget_amount}: windows and seconds need "
                "an amount, epochs take trainer.epochs"
            )
        if self.stage == "finetune" and (self.budget != "epochs" or self.register_best):
            raise ValueError(
                "stage finetune has neither another budget nor register_best: its winner is registered "
                "by finetune -P config=best_config.yaml, with its evidence"
            )
        if self.grace_s <= self.heartbeat_s:
            raise ValueError(f"grace_s {self.grace_s} must be above heartbeat_s {self.heartbeat_s}")
        return self

    @property
    def target(self) -> str:
        """The metric that the search improves."""
        return (
            {"pretrain": "val/huber", "finetune": "inner/joint_success_at_3"}[self.stage]
            if self.objective == "auto"
            else self.objective
        )

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """Which way is better."""
        return "minimize" if self.target == "val/huber" else "maximize"


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
    """Encoder: least skill against the best ruler, validation windows."""
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

    def without(self, *unused: str) -> Config:
        """Return the same tree whose ``flat`` leaves out keys, or whole sections (``name.``), that a command does not
        read: it then logs no parameter that had no effect, while its file and hash hold everything."""
        return _Shown.model_construct(**dict(self)).hiding(unused)

    def to_yaml(self) -> str:
        """Return the whole resolved tree as YAML that can be read back as a preset."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def sha256(self) -> str:
        """Return the SHA-256 of the resolved tree."""
        return hashlib.sha256(self.to_yaml().encode()).hexdigest()


class _Shown(Config):
    _unused: tuple[str, ...] = PrivateAttr(())

    def hiding(self, unused: tuple[str, ...]) -> Config:
        self._unused = unused
        return self

    def flat(self) -> dict[str, Any]:
        return {key: value for key, value in super().flat().items() if not key.startswith(self._unused)}


def dotted_keys() -> dict[str, Any]:
    """Return every dotted key with its pydantic field, in the order of the tree."""
    return {
        f"{section}.{name}": field
        for section, top in Config.model_fields.items()
        for name, field in typing.cast(type[Section], top.annotation).model_fields.items()
    }


def read_yaml(text: str) -> Any:
    """Read YAML without building objects of other types, or references that unfold to more than a preset holds.

    Raises: yaml.YAMLError, ValueError or RecursionError where it is none, or unfolds to too much.
    """
    tree = yaml.safe_load(text)
    waiting, seen = [tree], 0
    while waiting:
        value = waiting.pop()
        seen += 1
        if seen + len(waiting) > MAX_YAML_NODES:
            raise ValueError(f"it unfolds to more than {MAX_YAML_NODES:,} values")
        if isinstance(value, int) and abs(value) >= 10**MAX_DIGITS:
            raise ValueError(f"a whole number of more than {MAX_DIGITS} digits")
        if isinstance(value, dict | list | set | tuple):
            waiting += [*value, *value.values()] if isinstance(value, dict) else value
    return tree


def read_preset(path: str | Path) -> dict[str, Any]:
    """Read a preset file into nested sections.

    Raises: UserError where the file is absent, is not YAML, or is not a mapping of sections.
    """
    path = Path(path)
    try:
        return _parsed(path)
    except (OSError, RecursionError) as e:  # no permission, a name too long, a thousand brackets
        raise UserError(f"config: '{str(path)[:200]}' cannot be read: {e}; correct the path or the file") from None


def _parsed(path: Path) -> dict[str, Any]:
    if not path.is_file():
        there = sorted(str(p) for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise UserError(
            f"config: no file '{path}'{nearest(str(path), there)}"
            + (f" There are: {', '.join(there)}" if there else "")
        )
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise ValueError(f"{path.stat().st_size:,} bytes; a preset has at most {MAX_YAML_BYTES:,}")
        tree = read_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as e:  # ValueError: no UTF-8, or a date that does not exist
        first = str(e).replace("\n", " ")
        raise UserError(
            f"config: '{path}' is not YAML ({first}); expected sections such as 'trainer:' with keys below"
        ) from e
    if tree is None:
        return {}
    wrong = (
        [str(name) for name, keys in tree.items() if not isinstance(keys, dict | None)]
        if isinstance(tree, dict)
        else []
    )
    if wrong or not isinstance(tree, dict):
        held = f"section '{wrong[0]}' holds none" if wrong else f"it holds a {type(tree).__name__}"
        raise UserError(f"config: '{path}' must map sections to keys, for example 'trainer: {{epochs: 20}}'; {held}")
    return {name: keys or {} for name, keys in tree.items()}


def laid_over(below: Mapping[str, Mapping[str, Any]], above: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the keys of two presets; where both have one, that of the second."""
    return {name: {**below.get(name, {}), **above.get(name, {})} for name in {**below, **above}}


def resolve(preset: Mapping[str, Mapping[str, Any]], overrides: Mapping[str, Any]) -> Config:
    """Lay dotted overrides over a preset and validate the whole tree.

    An override of ``None`` or ``""`` is unset; the text ``none`` sets an optional key to null.

    Raises: UserError naming the key, the value, what is allowed and the nearest valid key.
    """
    valid = dotted_keys()
    flat = {f"{section}.{key}": value for section, keys in preset.items() for key, value in keys.items()}
    if overrides.get("objective.mask_strategy"):
        flat.pop("objective.mask_ratio", None)  # the preset's ratio belongs to the preset's strategy
    flat.update({key: value for key, value in overrides.items() if value not in (None, "")})
    tree: dict[str, dict[str, Any]] = {}
    for key, value in flat.items():
        if key not in valid:
            raise UserError(
                f"unknown key {_shown(key)} (value {_shown(value)}){nearest(key[:200], valid)} "
                "Every key: moola pretrain --help"
            )
        section, name = key.split(".")
        optional = type(None) in typing.get_args(valid[key].annotation)
        tree.setdefault(section, {})[name] = None if optional and value in ("none", "null") else value
    try:
        return Config.model_validate(tree)
    except ValidationError as e:
        raise UserError("\n".join(_explain(error, valid) for error in e.errors())) from None


def _explain(error: Any, valid: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in error["loc"][:2])
    if not key:  # a rule over the whole tree names its keys itself
        return str(error["msg"]).removeprefix("Value error, ")
    if key not in valid:  # a rule over a whole section
        return f"{key}: {error['msg'].removeprefix('Value error, ')}"
    field = valid[key]
    if len(error["loc"]) > 2:  # inside a mapping or a list: what was expected there is in pydantic's words
        inner = ".".join(str(part) for part in error["loc"][2:])
        return f"{key}, {inner}: {error['msg'].removeprefix('Value error, ')} (given {_shown(error['input'])})"
    text = f"{key}={_shown(error['input'])}: {error['msg']}; allowed: {allowed(field)}"
    return f"{text}. {field.description}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def allowed(field: Any) -> str:
    """Return a short text of a field's type and range, for messages and help."""
    annotation = field.annotation
    if typing.get_origin(annotation) is Literal:
        return " | ".join(map(str, typing.get_args(annotation)))
    if isinstance(annotation, types.UnionType):
        names = ["none" if t is type(None) else t.__name__ for t in typing.get_args(annotation)]
    else:
        names = [annotation.__name__]
    pattern = next((m.pattern for m in field.metadata if getattr(m, "pattern", None)), None)
    if pattern:
        return f"text that matches {pattern}"
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    bounds = [f"{s} {getattr(m, k)}" for m in field.metadata for k, s in signs.items() if hasattr(m, k)]
    return " ".join([" or ".join(names), *bounds])
