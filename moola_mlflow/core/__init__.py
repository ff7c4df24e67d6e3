"""What every room needs: configuration, errors, signals, runtime, escaping. It knows no other room."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moola_mlflow.core.lazy import lazy_face

if TYPE_CHECKING:
    from moola_mlflow.core.checkout import git_commit, git_diff
    from moola_mlflow.core.collector import rest_collector, wake_collector
    from moola_mlflow.core.config.annotate import AnnotateConfig
    from moola_mlflow.core.config.bars import BarsConfig, SampleBarsConfig
    from moola_mlflow.core.config.base import CommandKeys, Section, current_name, read_yaml
    from moola_mlflow.core.config.commands import (
        COMMANDS,
        AnnotateKeys,
        DataKeys,
        DetectKeys,
        EvaluateKeys,
        FeaturesKeys,
        FinetuneKeys,
        FinetuneSweepKeys,
        LabelKeys,
        LabelsKeys,
        NoKeys,
        PretrainKeys,
        PretrainSweepKeys,
        PromoteKeys,
        RulesKeys,
        RunKeys,
        ScanKeys,
        SweepKeys,
        TourKeys,
        TrainingKeys,
    )
    from moola_mlflow.core.config.evaluation import (
        CvConfig,
        DetectorLimits,
        EncoderLimits,
        FinetuneConfig,
        GateLimits,
    )
    from moola_mlflow.core.config.features import FeaturesConfig
    from moola_mlflow.core.config.labels import LabelsConfig, ShownLabelsConfig, TrueLabelsConfig, WeakLabelsConfig
    from moola_mlflow.core.config.models import DetectConfig, EncoderConfig, FollowConfig, ObjectiveConfig
    from moola_mlflow.core.config.presets import find_preset, merge_presets, read_preset, shipped_presets
    from moola_mlflow.core.config.project import EXPERIMENT_ID, model_name, project_names
    from moola_mlflow.core.config.resolve import (
        allowed_values,
        dotted_keys,
        every_key,
        make_config,
        readers_of,
        sections_of,
    )
    from moola_mlflow.core.config.sweep import Dimension, SweepConfig
    from moola_mlflow.core.config.tracking import DEFAULT_PROJECT, RegistryConfig, TrackingConfig
    from moola_mlflow.core.config.training import (
        HeadTrainerConfig,
        OptimizerConfig,
        RuntimeConfig,
        ScheduleConfig,
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
    from moola_mlflow.core.console import display_stream, guard_console, reader_stream, settle_console, visible
    from moola_mlflow.core.disk import (
        no_links,
        read_bytes,
        read_tail,
        remove_temporaries,
        replacing,
        sync_path,
        write_whole,
    )
    from moola_mlflow.core.errors import GateError, TrainingError, UserError, conceal_secrets, nearest_name, printable
    from moola_mlflow.core.escape import (
        markdown_code,
        markdown_lines,
        markdown_table,
        markdown_text,
        metric_name,
    )
    from moola_mlflow.core.names import EventBaselines, Metrics
    from moola_mlflow.core.outputs import check_outputs, is_true, keep_backup, note_outputs
    from moola_mlflow.core.plugins import find_plugins
    from moola_mlflow.core.runtime import (
        BASELINE_FIT,
        DRAWS,
        DROPOUT,
        EVALUATION,
        LEAK,
        MIRROR,
        ORDER,
        PACKAGES,
        PICTURES,
        allowed_cores,
        configure_allocator,
        configure_threads,
        environment_text,
        is_launched,
        is_tuned,
        may_have_gpu,
        mixed_seed,
        num_processes,
        pick_device,
        pick_precision,
        prepare_environment,
        process_rank,
        seeded_generator,
        set_threads,
        tune_allocator,
        usable_cores,
    )
    from moola_mlflow.core.signals import Interrupted, Interrupts, undisturbed
    from moola_mlflow.core.worker_pool import (
        WorkerPool,
        command_workers,
        early_workers,
        result_of,
    )

__all__, __getattr__, __dir__ = lazy_face(
    __name__,
    {
        "config.annotate": ("AnnotateConfig",),
        "config.bars": (
            "BarsConfig",
            "SampleBarsConfig",
        ),
        "config.base": (
            "CommandKeys",
            "Section",
            "current_name",
            "read_yaml",
        ),
        "config.commands": (
            "COMMANDS",
            "AnnotateKeys",
            "DataKeys",
            "DetectKeys",
            "EvaluateKeys",
            "FeaturesKeys",
            "FinetuneKeys",
            "FinetuneSweepKeys",
            "LabelKeys",
            "LabelsKeys",
            "NoKeys",
            "PretrainKeys",
            "PretrainSweepKeys",
            "PromoteKeys",
            "RulesKeys",
            "RunKeys",
            "ScanKeys",
            "SweepKeys",
            "TourKeys",
            "TrainingKeys",
        ),
        "config.evaluation": (
            "CvConfig",
            "DetectorLimits",
            "EncoderLimits",
            "FinetuneConfig",
            "GateLimits",
        ),
        "config.features": ("FeaturesConfig",),
        "config.labels": (
            "LabelsConfig",
            "ShownLabelsConfig",
            "TrueLabelsConfig",
            "WeakLabelsConfig",
        ),
        "config.models": (
            "DetectConfig",
            "EncoderConfig",
            "FollowConfig",
            "ObjectiveConfig",
        ),
        "config.project": ("EXPERIMENT_ID", "model_name", "project_names"),
        "config.presets": ("find_preset", "merge_presets", "read_preset", "shipped_presets"),
        "config.resolve": (
            "allowed_values",
            "dotted_keys",
            "every_key",
            "make_config",
            "readers_of",
            "sections_of",
        ),
        "config.sweep": (
            "Dimension",
            "SweepConfig",
        ),
        "config.tracking": (
            "DEFAULT_PROJECT",
            "RegistryConfig",
            "TrackingConfig",
        ),
        "config.training": (
            "HeadTrainerConfig",
            "OptimizerConfig",
            "RuntimeConfig",
            "ScheduleConfig",
            "TrainerConfig",
            "TrainingRuntimeConfig",
        ),
        "config.windows": (
            "CutWindowsConfig",
            "LabelledWindowsConfig",
            "SplitConfig",
            "WindowLengthConfig",
            "WindowsConfig",
        ),
        "disk": (
            "no_links",
            "read_bytes",
            "read_tail",
            "remove_temporaries",
            "replacing",
            "sync_path",
            "write_whole",
        ),
        "errors": ("GateError", "TrainingError", "UserError", "conceal_secrets", "nearest_name", "printable"),
        "escape": (
            "markdown_code",
            "markdown_lines",
            "markdown_table",
            "markdown_text",
            "metric_name",
        ),
        "names": ("EventBaselines", "Metrics"),
        "outputs": ("check_outputs", "is_true", "keep_backup", "note_outputs"),
        "plugins": ("find_plugins",),
        "console": ("display_stream", "guard_console", "reader_stream", "settle_console", "visible"),
        "checkout": ("git_commit", "git_diff"),
        "runtime": (
            "DRAWS",
            "DROPOUT",
            "EVALUATION",
            "LEAK",
            "MIRROR",
            "ORDER",
            "PACKAGES",
            "PICTURES",
            "BASELINE_FIT",
            "allowed_cores",
            "configure_allocator",
            "configure_threads",
            "environment_text",
            "is_launched",
            "is_tuned",
            "may_have_gpu",
            "mixed_seed",
            "num_processes",
            "pick_device",
            "pick_precision",
            "prepare_environment",
            "process_rank",
            "seeded_generator",
            "set_threads",
            "tune_allocator",
            "usable_cores",
        ),
        "collector": ("rest_collector", "wake_collector"),
        "signals": ("Interrupted", "Interrupts", "undisturbed"),
        "worker_pool": (
            "WorkerPool",
            "command_workers",
            "early_workers",
            "result_of",
        ),
    },
)
