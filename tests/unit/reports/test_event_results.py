"""What a fine-tuning of an event detector says: table, note, next step, warnings, card and tags."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_events import encoder_of_rules, looked_at

from moola_mlflow.core import CvConfig, DetectorLimits, FinetuneKeys, make_config
from moola_mlflow.evaluation import (
    QUERY_WINDOWS,
    EventEvidence,
    EventSetting,
    Gate,
    Interval,
    build_event_methods,
    collect_event_evidence,
    detector_gates,
    fit_event_methods,
)
from moola_mlflow.models import EventSettings
from moola_mlflow.reports.event_results import (
    described,
    event_card,
    event_console_lines,
    event_doubts,
    event_next_step,
    event_note,
    event_version_tags,
)
from moola_mlflow.reports.next_commands import waiting_uri

QUICK = EventSettings(epochs=1, min_steps=20, folds=2, hidden=8)
SETTING = EventSetting(looked_at(60), encoder_of_rules(), make_config(FinetuneKeys, {}, {}))


def evidence_of(setting: EventSetting) -> EventEvidence:
    methods = [replace(method, settings=QUICK) for method in build_event_methods(setting)]
    return collect_event_evidence(setting, fit_event_methods(setting, methods))


@pytest.fixture(scope="module")
def evidence() -> EventEvidence:
    return evidence_of(SETTING)


def test_the_table_has_every_method_and_the_difference_to_each_baseline(evidence: EventEvidence) -> None:
    gates = detector_gates(evidence.gate_figures(), DetectorLimits())
    lines = event_console_lines(evidence, gates)
    assert lines[-1] == evidence.headline()
    (row,) = (line for line in lines if line.startswith("  path features alone, same nets"))
    assert evidence.differences["path_features"].text("+") in row
    assert sum(line.startswith(("  met  ", "  MISSED")) for line in lines) == len(gates)


def test_the_note_begins_with_the_headline_and_ends_with_the_next_command(evidence: EventEvidence) -> None:
    note = event_note(SETTING, evidence, [], "models:/moola-detector/3", ["mind this"])
    assert note.startswith("**")
    assert "Warning: mind this" in note
    assert "promote -P model=moola-detector -P version=3" in note
    assert "All gates are met" in note


def test_missed_gates_lead_to_what_helps() -> None:
    few = event_next_step([Gate("map", 0.1, 0.5, ">=")], "models:/m/1", FinetuneKeys())
    gain = event_next_step([Gate("delta_map_lo", -0.1, 0.0, ">")], "models:/m/1", FinetuneKeys())
    assert "look at more windows" in few
    assert "configs/rules.yaml" in gain
    assert "not registered" in event_next_step([], "runs:/1/detector", FinetuneKeys())
    waits = event_next_step([], waiting_uri("moola-detector", Path("/runs/1")), FinetuneKeys())
    assert "`moola sync /runs/1` registers this detector" in waits


def test_after_a_quick_comparison_a_warning_and_the_next_step_ask_for_all_baselines(evidence: EventEvidence) -> None:
    quick = replace(evidence, left_out=("random_encoder",))
    assert quick.headline().endswith(" Not compared with random_encoder (cv.baselines=quick).")
    assert any("left out random_encoder" in text for text in event_doubts(SETTING, quick, 0.1))
    config = FinetuneKeys(cv=CvConfig(baselines="quick"))
    gain = event_next_step([Gate("delta_map_lo", math.nan, 0.0, ">")], "models:/m/1", config)
    assert "cv.baselines=all" in gain
    assert quick.gate_figures()["left_out"] == ["random_encoder"]


def test_card_and_tags_hold_the_evidence_and_the_origin_of_the_labels(evidence: EventEvidence) -> None:
    assert SETTING.encoder is not None
    card = event_card(SETTING, evidence, [("models:/e/1", SETTING.encoder)], 0.5, "run1")
    assert card["evidence"] == evidence.gate_figures()
    assert card["labels"]["counts"] == SETTING.labels.counts()
    assert card["labels"]["events"] == SETTING.labels.num_events
    assert (card["encoders"][0]["uri"], card["pretrain_overlap"], card["reader"]) == ("models:/e/1", 0.5, "prior")
    tags = event_version_tags(SETTING, evidence, "finetune", "passed")
    assert float(tags["map"]) == pytest.approx(evidence.detector["map"].mean, abs=1e-4)
    assert (tags["weak_labels"], tags["gates"], tags["window"]) == ("true", "passed", "105")


def test_labels_without_a_rejected_window_are_doubted() -> None:
    labels = looked_at(60)
    setting = replace(SETTING, labels=labels.select(np.unique(labels.window)), encoder=None)
    assert any("No window is labelled none" in text for text in event_doubts(setting, evidence_of(setting), 0.1))


def test_a_class_below_the_floor_is_named_and_the_windows_that_are_scored_are_named(evidence: EventEvidence) -> None:
    assert any("Class collapse" in text for text in event_doubts(SETTING, evidence, 1.1))
    assert not any("Class collapse" in text for text in event_doubts(SETTING, evidence, 0.0))
    part = replace(evidence, scored_on="the windows that were drawn at random")
    assert any("Windows that a query chose teach" in text for text in event_doubts(SETTING, part, 0.0))


def test_a_query_that_chose_every_window_is_doubted(evidence: EventEvidence) -> None:
    part = replace(evidence, scored_on=QUERY_WINDOWS)
    assert any("A query chose every window" in text for text in event_doubts(SETTING, part, 0.0))
    assert not any("A query" in text for text in event_doubts(SETTING, evidence, 0.0))


def test_a_class_with_events_in_a_single_group_of_windows_is_doubted(evidence: EventEvidence) -> None:
    labels = evidence.labels
    label = np.zeros_like(labels.label)
    label[0] = 1
    doubts = event_doubts(SETTING, replace(evidence, labels=replace(labels, label=label)), 0.0)
    assert any("All events of retracement lie in one group" in text for text in doubts)
    assert not any("in one group" in text for text in event_doubts(SETTING, evidence, 0.0))


def test_events_in_a_margin_are_counted_in_console_and_note(evidence: EventEvidence) -> None:
    fit = evidence.fit
    edge = replace(fit, held=replace(fit.held, in_margin=fit.held.true.select(np.arange(3))))
    part = replace(evidence, fits={**evidence.fits, "detector": [edge]})
    said = "3 labelled events are not scored, in a margin of the window"
    assert said in event_console_lines(part, [])[0]
    assert said in event_note(SETTING, part, [], "models:/m/1", [])
    assert part.summary()["events_in_margin"] == 3
    assert "not scored" not in event_console_lines(evidence, [])[0]


def test_figures_that_are_not_known_are_named_in_words(evidence: EventEvidence) -> None:
    unknown = Interval(np.nan, np.nan, np.nan)
    detector = {**evidence.detector, "precision": unknown, "event_ece": unknown}
    table = {**evidence.table, "detector": {**evidence.table["detector"], "precision": unknown}}
    lines = event_console_lines(replace(evidence, detector=detector, table=table), [])
    assert "nan" not in " ".join(lines)
    assert any("no held-out event scores 0.1 or more" in line for line in lines)


def test_the_card_has_the_keys_of_cv_that_were_used(evidence: EventEvidence) -> None:
    assert set(event_card(SETTING, evidence, [], None, "run")["cv"]) == {"folds", "repeats", "seeds", "baselines"}


def test_what_the_detector_reads_is_named() -> None:
    assert described(SETTING) == "frozen encoder, prior reader with a presence model, inputs `both`"
    assert described(replace(SETTING, encoder=None)) == "no encoder, inputs `price_path`"
