"""Train an encoder or a head: the loop, the data-parallel engine, validation, reports on NaN."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moola_mlflow.core import lazy_face

if TYPE_CHECKING:
    from moola_mlflow.training.distributed import PeerLost, World, describe_processes, join_world
    from moola_mlflow.training.engine import Pretraining
    from moola_mlflow.training.events import EpochEnded, MemoryRanOut, TrainingEvent, WentBack
    from moola_mlflow.training.head import (
        FittedHead,
        HeadInputs,
        HeadSettings,
        fit_detector,
        fit_head,
        mirrored,
        predict,
    )
    from moola_mlflow.training.nan_report import NumbersWrong
    from moola_mlflow.training.setup import (
        DATA_SECTIONS,
        PrepareObserver,
        TrainingData,
        batch_source,
        build_model,
        build_trainer,
        check_alike,
        check_leak,
        check_names,
        cut_windows,
        hybrid,
        prepare,
    )
    from moola_mlflow.training.trainer import Trainer, TrainerSettings

__all__, __getattr__, __dir__ = lazy_face(
    __name__,
    {
        "distributed": ("PeerLost", "World", "describe_processes", "join_world"),
        "engine": ("Pretraining",),
        "events": ("EpochEnded", "MemoryRanOut", "TrainingEvent", "WentBack"),
        "head": ("FittedHead", "HeadInputs", "HeadSettings", "fit_detector", "fit_head", "mirrored", "predict"),
        "nan_report": ("NumbersWrong",),
        "setup": (
            "DATA_SECTIONS",
            "PrepareObserver",
            "TrainingData",
            "batch_source",
            "build_model",
            "build_trainer",
            "check_alike",
            "check_leak",
            "check_names",
            "cut_windows",
            "hybrid",
            "prepare",
        ),
        "trainer": ("Trainer", "TrainerSettings"),
    },
)
