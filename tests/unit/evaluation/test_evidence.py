"""What cross-validation may claim: every figure against a plain recomputation, and no claim without its interval."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, recall_score, roc_auc_score
from small_evidence import FOLDS, KEYS, LABELS, SKILL, evidence, outcomes

from moola_mlflow.core import CvConfig, FinetuneKeys, GateLimits
from moola_mlflow.evaluation.bootstrap import Interval
from moola_mlflow.evaluation.crossval import FoldOutcome
from moola_mlflow.evaluation.evidence import DETECTOR, OTHER_INPUT_TITLES, TITLES, Evidence, collect_evidence
from moola_mlflow.evaluation.folds import NestedFold, plan_folds
from moola_mlflow.evaluation.gates import GAIN, detector_gates
from moola_mlflow.labels.labelled_set import LabelledSet
from moola_mlflow.reports.finetune_results import (
    finetune_console_lines,
    fold_line,
    next_step,
)
from moola_mlflow.tracking.plain_json import without_nan


@pytest.fixture(scope="module")
def weighed() -> Evidence:
    return evidence()


def by_window(found: Evidence, method: str, key: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and spans of a seed's repeat, put together window by window."""
    probability, span = np.full((len(LABELS), 2), np.nan), np.full((len(LABELS), 2), -1)
    for fold, outcome in zip(FOLDS, found.outcomes[method], strict=True):
        if (fold.seed, fold.repeat) == key:
            for row, window in enumerate(fold.test):
                probability[window], span[window] = outcome.probability[row], outcome.predicted[row]
    return probability, span


def joint(probability: np.ndarray, span: np.ndarray, labels: LabelledSet = LABELS) -> np.ndarray:
    """Whether class and centre are right, window by window."""
    hits = []
    for i in range(len(labels)):
        off = abs((span[i][0] + span[i][1]) / 2 - (labels.start[i] + labels.end[i]) / 2)
        hits.append(probability[i].argmax() == labels.label[i] and off <= 3)
    return np.array(hits, float)


# Figures -----------------------------------------------------------------------------------------------------------


def test_every_score_is_the_mean_over_seeds_and_repeats_of_that_of_scikit_learn(weighed: Evidence) -> None:
    truth, rows = LABELS.label, []
    for key in KEYS:
        probability, span = by_window(weighed, DETECTOR, key)
        guess = probability.argmax(1)
        recall = recall_score(truth, guess, average=None)
        rows.append(
            {
                "f1_macro": f1_score(truth, guess, average="macro"),
                "accuracy": accuracy_score(truth, guess),
                "recall_consolidation": recall[0],
                "recall_retracement": recall[1],
                "auroc": roc_auc_score(truth, probability[:, 1]),
                "joint_success_at_3": joint(probability, span).mean(),
                "brier": np.mean((probability[:, 1] - truth) ** 2),
                "centre_mae": np.abs(span.mean(1) - (LABELS.start + LABELS.end) / 2).mean(),
            }
        )
    for name in rows[0]:
        interval = weighed.detector[name]
        assert interval.mean == pytest.approx(np.mean([row[name] for row in rows]), abs=1e-12), name
        assert interval.lo <= interval.mean <= interval.hi
    assert weighed.recall() == {name: weighed.detector[f"recall_{name}"] for name in LABELS.classes}


def test_the_spread_is_that_of_the_folds_of_all_seeds_and_repeats(weighed: Evidence) -> None:
    f1 = [
        f1_score(LABELS.label[fold.test], outcome.probability.argmax(1), average="macro")
        for fold, outcome in zip(FOLDS, weighed.outcomes[DETECTOR], strict=True)
    ]
    assert [row["f1_macro"] for row in weighed.fold_scores] == pytest.approx(f1)
    assert weighed.std["f1_macro"] == pytest.approx(np.std(f1, ddof=1))


def resampled(difference: np.ndarray, groups: np.ndarray, seed: int = 1) -> tuple[float, float]:
    """Ends of the interval of a mean, one drawn group at a time."""
    rng, names, means = np.random.default_rng(seed), np.unique(groups), []
    for _ in range(2000):
        drawn = np.concatenate([np.flatnonzero(groups == g) for g in rng.choice(names, len(names))])
        means.append(difference[drawn].mean())
    return tuple(np.quantile(means, [0.025, 0.975]))


@pytest.mark.parametrize("name", ["scratch", "rule"])
def test_a_difference_averages_seeds_and_repeats_of_a_window_and_then_resamples_windows(
    weighed: Evidence, name: str
) -> None:
    per_window = np.zeros(len(LABELS))
    for key in KEYS:
        per_window += joint(*by_window(weighed, DETECTOR, key)) - joint(*by_window(weighed, name, key))
    per_window /= len(KEYS)
    found = weighed.differences[name]["joint_success_at_3"]
    assert found.mean == pytest.approx(per_window.mean(), abs=1e-12)
    assert (found.lo, found.hi) == pytest.approx(resampled(per_window, np.arange(len(LABELS))), abs=0.03)


def test_the_same_predictions_again_under_another_seed_narrow_no_interval() -> None:
    once = plan_folds(LABELS, CvConfig(folds=3), (5,))
    again = [replace(fold, seed=seed) for seed in range(5, 13) for fold in once]
    rows = {name: outcomes(skill, i, once) for i, (name, skill) in enumerate(SKILL.items())}
    one, many = (
        collect_evidence(LABELS, once, rows),
        collect_evidence(LABELS, again, {name: 8 * row for name, row in rows.items()}),
    )
    for metric, name in product(("f1_macro", "joint_success_at_3"), ("scratch", "rule")):
        assert many.differences[name][metric] == pytest.approx(one.differences[name][metric], nan_ok=True)
        assert many.detector[metric] == pytest.approx(one.detector[metric])


def test_windows_that_overlap_are_resampled_together() -> None:
    """Copies of windows 30 minutes on say the same again: the interval must stay as wide as without them."""
    twice = np.repeat(np.arange(len(LABELS)), 2)
    later = np.arange(2 * len(LABELS)) % 2 * 30 * 60 * 10**9
    columns = {name: getattr(LABELS, name)[twice] for name in ("ohlc", "label", "start", "end", "instrument")}
    doubled = replace(
        LABELS, **columns, window_id=np.arange(len(twice)).astype(str),
        start_ns=LABELS.start_ns[twice] + later, end_ns=LABELS.end_ns[twice] + later,
    )  # fmt: skip
    folds = [
        replace(fold, test=np.sort(np.concatenate([2 * fold.test, 2 * fold.test + 1])))
        for fold in plan_folds(LABELS, CvConfig(folds=3), (5,))
    ]
    single = [replace(fold, test=fold.test[::2] // 2) for fold in folds]
    rows = {name: outcomes(skill, i, single) for i, (name, skill) in enumerate(SKILL.items())}
    both = {name: [doubled_rows(outcome) for outcome in each] for name, each in rows.items()}
    one, two = collect_evidence(LABELS, single, rows), collect_evidence(doubled, folds, both)
    for name in ("scratch", "majority"):
        assert two.differences[name]["joint_success_at_3"] == pytest.approx(one.differences[name]["joint_success_at_3"])


def doubled_rows(outcome: FoldOutcome) -> FoldOutcome:
    return replace(
        outcome, **{name: np.repeat(getattr(outcome, name), 2, 0) for name in ("probability", "raw", "predicted")}
    )


# Baselines ---------------------------------------------------------------------------------------------------------


def test_the_best_network_and_the_best_baseline_are_those_with_the_highest_joint_success(weighed: Evidence) -> None:
    mean = {name: row["joint_success_at_3"].mean for name, row in weighed.table.items()}
    assert weighed.best_network() == max(("scratch", "random_encoder"), key=mean.__getitem__)
    without = [name for name in mean if name not in (DETECTOR, "rule")]
    assert weighed.best_baseline() == max(without, key=mean.__getitem__)
    assert next(iter(weighed.table)) == DETECTOR


def test_on_labels_that_no_rule_made_the_rule_is_a_baseline_like_the_others(weighed: Evidence) -> None:
    by_hand = replace(weighed, labels=replace(LABELS, weak=False))
    assert by_hand.best_baseline() == "rule"
    assert f"against the best baseline ({TITLES['rule']})" in by_hand.headline()


def test_on_weak_labels_the_rule_is_never_the_best_baseline_however_good_it_is() -> None:
    found = evidence(detector=0.5, rule=1.0, majority=0.0)
    assert found.best_baseline() == "majority"
    assert found.best_network() is None
    assert evidence(detector=0.5, rule=1.0).best_baseline() is None
    assert evidence(detector=0.5, rule=1.0).headline() == "There is no baseline to compare with."


def test_a_detector_without_pre_training_never_claims_a_gain() -> None:
    found = replace(evidence(detector=1.0, random_encoder=0.0, majority=0.0), pretrained=False)
    assert found.headline().startswith("No pre-training in this detector: +")
    gated = found.gate_figures(False)
    assert gated["pretrained"] is False
    # It is the network that others are compared with: its gain over itself is nothing, whatever a random encoder does.
    assert (gated["delta_against"], gated["delta_joint_success_at_3"]["lo"]) == ("scratch", 0.0)
    (missed,) = [gate for gate in detector_gates(gated, GateLimits()) if gate.name == GAIN]
    assert "it is itself the network without pre-training" in missed.text()


PATH_ALONE = {DETECTOR: 0.9, "scratch": 0.2, "random_encoder": 0.3, "pooled_scratch": 0.0, "majority": 0.0}


def path_alone() -> Evidence:
    """Evidence of a detector on path features alone: without pre-training, and they are no baseline of it."""
    return replace(evidence(**PATH_ALONE), pretrained=False)


def test_evidence_says_whether_the_networks_read_what_the_detector_reads(weighed: Evidence) -> None:
    scratch = replace(evidence(detector=0.5, random_encoder=0.3, path_features=0.4), pretrained=False)
    for found, same in ((weighed, True), (scratch, True), (path_alone(), False)):
        assert found.same_inputs is same
        assert found.gate_figures(False)["delta_same_inputs"] is same


def test_a_gain_over_networks_that_read_an_encoding_instead_is_told_as_such_wherever_it_stands() -> None:
    found = path_alone()
    gates = detector_gates(found.gate_figures(False), GateLimits())
    (gain,) = [gate for gate in gates if gate.name == GAIN]
    assert gain.passed
    lines = finetune_console_lines(found, gates)
    over = "over the networks without pre-training, which read an encoding instead of path features"
    assert any(line.startswith(f"  met     {GAIN}") and f" > 0, {over}, against " in line for line in lines)
    assert {name: found.title(name) for name in found.differences} == {
        **{name: TITLES[name] for name in ("pooled_scratch", "majority")}, **OTHER_INPUT_TITLES,
    }  # fmt: skip
    for name, title in OTHER_INPUT_TITLES.items():
        assert any(line.startswith(f"  {title} ") for line in lines)
        assert not any(TITLES[name] in line for line in lines)
    assert f"against the best baseline ({OTHER_INPUT_TITLES['random_encoder']})" in found.headline()
    assert "compare other inputs and heads" in next_step(
        found, [replace(gain, value=-1.0)], "models:/d/3", FinetuneKeys()
    )


def test_the_gate_looks_at_the_network_that_the_gain_is_least_sure_over(weighed: Evidence) -> None:
    sure, unsure = Interval(0.05, 0.03, 0.08), Interval(0.09, -0.02, 0.2)
    gains = {"scratch": {"joint_success_at_3": sure}, "random_encoder": {"joint_success_at_3": unsure}}
    gated = replace(weighed, differences=gains).gate_figures(False)
    assert gated["delta_against"] == "random_encoder"
    assert gated["delta_joint_success_at_3"]["lo"] == -0.02


def test_each_metric_faces_the_baseline_that_is_best_in_it(weighed: Evidence) -> None:
    table = {name: dict(row) for name, row in weighed.table.items()}
    table["scratch"]["joint_success_at_3"], table["random_encoder"]["joint_success_at_3"] = (
        Interval(0.6, 0.5, 0.7), Interval(0.5, 0.4, 0.6),
    )  # fmt: skip
    table["scratch"]["f1_macro"], table["random_encoder"]["f1_macro"] = Interval(0.5, 0.4, 0.6), Interval(0.7, 0.6, 0.8)
    found = replace(weighed, table=table)
    assert (found.best_network(), found.best_network("f1_macro")) == ("scratch", "random_encoder")
    assert found.metrics()["cv/delta_f1_macro"] == weighed.differences["random_encoder"]["f1_macro"].mean


# What is logged ----------------------------------------------------------------------------------------------------

SCORES = [
    *("f1_macro", "accuracy", "auroc", "auprc", "hit_at_3", "hit_at_5", "centre_mae", "length_mae", "ece", "brier"),
    *("joint_success_at_3", "joint_success_at_5"),
    *(f"{kind}_{name}" for kind in ("precision", "recall", "f1") for name in LABELS.classes),
]


def test_metrics_have_the_promised_names_and_no_value_that_is_no_number(weighed: Evidence) -> None:
    found = weighed.metrics()
    assert all(math.isfinite(value) for value in found.values())
    promised = {f"cv/{name}{end}" for name in SCORES for end in ("", "_std", "_lo", "_hi")}
    for prefix, metric in product(("delta", "delta_best"), ("f1_macro", "joint_success_at_3")):
        promised |= {f"cv/{prefix}_{metric}{end}" for end in ("", "_lo", "_hi")}
    promised |= {f"baseline/{name}/f1_macro" for name in SKILL if name != DETECTOR}
    assert promised - set(found) == set()
    assert all(re.fullmatch(r"(cv|baseline)/[\w/ .-]+|labels/groups", name) for name in found)
    gain = weighed.differences[weighed.best_network()]["joint_success_at_3"]
    assert found["cv/delta_joint_success_at_3_lo"] == gain.lo
    best = weighed.best_baseline("f1_macro")
    assert found["cv/delta_best_f1_macro"] == weighed.differences[best]["f1_macro"].mean
    assert found["baseline/rule/f1_macro"] == weighed.table["rule"]["f1_macro"].mean


def test_a_class_that_is_in_one_fold_alone_leaves_out_what_is_undefined() -> None:
    labels = replace(LABELS, label=(np.arange(len(LABELS)) < 6).astype(np.int64))
    order = np.arange(len(labels))
    folds = [
        NestedFold(1, 0, k, 3, order, part, 0, order, order[:0]) for k, part in enumerate(np.array_split(order, 3))
    ]
    rows = {name: outcomes(0.5, i, folds, labels) for i, name in enumerate((DETECTOR, "scratch", "majority"))}
    found = collect_evidence(labels, folds, rows)
    assert math.isnan(found.std["recall_retracement"])
    assert "cv/recall_retracement_std" not in found.metrics()
    assert all(math.isfinite(value) for value in found.metrics().values())
    summary = json.loads(json.dumps(without_nan(found.summary()), allow_nan=False))
    assert summary["avg_metrics"]["recall_retracement"]["std"] is None
    lines = [fold_line(fold, row) for fold, row in zip(folds, found.fold_scores, strict=True)]
    assert all("nan" not in line for line in lines)


def test_the_summary_is_read_by_the_published_snippet_and_is_json_that_any_reader_takes(weighed: Evidence) -> None:
    found = json.loads(json.dumps(weighed.summary(), allow_nan=False))
    assert found["avg_metrics"]["f1_macro"]["mean"] == weighed.detector["f1_macro"].mean
    assert found["avg_metrics"]["joint_success_at_3"]["mean"] == weighed.detector["joint_success_at_3"].mean
    assert all(set(row) == {"mean", "std", "lo", "hi"} for row in found["avg_metrics"].values())
    assert [(row["seed"], row["repeat"], row["fold"]) for row in found["fold_results"]] == [
        (fold.seed, fold.repeat, fold.index) for fold in FOLDS
    ]
    assert all(
        row["f1_macro"] == score["f1_macro"]
        for row, score in zip(found["fold_results"], weighed.fold_scores, strict=True)
    )
    assert set(found["differences"]) == set(found["baselines"]) == set(SKILL) - {DETECTOR}
    assert found["headline"] == weighed.headline()


def test_the_rows_of_predictions_add_up_to_the_scores(weighed: Evidence) -> None:
    rows = weighed.rows()
    assert len(rows) == len(LABELS) * len(KEYS)
    assert {(row["seed"], row["repeat"]) for row in rows} == {(seed, repeat + 1) for seed, repeat in KEYS}
    assert np.mean([row["right"] for row in rows]) == pytest.approx(weighed.detector["accuracy"].mean)
    for name in ("joint_success_at_3", "centre_mae"):
        column = {"centre_mae": "centre_error"}.get(name, name)
        assert np.mean([row[column] for row in rows]) == pytest.approx(weighed.detector[name].mean)
    assert json.loads(json.dumps(rows)) == rows
    row = rows[40]
    assert row["right"] == (row["predicted"] == row["label"] == LABELS.classes[LABELS.label[10]])
    assert row["p_consolidation"] + row["p_retracement"] == pytest.approx(1, abs=2e-6)


def test_a_refit_gets_the_median_epoch_and_the_geometric_mean_of_the_temperatures(weighed: Evidence) -> None:
    epochs = [outcome.best_epoch + 1 for outcome in weighed.outcomes[DETECTOR]]
    assert abs(weighed.epochs() - np.median(epochs)) <= 0.5
    warm = [outcome.temperature for outcome in weighed.outcomes[DETECTOR]]
    assert weighed.temperature() == pytest.approx(np.prod(warm) ** (1 / len(warm)))


def test_the_gates_see_the_figures_of_the_cross_validation(weighed: Evidence) -> None:
    gates = {gate.name: gate for gate in detector_gates(weighed.gate_figures(False), GateLimits())}
    assert gates["f1_macro"].value == weighed.detector["f1_macro"].mean
    assert gates["recall/retracement"].value == weighed.detector["recall_retracement"].mean
    gain = weighed.differences[weighed.best_network()]["joint_success_at_3"]
    assert gates["delta_joint_success_at_3_lo"].value == gain.lo
    assert not gates["delta_joint_success_at_3_lo"].passed
    assert not {g.name: g for g in detector_gates(weighed.gate_figures(True), GateLimits())}["identity"].passed
    lone = evidence(detector=1.0, rule=1.0)
    assert not {g.name: g for g in detector_gates(lone.gate_figures(False), GateLimits())}[
        "delta_joint_success_at_3_lo"
    ].passed


def test_calibration_is_shown_before_and_after_temperature(weighed: Evidence) -> None:
    def error(name: str) -> float:
        found = []
        for key in KEYS:
            confidence, right = np.zeros(len(LABELS)), np.zeros(len(LABELS))
            for fold, outcome in zip(FOLDS, weighed.outcomes[DETECTOR], strict=True):
                if (fold.seed, fold.repeat) == key:
                    said = getattr(outcome, name)
                    confidence[fold.test] = said.max(1)
                    right[fold.test] = said.argmax(1) == LABELS.label[fold.test]
            order = np.argsort(confidence)
            found.append(np.mean([abs((confidence - right)[part].mean()) for part in np.split(order, 5)]))
        return float(np.mean(found))

    assert weighed.ece_before == pytest.approx(error("raw"))
    assert weighed.detector["ece"].mean == pytest.approx(error("probability"))
    assert weighed.metrics()["cv/ece_before_temperature"] == weighed.ece_before


def test_the_perfect_error_is_logged_and_said_beside_the_detectors_own(weighed: Evidence) -> None:
    expected = weighed.metrics()["cv/ece_if_calibrated"]
    assert expected == weighed.summary()["ece_if_calibrated"] == weighed.ece_if_calibrated > 0
    lines = finetune_console_lines(weighed, detector_gates(weighed.gate_figures(False), GateLimits()))
    assert any(f"a perfectly calibrated detector averages {expected:.3f}" in line for line in lines)


def test_the_baselines_rows_are_those_of_the_detector_with_a_method(weighed: Evidence) -> None:
    rows = weighed.baseline_rows()
    assert {row["method"] for row in rows} == set(SKILL) - {DETECTOR}
    assert len(rows) == len(weighed.rows()) * (len(SKILL) - 1)
    rule = [row["joint_success_at_3"] for row in rows if row["method"] == "rule"]
    assert np.mean(rule) == pytest.approx(weighed.table["rule"]["joint_success_at_3"].mean)
