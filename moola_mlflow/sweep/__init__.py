"""Optuna searches whose trials are MLflow runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moola_mlflow.core import lazy_face

if TYPE_CHECKING:
    from moola_mlflow.sweep.attach import JoinedStudy, SweepHeartbeat, find_parent_run, join_study
    from moola_mlflow.sweep.finetune_trials import FinetuneTrials
    from moola_mlflow.sweep.finish import finish_study, keep_running_for_others, leave_study
    from moola_mlflow.sweep.pretrain_trials import PretrainTrials
    from moola_mlflow.sweep.processes import WorkerJob, run_workers
    from moola_mlflow.sweep.restore import load_study
    from moola_mlflow.sweep.space import Space
    from moola_mlflow.sweep.storage import Coordination, check_storage_secret, locate_storage, without_password
    from moola_mlflow.sweep.worker import TrialObjective, Worker

__all__, __getattr__, __dir__ = lazy_face(
    __name__,
    {
        "attach": ("JoinedStudy", "SweepHeartbeat", "find_parent_run", "join_study"),
        "finish": ("finish_study", "keep_running_for_others", "leave_study"),
        "finetune_trials": ("FinetuneTrials",),
        "pretrain_trials": ("PretrainTrials",),
        "processes": ("WorkerJob", "run_workers"),
        "restore": ("load_study",),
        "space": ("Space",),
        "storage": ("Coordination", "check_storage_secret", "locate_storage", "without_password"),
        "worker": ("TrialObjective", "Worker"),
    },
)
