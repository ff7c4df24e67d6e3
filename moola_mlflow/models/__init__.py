"""Encoders, objectives, heads and the detector: build them, run them, save and load them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moola_mlflow.core import lazy_face

if TYPE_CHECKING:
    from moola_mlflow.models.calibration import HIGHEST, LOWEST, apply_temperature, temperature
    from moola_mlflow.models.detecting import (
        check_thresholds,
        chosen_threshold,
        detect,
        detect_options,
        find_events,
        learned_minutes,
    )
    from moola_mlflow.models.detector import PatternDetector, detector_inputs, encoder_features, further_inputs
    from moola_mlflow.models.embedding import embed
    from moola_mlflow.models.encoders import build_encoder
    from moola_mlflow.models.encoders.base import Encoder
    from moola_mlflow.models.encoders.ensemble import Ensemble, members_of
    from moola_mlflow.models.encoders.keyed_dropout import can_be_shared, stream, use_torch_dropout
    from moola_mlflow.models.events import (
        EVENT_COLUMNS,
        EVENT_STRIDE,
        EventDetector,
        EventFit,
        EventFound,
        EventInputs,
        EventScan,
        EventSettings,
        EventSource,
        EventTable,
        EventTargets,
        HeldOut,
        HeldOutFit,
        LateBarError,
        LiveEvent,
        LiveScan,
        Reading,
        ScratchSettings,
        Unlabelled,
        cross_read,
        event_signals,
        fit_event_detector,
        fit_scratch,
        match_events,
        near_any,
        one_hit_a_window,
        read_inputs,
        scan_events,
        window_events,
    )
    from moola_mlflow.models.files.checkpoint import (
        BEST_CHECKPOINT,
        LATEST_CHECKPOINT,
        Checkpointer,
        LoadedCheckpoint,
        about_training,
        load_checkpoint,
    )
    from moola_mlflow.models.files.detector import (
        DETECTOR_CARD,
        EVENT_KIND,
        SPAN_KIND,
        detector_kind,
        load_detector_folder,
        read_detector_card,
        save_detector,
    )
    from moola_mlflow.models.files.encoder import (
        ENCODER_CARD,
        describe_encoder,
        describe_training,
        load_from_path,
        read_encoder_card,
        save_encoder,
    )
    from moola_mlflow.models.files.event_detector import (
        load_any_detector_folder,
        load_event_detector_folder,
        save_event_detector,
    )
    from moola_mlflow.models.heads import (
        AVERAGED,
        HEADS,
        HIT_BARS,
        AveragedHead,
        Detector,
        EncoderDetector,
        Inputs,
        Output,
        Span,
        parts_of,
    )
    from moola_mlflow.models.objectives import build_objective
    from moola_mlflow.models.objectives.base import Errors, Objective, leak
    from moola_mlflow.models.objectives.baselines import Ridge
    from moola_mlflow.models.objectives.price_path import median_range, running_max, shifted
    from moola_mlflow.models.prior_reader import Prior, SpanLabels, fit_prior_reader, reader_loss
    from moola_mlflow.models.scanning import SCAN_PARAMETERS, Scan, instrument_names, scan

__all__, __getattr__, __dir__ = lazy_face(
    __name__,
    {
        "calibration": ("HIGHEST", "LOWEST", "apply_temperature", "temperature"),
        "detecting": (
            "check_thresholds",
            "chosen_threshold",
            "detect",
            "detect_options",
            "find_events",
            "learned_minutes",
        ),
        "detector": ("PatternDetector", "detector_inputs", "encoder_features", "further_inputs"),
        "embedding": ("embed",),
        "encoders": ("build_encoder",),
        "encoders.base": ("Encoder",),
        "encoders.ensemble": ("Ensemble", "members_of"),
        "encoders.keyed_dropout": ("can_be_shared", "stream", "use_torch_dropout"),
        "events": (
            "EVENT_COLUMNS",
            "EVENT_STRIDE",
            "EventDetector",
            "EventFit",
            "EventFound",
            "EventInputs",
            "EventScan",
            "EventSettings",
            "EventSource",
            "EventTable",
            "EventTargets",
            "HeldOut",
            "HeldOutFit",
            "LateBarError",
            "LiveEvent",
            "LiveScan",
            "Reading",
            "ScratchSettings",
            "Unlabelled",
            "cross_read",
            "event_signals",
            "fit_event_detector",
            "fit_scratch",
            "match_events",
            "near_any",
            "one_hit_a_window",
            "read_inputs",
            "scan_events",
            "window_events",
        ),
        "files.checkpoint": (
            "BEST_CHECKPOINT",
            "Checkpointer",
            "LATEST_CHECKPOINT",
            "LoadedCheckpoint",
            "about_training",
            "load_checkpoint",
        ),
        "files.detector": (
            "DETECTOR_CARD",
            "EVENT_KIND",
            "SPAN_KIND",
            "detector_kind",
            "load_detector_folder",
            "read_detector_card",
            "save_detector",
        ),
        "files.event_detector": ("load_any_detector_folder", "load_event_detector_folder", "save_event_detector"),
        "files.encoder": (
            "ENCODER_CARD",
            "describe_encoder",
            "describe_training",
            "load_from_path",
            "read_encoder_card",
            "save_encoder",
        ),
        "heads": (
            "AVERAGED",
            "AveragedHead",
            "Detector",
            "EncoderDetector",
            "HEADS",
            "HIT_BARS",
            "Inputs",
            "Output",
            "Span",
            "parts_of",
        ),
        "objectives": ("build_objective",),
        "objectives.base": ("Errors", "Objective", "leak"),
        "objectives.baselines": ("Ridge",),
        "objectives.price_path": ("median_range", "running_max", "shifted"),
        "prior_reader": ("Prior", "SpanLabels", "fit_prior_reader", "reader_loss"),
        "scanning": ("SCAN_PARAMETERS", "Scan", "instrument_names", "scan"),
    },
)
