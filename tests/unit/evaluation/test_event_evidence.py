"""The evidence for an event detector: scores out of fold, gains over baselines, and what may be claimed."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from small_events import encoder_of_rules, looked_at

from moola_mlflow.core import DetectorLimits, FinetuneKeys, make_config
from moola_mlflow.evaluation.event_evidence import (
    ALL_WINDOWS,
    QUERY_WINDOWS,
    RANDOM_WINDOWS,
    EventEvidence,
    collect_event_evidence,
    error_by_chance,
)
from moola_mlflow.evaluation.event_methods import EventSetting, build_event_methods, fit_event_methods
from moola_mlflow.evaluation.event_scores import ScoredEvents, score_held_out
from moola_mlflow.evaluation.gates import detector_gates
from moola_mlflow.models.events.fitting import EventSettings
from moola_mlflow.models.events.held_out import HeldOutFit
from moola_mlflow.reports.paired_events import scored_draws

QUICK = EventSettings(epochs=3, min_steps=30, folds=3, hidden=8)
CONFIG = make_config(FinetuneKeys, {}, {"cv.repeats": 2})
SETTING = EventSetting(replace(looked_at(60), rule="surge-1"), encoder_of_rules(), CONFIG)
BASELINES = {
    "random_encoder", "scratch", "path_features", "span_nets", "span_hits", "boosted_steps", "rule"
}  # fmt: skip


@pytest.fixture(scope="module")
def fits() -> dict[str, list[HeldOutFit]]:
    methods = [replace(method, settings=QUICK) for method in build_event_methods(SETTING)]
    return fit_event_methods(SETTING, methods)


@pytest.fixture(scope="module")
def evidence(fits: dict[str, list[HeldOutFit]]) -> EventEvidence:
    return collect_event_evidence(SETTING, fits)


def test_a_score_is_the_mean_over_repeats_of_what_the_folds_held_out(
    evidence: EventEvidence, fits: dict[str, list[HeldOutFit]]
) -> None:
    for method, rows in fits.items():
        each = [score_held_out(fit, SETTING.labels).scores(fit.detector.threshold) for fit in rows]
        assert evidence.table[method]["map"].mean == pytest.approx(np.mean([one["map"] for one in each]))
    ours, theirs = (evidence.table[name]["map"].mean for name in ("detector", "path_features"))
    assert evidence.differences["path_features"].mean == pytest.approx(ours - theirs)
    assert evidence.detector["map"].lo <= evidence.detector["map"].hi


def test_the_best_baseline_is_the_one_with_the_highest_map_and_the_headline_names_it(evidence: EventEvidence) -> None:
    best = evidence.best_baseline
    assert best == max(BASELINES - {"rule"}, key=lambda name: evidence.table[name]["map"].mean)
    assert evidence.table["rule"]["map"].mean == 1, "it is shown, and it is no competitor"
    gain = evidence.differences[best]
    word = "Gain" if gain.lo > 0 else "Loss" if gain.hi < 0 else "No gain"
    assert evidence.headline().startswith(f"{word}: {gain.mean:+.3f} ")


def test_path_features_alone_claim_no_gain_and_are_compared_with_other_readers_of_them(
    fits: dict[str, list[HeldOutFit]],
) -> None:
    alone = {"detector": fits["path_features"], "boosted_steps": fits["boosted_steps"], "rule": fits["rule"]}
    found = collect_event_evidence(replace(SETTING, encoder=None), alone)
    assert found.best_baseline == "boosted_steps"
    assert found.headline().startswith("No pre-training in this detector: ")
    assert "against the best baseline (path features of single steps, gradient boosting)" in found.headline()
    by_rule = collect_event_evidence(
        replace(SETTING, encoder=None), {name: alone[name] for name in ("detector", "rule")}
    )
    assert by_rule.headline().startswith("No pre-training in this detector, and no baseline to compare with: ")
    assert by_rule.gate_figures()["delta_map"] is None


def test_metrics_and_summary_hold_finite_numbers_alone(evidence: EventEvidence) -> None:
    found = evidence.metrics()
    named = {
        "cv/map",
        "cv/map_lo",
        "cv/delta_map_lo",
        "cv/recall_consolidation",
        *(f"baseline/{name}/map" for name in BASELINES),
    }
    assert named <= set(found)
    assert all(np.isfinite(value) for value in found.values())
    summary = json.loads(json.dumps({**evidence.summary(), **evidence.gate_figures()}, allow_nan=False))
    assert summary["kind"] == "event"
    assert [row["repeat"] for row in summary["fold_results"]] == [0, 1]
    assert summary["counts"] == SETTING.labels.counts()


def test_every_window_has_a_row_for_each_repeat(evidence: EventEvidence) -> None:
    rows = evidence.rows()
    assert len(rows) == 2 * len(SETTING.labels)
    assert sum(row["events"] for row in rows) == 2 * SETTING.labels.num_events
    assert all(row["right"] <= min(row["events"], row["found"]) for row in rows)
    assert {row["method"] for row in evidence.baseline_rows()} == BASELINES


def test_the_events_that_it_logs_give_its_map_again(evidence: EventEvidence) -> None:
    draws = scored_draws(json.loads(json.dumps(evidence.scored_events())))
    assert list(draws) == [(17, 1), (17, 2)]
    each = [one.scores(0.5)["map"] for one in draws.values()]
    assert evidence.detector["map"].mean == pytest.approx(np.mean(each))
    assert {one.num_blocks for one in draws.values()} == {evidence.num_groups}


def test_its_gates_ask_for_map_precision_recall_calibration_and_a_sure_gain(evidence: EventEvidence) -> None:
    gates = {gate.name: gate for gate in detector_gates(evidence.gate_figures(), DetectorLimits())}
    assert set(gates) == {
        "map", "precision", "recall/consolidation", "recall/retracement", "event_ece", "delta_map_lo"
    }  # fmt: skip
    assert gates["event_ece"].limit == pytest.approx(0.05 + evidence.ece_if_calibrated)
    assert gates["delta_map_lo"].value == evidence.differences[evidence.best_baseline or ""].lo


def test_windows_that_a_query_chose_teach_and_are_not_scored(fits: dict[str, list[HeldOutFit]]) -> None:
    drawn = np.where(np.arange(len(SETTING.labels)) % 2, "uncertain", "random")
    labels = replace(SETTING.labels, drawn=drawn)
    np.testing.assert_array_equal(labels.scored_windows(), drawn == "random")
    part = collect_event_evidence(replace(SETTING, labels=labels), fits)
    assert part.scored_on == RANDOM_WINDOWS
    num = sum(part.scored["detector"][0].num_true().values())
    assert num == sum(int(drawn[window] == "random") for window in SETTING.labels.window)
    assert part.num_groups == part.scored["detector"][0].num_blocks == (drawn == "random").sum()


def test_without_a_window_drawn_at_random_all_are_scored_and_the_evidence_says_so(
    fits: dict[str, list[HeldOutFit]],
) -> None:
    labels = replace(SETTING.labels, drawn=np.full(len(SETTING.labels), "top"))
    found = collect_event_evidence(replace(SETTING, labels=labels), fits)
    assert (found.scored_on, found.num_groups) == (QUERY_WINDOWS, len(labels))


def silent(fit: HeldOutFit) -> HeldOutFit:
    """Return a fit that finds nothing."""
    held, none = fit.held, np.zeros(0, np.int64)
    found = held.found.select(none)
    return replace(fit, held=replace(held, found=found, window=none, matched=none, judged=none.astype(bool)))


def test_a_repeat_without_an_event_above_its_threshold_leaves_the_precision_of_the_others(
    fits: dict[str, list[HeldOutFit]], evidence: EventEvidence
) -> None:
    part = collect_event_evidence(SETTING, {"detector": [fits["detector"][0], silent(fits["detector"][1])]})
    alone = evidence.scored["detector"][0].scores(0.5)
    assert part.detector["precision"].mean == pytest.approx(alone["precision"], nan_ok=True)
    assert part.detector["recall"].mean == pytest.approx(alone["recall"] / 2)


def test_a_detector_that_finds_nothing_says_so_in_words_and_misses_its_gates(fits: dict[str, list[HeldOutFit]]) -> None:
    none = collect_event_evidence(SETTING, {"detector": [silent(fit) for fit in fits["detector"]]})
    assert "no held-out event reaches the threshold" in none.headline()
    assert "nan" not in none.headline()
    json.dumps({**none.summary(), **none.gate_figures()}, allow_nan=False)
    gates = {gate.name: gate for gate in detector_gates(none.gate_figures(), DetectorLimits())}
    assert not any(gates[name].passed for name in ("map", "precision", "event_ece"))


def test_all_windows_are_scored_where_nothing_is_known_of_their_draw(evidence: EventEvidence) -> None:
    assert evidence.scored_on == ALL_WINDOWS


def test_the_calibration_error_by_chance_shrinks_with_the_number_of_events() -> None:
    rng, errors = np.random.default_rng(1), []
    for num in (40, 4000):
        score = rng.uniform(0.1, 1, num)
        right = (rng.random(num) < score).astype(int)
        zeros = np.zeros(num, np.int64)
        scored = ScoredEvents(zeros, score, right, zeros, np.zeros(5, np.int64), np.zeros(5, np.int64), 1, ("a",))
        errors.append(error_by_chance(scored))
    assert errors[0] > 3 * errors[1]
    assert 0 < errors[1] < 0.05
