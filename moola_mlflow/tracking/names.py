"""Names of every tag, artifact and metric in the store. Users and scripts rely on them: add names, do not change them.

Metric names come from ``core/names.py``, because the rooms below this one compute metrics. They know no tag.
A name that ends in ``/`` or ``.`` is a prefix.
"""

from __future__ import annotations

from moola_mlflow.core import EventBaselines, Metrics

__all__ = ["Artifacts", "EventBaselines", "Metrics", "Tags", "VersionTags"]


class Tags:
    """Tags of runs and experiments. Those that begin with ``mlflow.`` are MLflow's own."""

    # What a run is.
    STAGE = "moola.stage"
    CONFIG_SHA256 = "moola.config_sha256"
    DATA_SHA256 = "moola.data_sha256"
    LABELS_SHA256 = "moola.labels_sha256"
    WEAK_LABELS = "moola.weak_labels"
    IDENTITY = "moola.identity"
    GATES = "moola.gates"
    HEADLINE = "moola.headline"
    DELTA_INPUTS = "moola.delta_inputs"
    BASELINES = "moola.baselines"
    WARNINGS = "moola.warnings"
    BARS_WARNING = "moola.bars_warning"

    # What it ran on.
    DEVICE = "moola.device"
    PRECISION = "moola.precision"
    THREADS = "moola.threads"
    PROCESSES = "moola.processes"
    SHARDS = "moola.shards"
    WORKERS = "moola.workers"
    ALLOCATOR = "moola.allocator"
    MICRO_BATCH = "moola.micro_batch"
    NAN_RETRY = "moola.nan_retry"

    # Which runs and models it came from, and which run it led to.
    ENCODER = "moola.encoder"
    ENCODER_RUN_ID = "moola.encoder_run_id"
    ENCODER_MODEL_ID = "moola.encoder_model_id"
    DETECTOR = "moola.detector"
    TRUTH = "moola.truth"
    ANNOTATE_RUN_ID = "moola.annotate_run_id"
    ANNOTATOR = "moola.annotator"
    RESUMED = "moola.resumed"
    REFUSED = "moola.refused"
    FORKED_FROM = "moola.forked_from"
    DRIFT = "moola.drift"
    OFFLINE = "moola.offline"
    REMADE_FROM = "moola.remade_from"
    EVENT = "moola.event"
    FOLDER = "moola.folder"

    # A fold of a fine-tuning.
    FOLD = "moola.fold"
    REPEAT = "moola.repeat"
    SEED = "moola.seed"

    # Promotion, report and comparison.
    FROM = "moola.from"
    TO = "moola.to"
    ROLLBACK = "moola.rollback"
    SUBJECT = "moola.subject"
    COMPARED = "moola.compared"

    # A sweep and its trials.
    STUDY = "moola.study"
    SPACE = "moola.space"
    DIRECTION = "moola.direction"
    TARGET = "moola.target"
    SWEEP_SHA256 = "moola.sweep_sha256"
    COORDINATOR = "moola.coordinator"
    BEST_TRIAL = "moola.best_trial"
    BEST = "moola.best."
    TRIAL = "moola.trial"
    TRIAL_STATE = "moola.trial_state"
    WORKER = "moola.worker"
    RETRY = "moola.retry"
    RETRY_OF = "moola.retry_of"
    REASON = "moola.reason"

    # MLflow's own.
    NOTE = "mlflow.note.content"
    PARENT = "mlflow.parentRunId"
    RUN_NAME = "mlflow.runName"
    COMMIT = "mlflow.source.git.commit"
    TABLES = "mlflow.loggedArtifacts"
    EXPERIMENT_KIND = "mlflow.experimentKind"
    SAVED_VIEW = "mlflow.sharedViewState."
    INPUT_CONTEXT = "mlflow.data.context"


class VersionTags:
    """Tags of registered model versions."""

    KIND = "moola.kind"
    EVENT = Tags.EVENT
    IDENTITY = Tags.IDENTITY
    DELTA_INPUTS = Tags.DELTA_INPUTS
    BASELINES = Tags.BASELINES
    SWEEP = "moola.sweep"
    PRESET = "preset"
    DATA_SHA256 = "data_sha256"
    TRAINED_FROM = "trained_from"
    TRAINED_UNTIL = "trained_until"
    FEATURES = "features"
    WINDOW = "window"
    VAL_SKILL = "val_skill"
    F1_MACRO = "f1_macro"
    JOINT_AT_3 = "joint_success_at_3"
    MAP = "map"
    WEAK_LABELS = "weak_labels"
    GATES = "gates"
    PROMOTED_BY = "promoted_by"


class Artifacts:
    """Artifacts of runs, by their place in the run's artifact folder."""

    # Of every run.
    CONFIG = "config.yaml"
    ENVIRONMENT = "environment.txt"
    GIT_DIFF = "git.diff"
    REPORT = "report"
    FIGURES = "figures/"

    # Bars, features and labels.
    BARS = "bars"
    BARS_SUMMARY = "bars/summary.json"
    BARS_INSTRUMENTS = "bars/instruments.json"
    BARS_COVERAGE_FIGURE = "figures/bars_coverage.png"
    BARS_PRICE_FIGURE = "figures/bars_price.png"
    QUALITY = "features/quality.json"
    QUALITY_TABLE = "features/quality_table.json"
    QUALITY_FIGURE = "figures/feature_quality.png"
    RULES_TABLE = "rules.csv"
    RULES_PAGE = "rules.html"
    LABELS_TABLE = "labels_table.json"
    LABELS_PAGE = "labels.html"

    # Pre-training.
    ENCODER = "encoder"
    ENCODER_CARD = "encoder/encoder.json"
    ENCODER_WEIGHTS = "encoder/weights.safetensors"
    CHECKPOINTS = "checkpoints/"
    TRAINING_RESULTS = "training_results.json"
    SKILL = "skill.json"
    DIAGNOSIS = "diagnosis.json"
    CURVES_PAGE = "curves.html"
    LOSS_CURVES_FIGURE = "figures/loss_curves.png"
    LEARNING_RATE_FIGURE = "figures/learning_rate.png"
    RECONSTRUCTION_FIGURE = "figures/reconstruction_epoch_"

    # Fine-tuning, promotion and detection.
    DETECTOR = "detector"
    DETECTOR_CARD = "detector/detector.json"
    CV_SUMMARY = "cv_summary.json"
    PREDICTIONS = "predictions.json"
    BASELINE_PREDICTIONS = "baseline_predictions.json"
    SCORED_EVENTS = "scored_events.json"
    GATES = "gates.json"
    WRONG_WINDOWS_PAGE = "wrong_windows.html"
    DETECTIONS_TABLE = "detections.parquet"
    HITS_TABLE = "hits_table.json"
    DETECTIONS_PAGE = "detections.html"
    DETECTIONS_FIGURE = "figures/detections.png"
    EVENTS_TABLE = "events.parquet"
    AFTER_EVENTS = "after_events.csv"
    AFTER_EVENTS_FIGURE = "figures/after_events.png"
    SIGNALS = "signals.parquet"

    # Evaluation on bars.
    EVALUATION = "evaluation.json"
    EVALUATION_TABLE = "evaluation.parquet"
    ERRORS_TABLE = "errors_table.json"
    EVALUATION_PAGE = "evaluation.html"

    # A sweep and its trials.
    TRIALS = "trials.json"
    BEST_CONFIG = "best_config.yaml"
    PARETO = "pareto.json"
    SWEEP_PAGE = "sweep.html"
    VERSION_TAGS = "version_tags.json"
