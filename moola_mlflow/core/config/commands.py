"""One configuration class for each command: the sections that it reads and, in each section, the keys.

A section is made by a factory, so --help builds the validators of its own command's sections alone.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from moola_mlflow.core.config.annotate import (
    AnnotateConfig,
    AnnotatedLabelsConfig,
    GivenDetectorConfig,
)
from moola_mlflow.core.config.bars import BarsConfig, SampleBarsConfig, SampleLengthConfig
from moola_mlflow.core.config.base import CommandKeys
from moola_mlflow.core.config.evaluation import (
    CvConfig,
    DetectorGatesConfig,
    DetectorLimits,
    EncoderGatesConfig,
    EvaluateConfig,
    FinetuneConfig,
    GateLimits,
    GivenEncoderConfig,
)
from moola_mlflow.core.config.features import FeaturesConfig
from moola_mlflow.core.config.labels import LabelsConfig, ShownLabelsConfig, TrueLabelsConfig, WeakLabelsConfig
from moola_mlflow.core.config.models import (
    DetectConfig,
    DrawnRulesConfig,
    EncoderConfig,
    EncoderSizeConfig,
    FollowConfig,
    ObjectiveConfig,
)
from moola_mlflow.core.config.sweep import SweepConfig
from moola_mlflow.core.config.tracking import ExperimentConfig, ProjectConfig, RegistryConfig, TrackingConfig
from moola_mlflow.core.config.training import (
    EpochsConfig,
    HeadTrainerConfig,
    OptimizerConfig,
    RuntimeConfig,
    ScheduleConfig,
    SeedConfig,
    TrainerConfig,
    TrainingRuntimeConfig,
)
from moola_mlflow.core.config.windows import (
    CutWindowsConfig,
    LabelledWindowsConfig,
    SplitConfig,
    WindowLengthConfig,
    WindowsConfig,
)
from moola_mlflow.core.names import Metrics


class NoKeys(CommandKeys):
    """A command without keys: sync, doctor."""


class TrackedKeys(CommandKeys):
    """The keys of every command whose run is in an experiment."""

    project: ProjectConfig = Field(default_factory=ProjectConfig)


class RunKeys(TrackedKeys):
    """A command that only needs to know where its run goes: report, compare."""

    tracking: ExperimentConfig = Field(default_factory=ExperimentConfig)


class TourKeys(TrackedKeys):
    """The keys of main, the tour."""

    bars: SampleLengthConfig = Field(default_factory=SampleLengthConfig)
    encoder: EncoderSizeConfig = Field(default_factory=EncoderSizeConfig)
    trainer: EpochsConfig = Field(default_factory=EpochsConfig)
    tracking: ExperimentConfig = Field(default_factory=ExperimentConfig)


class DataKeys(TrackedKeys):
    """The keys of data."""

    bars: BarsConfig = Field(default_factory=BarsConfig)
    windows: WindowLengthConfig = Field(default_factory=WindowLengthConfig)
    tracking: ExperimentConfig = Field(default_factory=ExperimentConfig)


class FeaturesKeys(TrackedKeys):
    """The keys of features."""

    bars: BarsConfig = Field(default_factory=BarsConfig)
    features: FeaturesConfig = Field(default_factory=FeaturesConfig)
    windows: CutWindowsConfig = Field(default_factory=CutWindowsConfig)
    finetune: GivenEncoderConfig = Field(default_factory=GivenEncoderConfig)
    tracking: ExperimentConfig = Field(default_factory=ExperimentConfig)


class RulesKeys(TrackedKeys):
    """The keys of rules."""

    bars: BarsConfig = Field(default_factory=BarsConfig)
    objective: DrawnRulesConfig = Field(default_factory=DrawnRulesConfig)
    windows: WindowLengthConfig = Field(default_factory=WindowLengthConfig)
    tracking: ExperimentConfig = Field(default_factory=ExperimentConfig)


class LabelKeys(TrackedKeys):
    """The keys of label."""

    bars: BarsConfig = Field(default_factory=BarsConfig)
    labels: WeakLabelsConfig = Field(default_factory=WeakLabelsConfig)
    trainer: SeedConfig = Field(default_factory=SeedConfig)
    windows: WindowLengthConfig = Field(default_factory=WindowLengthConfig)
    tracking: ExperimentConfig = Field(default_factory=ExperimentConfig)


class LabelsKeys(TrackedKeys):
    """The keys of labels."""

    labels: ShownLabelsConfig = Field(default_factory=ShownLabelsConfig)
    bars: BarsConfig = Field(default_factory=BarsConfig)
    windows: WindowLengthConfig = Field(default_factory=WindowLengthConfig)
    tracking: ExperimentConfig = Field(default_factory=ExperimentConfig)


class TrainingKeys(TrackedKeys):
    """The keys of a pre-training, as a command of its own or as a trial of a sweep."""

    bars: BarsConfig = Field(default_factory=BarsConfig)
    trainer: TrainerConfig = Field(default_factory=TrainerConfig)
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig)
    encoder: EncoderConfig = Field(default_factory=EncoderConfig)
    objective: ObjectiveConfig = Field(default_factory=ObjectiveConfig)
    features: FeaturesConfig = Field(default_factory=FeaturesConfig)
    windows: WindowsConfig = Field(default_factory=WindowsConfig)
    split: SplitConfig = Field(default_factory=SplitConfig)
    runtime: TrainingRuntimeConfig = Field(default_factory=TrainingRuntimeConfig)
    registry: RegistryConfig = Field(default_factory=RegistryConfig)
    gates: EncoderGatesConfig = Field(default_factory=EncoderGatesConfig)
    tracking: ExperimentConfig = Field(default_factory=ExperimentConfig)

    @model_validator(mode="after")
    def _patch_fits(self) -> TrainingKeys:
        objective, windows = self.objective, self.windows
        hidden = round((objective.mask_ratio or 0) * (windows.length - windows.warmup))
        if objective.mask_strategy == "patch" and objective.mask_patch > max(1, hidden):
            raise ValueError(
                f"objective.mask_patch={objective.mask_patch} is more than the {hidden} steps that are hidden of a "
                f"window (mask_ratio {objective.mask_ratio:g} of {windows.length - windows.warmup}); lower mask_patch "
                "or raise mask_ratio"
            )
        return self


class PretrainKeys(TrainingKeys):
    """The keys of pretrain."""

    tracking: TrackingConfig = Field(default_factory=TrackingConfig)


class FinetuneKeys(TrackedKeys):
    """The keys of finetune."""

    labels: LabelsConfig = Field(default_factory=LabelsConfig)
    finetune: FinetuneConfig = Field(default_factory=FinetuneConfig)
    cv: CvConfig = Field(default_factory=CvConfig)
    trainer: HeadTrainerConfig = Field(default_factory=HeadTrainerConfig)
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    encoder: EncoderConfig = Field(default_factory=EncoderConfig)
    features: FeaturesConfig = Field(default_factory=FeaturesConfig)
    windows: LabelledWindowsConfig = Field(default_factory=LabelledWindowsConfig)
    bars: BarsConfig = Field(default_factory=BarsConfig)
    runtime: RuntimeConfig = Field(default_factory=RuntimeConfig)
    registry: RegistryConfig = Field(default_factory=RegistryConfig)
    gates: DetectorGatesConfig = Field(default_factory=DetectorGatesConfig)
    tracking: ExperimentConfig = Field(default_factory=ExperimentConfig)

    def logged(self) -> dict[str, Any]:
        """Return the values that a run logs: of bars those of the sample, unless windows without labels are read."""
        if self.finetune.unlabelled == "bars":
            return self.flat()
        sample = {f"bars.{name}" for name in SampleBarsConfig.model_fields}
        return {key: value for key, value in self.flat().items() if not key.startswith("bars.") or key in sample}


class PretrainSweepKeys(TrainingKeys):
    """The keys of a sweep whose trials are pre-trainings."""

    sweep: SweepConfig = Field(default_factory=SweepConfig)

    @model_validator(mode="after")
    def _few_shot_needs_rules(self) -> PretrainSweepKeys:
        if self.sweep.objective == Metrics.FEW_SHOT and "rules" not in self.objective.name:
            raise ValueError(
                f"sweep.objective={Metrics.FEW_SHOT} with objective.name={self.objective.name}: only encoders trained "
                "on rules have it; set objective.name=rules (base=configs/rules.yaml), or sweep.objective=probe/r2_gain"
            )
        return self


class FinetuneSweepKeys(FinetuneKeys):
    """The keys of a sweep whose trials are fine-tunings."""

    sweep: SweepConfig = Field(default_factory=lambda: SweepConfig(stage="finetune"))

    @model_validator(mode="after")
    def _heads_of_spans(self) -> FinetuneSweepKeys:
        if self.finetune.head == "event":
            raise ValueError(
                "finetune.head=event: a sweep searches detectors of spans; set finetune.head=span, which reads the "
                "windows with one event, or fit an event detector with finetune"
            )
        return self


SweepKeys = PretrainSweepKeys | FinetuneSweepKeys


class PromoteKeys(TrackedKeys):
    """The keys of promote."""

    gates: GateLimits = Field(default_factory=GateLimits)
    tracking: ExperimentConfig = Field(default_factory=ExperimentConfig)


class ScanKeys(TrackedKeys):
    """The keys of every command that scans bars with a detector."""

    bars: BarsConfig = Field(default_factory=BarsConfig)
    detect: DetectConfig = Field(default_factory=DetectConfig)
    runtime: RuntimeConfig = Field(default_factory=RuntimeConfig)
    gates: DetectorLimits = Field(default_factory=DetectorLimits)
    tracking: ExperimentConfig = Field(default_factory=ExperimentConfig)


class DetectKeys(ScanKeys):
    """The keys of detect."""

    detect: FollowConfig = Field(default_factory=FollowConfig)


class EvaluateKeys(ScanKeys):
    """The keys of evaluate."""

    labels: TrueLabelsConfig = Field(default_factory=TrueLabelsConfig)
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig)


class AnnotateKeys(TrackedKeys):
    """The keys of annotate."""

    bars: BarsConfig = Field(default_factory=BarsConfig)
    labels: AnnotatedLabelsConfig = Field(default_factory=AnnotatedLabelsConfig)
    detect: GivenDetectorConfig = Field(default_factory=GivenDetectorConfig)
    annotate: AnnotateConfig = Field(default_factory=AnnotateConfig)
    windows: WindowLengthConfig = Field(default_factory=WindowLengthConfig)
    tracking: ExperimentConfig = Field(default_factory=ExperimentConfig)


COMMANDS: dict[str, type[CommandKeys]] = {
    "main": TourKeys,
    "data": DataKeys,
    "features": FeaturesKeys,
    "rules": RulesKeys,
    "label": LabelKeys,
    "labels": LabelsKeys,
    "annotate": AnnotateKeys,
    "pretrain": PretrainKeys,
    "finetune": FinetuneKeys,
    "sweep of pretrain": PretrainSweepKeys,
    "sweep of finetune": FinetuneSweepKeys,
    "promote": PromoteKeys,
    "detect": DetectKeys,
    "evaluate": EvaluateKeys,
    "report": RunKeys,
    "compare": RunKeys,
    "sync": NoKeys,
    "doctor": NoKeys,
}
"""The configuration of every command. A sweep has one for each command that its trials may run."""
