"""Optuna searches whose trials are MLflow runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moola_mlflow.core import lazy_face

if TYPE_CHECKING:
    from moola_mlflow.sweep.attach import JoinedStudy, SweepHeartbeat, find_parent_run, join_study
    from moola_mlflow.sweep.finetune_trials import FinetuneTrials
    from moola_mlflow.sweep.pretrain_trials import PretrainTrials
    from moola_mlflow.sweep.processes import WorkerJob, run_workers
    from moola_mlflow.sweep.restore import load_study
    from moola_mlflow.sweep.space import Space
    from moola_mlflow.sweep.storage import STORAGE_FAILURES, Coordination, locate_storage, shown_url
    from moola_mlflow.sweep.summary import study_console_lines, summarise_study
    from moola_mlflow.sweep.trial_runs import reconcile_trials, retry_during_outage, trial_runs_of
    from moola_mlflow.sweep.worker import TrialObjective, Worker

__all__, __getattr__, __dir__ = lazy_face(
    __name__,
    {
        "attach": ("JoinedStudy", "SweepHeartbeat", "find_parent_run", "join_study"),
        "finetune_trials": ("FinetuneTrials",),
        "pretrain_trials": ("PretrainTrials",),
        "processes": ("WorkerJob", "run_workers"),
        "restore": ("load_study",),
        "space": ("Space",),
        "storage": ("Coordination", "STORAGE_FAILURES", "locate_storage", "shown_url"),
        "summary": ("study_console_lines", "summarise_study"),
        "trial_runs": ("reconcile_trials", "retry_during_outage", "trial_runs_of"),
        "worker": ("TrialObjective", "Worker"),
    },
)
