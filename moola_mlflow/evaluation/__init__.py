"""Is a model any good? Folds, baselines, scores, intervals, probes and gates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moola_mlflow.core import lazy_face

if TYPE_CHECKING:
    from moola_mlflow.evaluation.after_events import AFTER_COLUMNS, AfterEvents, events_with_moves, follow_events
    from moola_mlflow.evaluation.bars_evidence import (
        BARS_COLUMNS,
        BarsEvidence,
        collect_bars_evidence,
        interval_text,
    )
    from moola_mlflow.evaluation.bars_truth import BarsTruth, truth_of_rule
    from moola_mlflow.evaluation.bootstrap import FEW_GROUPS, Interval, bootstrap_many, paired_difference
    from moola_mlflow.evaluation.crossval import (
        FoldOutcome,
        HeadMethod,
        Method,
        NetworkMethod,
        cross_validate,
    )
    from moola_mlflow.evaluation.event_evidence import (
        EVENT_TITLES,
        QUERY_WINDOWS,
        RANDOM_WINDOWS,
        EventEvidence,
        collect_event_evidence,
    )
    from moola_mlflow.evaluation.event_methods import (
        EventSetting,
        build_event_methods,
        fit_event_methods,
        ineffective_event_keys,
        make_event_setting,
    )
    from moola_mlflow.evaluation.event_scores import (
        ScoredEvents,
        mean_paired_difference,
        paired_event_difference,
        score_events,
        score_held_out,
        score_scan,
        score_windows,
    )
    from moola_mlflow.evaluation.evidence import (
        DETECTOR,
        HEADLINE_METRICS,
        NETWORKS,
        ORACLE_BASELINES,
        OTHER_INPUT_TITLES,
        PATH_FEATURES,
        TITLES,
        Evidence,
        GainClass,
        classify_gain,
        collect_evidence,
    )
    from moola_mlflow.evaluation.folds import Fold, NestedFold, plan_folds, split_training_part
    from moola_mlflow.evaluation.found_events import FoundEvents, find_at_any_score
    from moola_mlflow.evaluation.gates import (
        COPIES_INPUT,
        Gate,
        all_gates_passed,
        copies_input,
        detector_gates,
        encoder_gates,
        gate_reasons,
        gates_markdown,
        gates_summary,
        gates_table,
        lowered_limits,
        missed_gates,
        published_levels,
    )
    from moola_mlflow.evaluation.label_truth import truth_of_labels
    from moola_mlflow.evaluation.methods import (
        FinetuneSetting,
        build_methods,
        detector_method,
        head_settings,
        ineffective_keys,
        left_out_baselines,
        make_setting,
        refit_detector,
    )
    from moola_mlflow.evaluation.metrics import ECE_BINS, Predictions, ece, scores
    from moola_mlflow.evaluation.probing import ProbeScores, frozen_copy, probe
    from moola_mlflow.evaluation.rule_truth import RuleTruth, true_by_rule
    from moola_mlflow.evaluation.unlabelled_windows import UnlabelledWindows, draw_unlabelled
    from moola_mlflow.evaluation.workers import num_processes

__all__, __getattr__, __dir__ = lazy_face(
    __name__,
    {
        "after_events": ("AFTER_COLUMNS", "AfterEvents", "events_with_moves", "follow_events"),
        "bars_evidence": ("BARS_COLUMNS", "BarsEvidence", "collect_bars_evidence", "interval_text"),
        "bars_truth": ("BarsTruth", "truth_of_rule"),
        "found_events": ("FoundEvents", "find_at_any_score"),
        "label_truth": ("truth_of_labels",),
        "bootstrap": ("FEW_GROUPS", "Interval", "bootstrap_many", "paired_difference"),
        "crossval": (
            "FoldOutcome",
            "HeadMethod",
            "Method",
            "NetworkMethod",
            "cross_validate",
        ),
        "event_scores": (
            "ScoredEvents",
            "mean_paired_difference",
            "paired_event_difference",
            "score_events",
            "score_held_out",
            "score_scan",
            "score_windows",
        ),
        "event_evidence": (
            "EVENT_TITLES",
            "EventEvidence",
            "QUERY_WINDOWS",
            "RANDOM_WINDOWS",
            "collect_event_evidence",
        ),
        "event_methods": (
            "EventSetting",
            "build_event_methods",
            "fit_event_methods",
            "ineffective_event_keys",
            "make_event_setting",
        ),
        "evidence": (
            "DETECTOR",
            "Evidence",
            "HEADLINE_METRICS",
            "GainClass",
            "NETWORKS",
            "OTHER_INPUT_TITLES",
            "PATH_FEATURES",
            "ORACLE_BASELINES",
            "TITLES",
            "classify_gain",
            "collect_evidence",
        ),
        "folds": ("Fold", "NestedFold", "plan_folds", "split_training_part"),
        "gates": (
            "COPIES_INPUT",
            "Gate",
            "all_gates_passed",
            "copies_input",
            "detector_gates",
            "encoder_gates",
            "gate_reasons",
            "gates_markdown",
            "gates_summary",
            "gates_table",
            "lowered_limits",
            "missed_gates",
            "published_levels",
        ),
        "methods": (
            "FinetuneSetting",
            "build_methods",
            "detector_method",
            "head_settings",
            "make_setting",
            "refit_detector",
            "ineffective_keys",
            "left_out_baselines",
        ),
        "metrics": ("ECE_BINS", "Predictions", "ece", "scores"),
        "probing": ("ProbeScores", "frozen_copy", "probe"),
        "rule_truth": ("RuleTruth", "true_by_rule"),
        "unlabelled_windows": ("UnlabelledWindows", "draw_unlabelled"),
        "workers": ("num_processes",),
    },
)
