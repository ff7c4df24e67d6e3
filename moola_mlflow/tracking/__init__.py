"""MLflow: runs, their journal on disk, delivery to the store, recovery, and the model registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moola_mlflow.core import lazy_face

if TYPE_CHECKING:
    from moola_mlflow.tracking.addresses import need_store
    from moola_mlflow.tracking.artifact_places import no_local_artifacts
    from moola_mlflow.tracking.delivery import (
        JOURNAL_FILE,
        MAX_NOTE,
        SENT_FILE,
        Sent,
        count_unsent,
        remake_run,
        send_missing,
    )
    from moola_mlflow.tracking.label_inputs import (
        find_annotate_run,
        local_labels,
        read_input_events,
        read_input_labels,
        read_shown_labels,
        read_true_labels,
    )
    from moola_mlflow.tracking.names import Artifacts, EventBaselines, Metrics, Tags, VersionTags
    from moola_mlflow.tracking.plain_json import to_json
    from moola_mlflow.tracking.recovery.doctor import examine_store
    from moola_mlflow.tracking.recovery.heartbeat import BEAT_S, SILENT_S, host_name, is_coordinated, is_dead, read_beat
    from moola_mlflow.tracking.recovery.stale_runs import end_lost_run
    from moola_mlflow.tracking.registry.lineage import log_model_inputs, resolve_origin
    from moola_mlflow.tracking.registry.models import (
        CANDIDATE,
        check_registry_kind,
        load_detector,
        load_encoder,
        load_encoders,
        log_encoder,
        quiet_download,
    )
    from moola_mlflow.tracking.registry.promotion import (
        CHAMPION,
        PREVIOUS,
        Model,
        check_alias,
        check_candidate,
        check_serves,
        fetch_version,
        find_model,
        judge_card,
        may_go_back,
        move_alias,
        registering_run,
    )
    from moola_mlflow.tracking.resume import ResumePoint, find_resume_point
    from moola_mlflow.tracking.run import Run, record_failure, run_name, with_failure_recorded
    from moola_mlflow.tracking.run_folder import DIED, RUNS, check_run_folder_free, hold_run_folder, resume_command
    from moola_mlflow.tracking.run_reader import RunRecord, encoder_sources, read_run, search_runs, tunings_of
    from moola_mlflow.tracking.store import (
        STORE_FAILURES,
        active_run,
        check_run,
        find_run,
        first_line,
        is_outage,
        shown_uri,
    )
    from moola_mlflow.tracking.storeless import untracked

__all__, __getattr__, __dir__ = lazy_face(
    __name__,
    {
        "addresses": ("need_store",),
        "artifact_places": ("no_local_artifacts",),
        "delivery": (
            "JOURNAL_FILE",
            "MAX_NOTE",
            "SENT_FILE",
            "Sent",
            "count_unsent",
            "remake_run",
            "send_missing",
        ),
        "label_inputs": (
            "find_annotate_run",
            "local_labels",
            "read_input_events",
            "read_input_labels",
            "read_shown_labels",
            "read_true_labels",
        ),
        "names": ("Artifacts", "EventBaselines", "Metrics", "Tags", "VersionTags"),
        "plain_json": ("to_json",),
        "recovery.doctor": ("examine_store",),
        "recovery.heartbeat": ("BEAT_S", "SILENT_S", "host_name", "is_coordinated", "is_dead", "read_beat"),
        "recovery.stale_runs": ("end_lost_run",),
        "registry.lineage": ("log_model_inputs", "resolve_origin"),
        "registry.models": (
            "CANDIDATE",
            "check_registry_kind",
            "load_detector",
            "load_encoder",
            "load_encoders",
            "log_encoder",
            "quiet_download",
        ),
        "registry.promotion": (
            "CHAMPION",
            "Model",
            "PREVIOUS",
            "check_alias",
            "check_candidate",
            "check_serves",
            "fetch_version",
            "find_model",
            "judge_card",
            "may_go_back",
            "move_alias",
            "registering_run",
        ),
        "resume": ("ResumePoint", "find_resume_point"),
        "run": ("Run", "record_failure", "run_name", "with_failure_recorded"),
        "run_folder": ("DIED", "RUNS", "check_run_folder_free", "hold_run_folder", "resume_command"),
        "run_reader": ("RunRecord", "encoder_sources", "read_run", "search_runs", "tunings_of"),
        "store": ("STORE_FAILURES", "active_run", "check_run", "find_run", "first_line", "is_outage", "shown_uri"),
        "storeless": ("untracked",),
    },
)
