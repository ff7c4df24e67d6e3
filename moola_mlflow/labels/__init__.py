"""Labelled windows: read and write them, make weak labels by a rule, group overlapping ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moola_mlflow.core import lazy_face

if TYPE_CHECKING:
    from moola_mlflow.labels.bar_length import bar_minutes, bar_times
    from moola_mlflow.labels.columns import NONE
    from moola_mlflow.labels.event_labels import EventLabels, events_sha256
    from moola_mlflow.labels.forms.any_form import WRITTEN, read_any_labels, write_any_labels
    from moola_mlflow.labels.joining import check_label_files, join_labels
    from moola_mlflow.labels.label_files import (
        labels_target,
        read_event_labels,
        read_span_labels,
        write_labels,
        write_labels_in_parts,
    )
    from moola_mlflow.labels.labelled_set import LabelledSet
    from moola_mlflow.labels.overlap import overlap_groups, shares_bars
    from moola_mlflow.labels.rules import (
        FAMILIES,
        OUTCOMES,
        RULES,
        SELECTORS,
        DrawnRule,
        Marked,
        Rule,
        RuleWindows,
        apply_rules,
        draw_rules,
        find_rule,
        rules_version,
    )
    from moola_mlflow.labels.surge_rule import RULE, SURGE_BARS, TOLERANCE, WAIT, strongest_surge
    from moola_mlflow.labels.targets import Targets
    from moola_mlflow.labels.timed_spans import labels_from_spans
    from moola_mlflow.labels.weak import (
        Patterns,
        choose_events,
        choose_labels,
        find_patterns,
        sample_bars,
        sample_events,
        sample_labels,
    )
    from moola_mlflow.labels.window_names import instrument_of_rows, window_ids

__all__, __getattr__, __dir__ = lazy_face(
    __name__,
    {
        "columns": ("NONE",),
        "bar_length": ("bar_minutes", "bar_times"),
        "event_labels": ("EventLabels", "events_sha256"),
        "forms.any_form": ("WRITTEN", "read_any_labels", "write_any_labels"),
        "joining": ("check_label_files", "join_labels"),
        "label_files": (
            "labels_target",
            "read_event_labels",
            "read_span_labels",
            "write_labels",
            "write_labels_in_parts",
        ),
        "labelled_set": ("LabelledSet",),
        "overlap": ("overlap_groups", "shares_bars"),
        "rules": (
            "FAMILIES",
            "DrawnRule",
            "Marked",
            "OUTCOMES",
            "RULES",
            "Rule",
            "RuleWindows",
            "SELECTORS",
            "apply_rules",
            "draw_rules",
            "find_rule",
            "rules_version",
        ),
        "surge_rule": ("RULE", "SURGE_BARS", "TOLERANCE", "WAIT", "strongest_surge"),
        "targets": ("Targets",),
        "timed_spans": ("labels_from_spans",),
        "weak": (
            "Patterns",
            "choose_events",
            "choose_labels",
            "find_patterns",
            "sample_bars",
            "sample_events",
            "sample_labels",
        ),
        "window_names": ("instrument_of_rows", "window_ids"),
    },
)
