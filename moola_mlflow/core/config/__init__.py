"""The configuration: the tree of keys (``tree``, ``sweep``) and how presets and words become one (``presets``)."""

from moola_mlflow.core.config.base import read_yaml
from moola_mlflow.core.config.presets import allowed_values, dotted_keys, merge_presets, read_preset, resolve
from moola_mlflow.core.config.sweep import Dimension, SweepConfig
from moola_mlflow.core.config.tree import (
    BarsConfig,
    Config,
    CvConfig,
    DetectConfig,
    EncoderConfig,
    FeaturesConfig,
    FinetuneConfig,
    GatesConfig,
    LabelsConfig,
    ObjectiveConfig,
    OptimizerConfig,
    RegistryConfig,
    RuntimeConfig,
    ScheduleConfig,
    SplitConfig,
    TrackingConfig,
    TrainerConfig,
    WindowsConfig,
)

__all__ = [
    "BarsConfig",
    "Config",
    "CvConfig",
    "DetectConfig",
    "Dimension",
    "EncoderConfig",
    "FeaturesConfig",
    "FinetuneConfig",
    "GatesConfig",
    "LabelsConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "RegistryConfig",
    "RuntimeConfig",
    "ScheduleConfig",
    "SplitConfig",
    "SweepConfig",
    "TrackingConfig",
    "TrainerConfig",
    "WindowsConfig",
    "allowed_values",
    "dotted_keys",
    "merge_presets",
    "read_preset",
    "read_yaml",
    "resolve",
]
