"""One configuration class for each command: the sections that it reads and, in each section, the keys."""

from __future__ import annotations

from pydantic import model_validator

from moola_mlflow.core.config.bars import BarsConfig, SampleBarsConfig, SampleLengthConfig
from moola_mlflow.core.config.base import CommandKeys
from moola_mlflow.core.config.evaluation import (
    CvConfig,
    DetectorGatesConfig,
    DetectorLimits,
    EncoderGatesConfig,
    FinetuneConfig,
    GateLimits,
    GivenEncoderConfig,
)
from moola_mlflow.core.config.features import FeaturesConfig
from moola_mlflow.core.config.labels import LabelsConfig, WeakLabelsConfig
from moola_mlflow.core.config.models import DetectConfig, EncoderConfig, EncoderSizeConfig, ObjectiveConfig
from moola_mlflow.core.config.sweep import SweepConfig
from moola_mlflow.core.config.tracking import ExperimentConfig, RegistryConfig, TrackingConfig
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


class NoKeys(CommandKeys):
    """A command without keys: sync, doctor."""


class RunKeys(CommandKeys):
    """A command that only needs to know where its run goes: report, compare."""

    tracking: ExperimentConfig = ExperimentConfig()


class TourKeys(CommandKeys):
    """The keys of main, the tour."""

    bars: SampleLengthConfig = SampleLengthConfig()
    encoder: EncoderSizeConfig = EncoderSizeConfig()
    trainer: EpochsConfig = EpochsConfig()
    tracking: ExperimentConfig = ExperimentConfig()


class DataKeys(CommandKeys):
    """The keys of data."""

    bars: BarsConfig = BarsConfig()
    windows: WindowLengthConfig = WindowLengthConfig()
    tracking: ExperimentConfig = ExperimentConfig()


class FeaturesKeys(CommandKeys):
    """The keys of features."""

    bars: BarsConfig = BarsConfig()
    features: FeaturesConfig = FeaturesConfig()
    windows: CutWindowsConfig = CutWindowsConfig()
    finetune: GivenEncoderConfig = GivenEncoderConfig()
    tracking: ExperimentConfig = ExperimentConfig()


class LabelKeys(CommandKeys):
    """The keys of label."""

    bars: BarsConfig = BarsConfig()
    labels: WeakLabelsConfig = WeakLabelsConfig()
    trainer: SeedConfig = SeedConfig()
    windows: WindowLengthConfig = WindowLengthConfig()
    tracking: ExperimentConfig = ExperimentConfig()


class TrainingKeys(CommandKeys):
    """The keys of a pre-training, as a command of its own or as a trial of a sweep."""

    bars: BarsConfig = BarsConfig()
    trainer: TrainerConfig = TrainerConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    encoder: EncoderConfig = EncoderConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    features: FeaturesConfig = FeaturesConfig()
    windows: WindowsConfig = WindowsConfig()
    split: SplitConfig = SplitConfig()
    runtime: TrainingRuntimeConfig = TrainingRuntimeConfig()
    registry: RegistryConfig = RegistryConfig()
    gates: EncoderGatesConfig = EncoderGatesConfig()
    tracking: ExperimentConfig = ExperimentConfig()

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

    tracking: TrackingConfig = TrackingConfig()


class FinetuneKeys(CommandKeys):
    """The keys of finetune."""

    labels: LabelsConfig = LabelsConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    cv: CvConfig = CvConfig()
    trainer: HeadTrainerConfig = HeadTrainerConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    encoder: EncoderConfig = EncoderConfig()
    features: FeaturesConfig = FeaturesConfig()
    windows: LabelledWindowsConfig = LabelledWindowsConfig()
    bars: SampleBarsConfig = SampleBarsConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    registry: RegistryConfig = RegistryConfig()
    gates: DetectorGatesConfig = DetectorGatesConfig()
    tracking: ExperimentConfig = ExperimentConfig()


class PretrainSweepKeys(TrainingKeys):
    """The keys of a sweep whose trials are pre-trainings."""

    sweep: SweepConfig = SweepConfig()


class FinetuneSweepKeys(FinetuneKeys):
    """The keys of a sweep whose trials are fine-tunings."""

    sweep: SweepConfig = SweepConfig(stage="finetune")


SweepKeys = PretrainSweepKeys | FinetuneSweepKeys


class PromoteKeys(CommandKeys):
    """The keys of promote."""

    gates: GateLimits = GateLimits()
    tracking: ExperimentConfig = ExperimentConfig()


class DetectKeys(CommandKeys):
    """The keys of detect."""

    bars: BarsConfig = BarsConfig()
    detect: DetectConfig = DetectConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    gates: DetectorLimits = DetectorLimits()
    tracking: ExperimentConfig = ExperimentConfig()


COMMANDS: dict[str, type[CommandKeys]] = {
    "main": TourKeys,
    "data": DataKeys,
    "features": FeaturesKeys,
    "label": LabelKeys,
    "pretrain": PretrainKeys,
    "finetune": FinetuneKeys,
    "sweep of pretrain": PretrainSweepKeys,
    "sweep of finetune": FinetuneSweepKeys,
    "promote": PromoteKeys,
    "detect": DetectKeys,
    "report": RunKeys,
    "compare": RunKeys,
    "sync": NoKeys,
    "doctor": NoKeys,
}
"""The configuration of every command; a sweep reads that of the command which its trials run."""
