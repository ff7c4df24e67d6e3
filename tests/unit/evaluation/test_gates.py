"""Gates: which evidence passes, and that what is missing or no number never does."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_models import GOOD_EVIDENCE, small_encoder

from moola_mlflow.core import GateLimits
from moola_mlflow.evaluation.gates import (
    ECE_OF_WINDOWS,
    GAIN,
    RELATIONS,
    Gate,
    copies_input,
    detector_gates,
    encoder_gates,
    gate_reasons,
    gates_markdown,
    gates_summary,
    gates_table,
    missed_gates,
    published_levels,
)
from moola_mlflow.evaluation.metrics import ece, ece_if_calibrated

CONFIG, CARD = GateLimits(), small_encoder().card
PUBLISHED = {"name": "masked", "hide_masked": False}
MASKED = {"name": "masked", "hide_masked": True}
PATH = {"name": "price_path", "hide_masked": True}


def encoder_misses(**card: Any) -> list[str]:
    return [gate.name for gate in encoder_gates({**small_encoder().card, **card}, CONFIG) if not gate.passed]


def detector_misses(**evidence: Any) -> list[str]:
    return [gate.name for gate in detector_gates({**GOOD_EVIDENCE, **evidence}, CONFIG) if not gate.passed]


def test_good_evidence_passes_every_gate() -> None:
    assert encoder_misses() == detector_misses() == []
    assert gates_summary(detector_gates(GOOD_EVIDENCE, CONFIG)) == "passed"


@pytest.mark.parametrize(
    ("few_shot", "names"),
    [
        ({"gain": 4.6}, []),
        ({"gain": 4.5}, ["few_shot_gain"]),
        ({"gain": float("nan")}, ["few_shot_gain"]),
        ({}, ["few_shot_gain"]),
        ([4.6], ["few_shot_gain"]),
    ],
)
def test_an_encoder_of_rules_is_judged_by_its_gain_on_fresh_rules(few_shot: Any, names: list[str]) -> None:
    card = {"objective": {"name": "rules"}, "leak": None, "few_shot": few_shot, "probe": {}, "val_skill": None}
    assert encoder_misses(**card) == names


@pytest.mark.parametrize(
    ("card", "names"),
    [
        ({"objective": PUBLISHED, "leak": 1.82}, ["identity"]),
        ({"objective": {"name": "price_path+0.5*masked", "hide_masked": False}, "leak": 1.8}, ["identity"]),
        ({"leak": 0.1}, ["leak"]),
        ({"leak": None}, ["leak"]),
        ({"objective": PATH, "leak": None}, []),
        ({"objective": {"name": "price_path + 0.5 * masked", "hide_masked": True}, "leak": 1e-9}, ["leak"]),
        ({"probe": {"r2_gain": -0.041}}, ["probe_r2_gain"]),
        ({"probe": {"r2_gain": 0.067}}, ["probe_r2_gain"]),
        ({"probe": {}}, ["probe_r2_gain"]),
        ({"val_skill": 0.1}, ["skill"]),
        ({"val_skill": math.nan}, ["skill"]),
        ({"quality": None}, ["feature_faults"]),
        ({"quality": {"features": []}}, ["feature_faults"]),
        ({"objective": {}, "leak": None}, ["identity"]),
        ({"objective": {"name": "masked"}}, ["identity"]),
        ({"objective": {"name": "masked", "hide_masked": "false"}}, ["identity"]),
    ],
)
def test_an_encoder_misses_the_gate_that_its_card_does_not_meet(card: dict[str, Any], names: list[str]) -> None:
    assert encoder_misses(**card) == names


def test_features_out_of_bounds_are_named() -> None:
    card = small_encoder().card
    card["quality"]["features"][0] |= {"max": 9.0}
    card["quality"]["features"][1] |= {"nan": 0.25}
    (text,) = missed_gates(encoder_gates(card, CONFIG))
    first, second = card["features"]["names"][:2]
    assert text.startswith("feature_faults 2 != 0 (by 2): ")
    assert f"{first}: values from" in text
    assert f"{second}: NaN or infinite in 25.00%" in text


@pytest.mark.parametrize(
    ("evidence", "names"),
    [
        ({"f1_macro": 0.5999}, ["f1_macro"]),
        ({"f1_macro": 0.6}, []),
        ({"joint_success_at_3": 0.39}, ["joint_success_at_3"]),
        ({"recall": {"consolidation": 0.0, "retracement": 1.0}}, ["recall/consolidation"]),
        ({"recall": {}}, ["recall/every class"]),
        ({"ece": 0.1}, ["ece"]),
        ({"delta_joint_success_at_3": {"mean": 0.2, "lo": 0.0, "hi": 0.4}}, ["delta_joint_success_at_3_lo"]),
        ({"delta_joint_success_at_3": None}, ["delta_joint_success_at_3_lo"]),
        ({"identity_encoder": True}, ["identity"]),
        ({"identity_encoder": None}, ["identity"]),
    ],
)
def test_a_detector_misses_the_gate_that_its_evidence_does_not_meet(evidence: dict[str, Any], names: list[str]) -> None:
    assert detector_misses(**evidence) == names


@given(key=st.sampled_from(sorted(GOOD_EVIDENCE)), bad=st.sampled_from([None, math.nan, math.inf, "0.9", True, [], {}]))
def test_evidence_that_is_missing_or_no_number_never_passes(key: str, bad: Any) -> None:
    for evidence in ({**GOOD_EVIDENCE, key: bad}, {k: v for k, v in GOOD_EVIDENCE.items() if k != key}):
        gates = detector_gates(evidence, CONFIG)
        assert not all(gate.passed for gate in gates)
        assert gates_summary(gates).startswith("failed: ")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
"""Whatever a file of JSON may hold in a place."""
NO_MAPPING = PLAIN.filter(lambda value: not isinstance(value, dict))
NO_TEXT = PLAIN.filter(lambda value: not isinstance(value, str))


def said(gates: list[Gate]) -> list[str]:
    """The gates that are missed, after everything that is made of them was made."""
    assert len(gates_table(gates)) + 2 == len(gates_markdown(gates).splitlines())
    assert gates_summary(gates) == "passed" or len(missed_gates(gates)) > 0
    return [gate.name for gate in gates if not gate.passed]


@given(evidence=NO_MAPPING)
def test_evidence_that_is_no_mapping_misses_every_gate(evidence: Any) -> None:
    gates = detector_gates(evidence, CONFIG)
    assert said(gates) == [gate.name for gate in detector_gates(None, CONFIG)]


@given(evidence=st.dictionaries(st.sampled_from(sorted(GOOD_EVIDENCE)), PLAIN), whole=st.booleans())
def test_no_evidence_however_odd_stops_the_gates_of_a_detector(evidence: dict[str, Any], whole: bool) -> None:
    names = said(detector_gates({**GOOD_EVIDENCE, **evidence} if whole else evidence, CONFIG))
    assert names or whole
    if isinstance(evidence.get("recall"), list | str):
        assert "recall/every class" in names
    if "delta_joint_success_at_3" in evidence and not isinstance(evidence["delta_joint_success_at_3"], dict):
        assert GAIN in names


PARTS = ("objective", "leak", "probe", "val_skill", "quality")


@given(parts=st.dictionaries(st.sampled_from(PARTS), PLAIN))
def test_no_card_however_odd_stops_the_gates_of_an_encoder(parts: dict[str, Any]) -> None:
    said(encoder_gates({**CARD, **parts}, CONFIG))


@given(objective=NO_MAPPING | st.fixed_dictionaries({"name": NO_TEXT, "hide_masked": PLAIN}))
def test_an_objective_without_a_name_in_words_misses_the_identity_gate(objective: Any) -> None:
    gates = encoder_gates({**CARD, "objective": objective}, CONFIG)
    assert said(gates) == ["identity"]
    assert copies_input({"objective": objective}) is None


@given(hides=PLAIN.filter(lambda value: not isinstance(value, bool)))
def test_whether_an_objective_hides_is_yes_or_no_and_nothing_else(hides: Any) -> None:
    assert copies_input({"objective": {"name": "masked", "hide_masked": hides}}) is None


@given(probe=NO_MAPPING | st.fixed_dictionaries({"r2_gain": st.sampled_from([[0.9], {"r2_gain": 0.9}, "0.9", True])}))
def test_a_probe_that_is_no_mapping_of_numbers_misses_its_gate(probe: Any) -> None:
    assert said(encoder_gates({**CARD, "probe": probe}, CONFIG)) == ["probe_r2_gain"]


@given(
    key=st.sampled_from(["nan", "nonzero", "min", "max", "lower", "upper"]),
    bad=st.just(math.nan) | PLAIN.filter(lambda value: value is not None and not isinstance(value, int | float)),
)
def test_a_figure_of_a_feature_that_is_no_number_is_no_figure(key: str, bad: Any) -> None:
    card = copy.deepcopy(CARD)
    card["quality"]["features"][3][key] = bad
    (gate,) = [gate for gate in encoder_gates(card, CONFIG) if gate.name == "feature_faults"]
    assert math.isnan(gate.value)
    assert not gate.passed


def test_a_feature_of_ones_own_may_have_no_bounds() -> None:
    card = copy.deepcopy(CARD)
    card["quality"]["features"][3] |= {"lower": -math.inf, "upper": math.inf}
    assert said(encoder_gates(card, CONFIG)) == []


OVER_OTHERS = "over the networks without pre-training, which read an encoding instead of path features"


def test_a_gain_over_networks_with_other_inputs_is_told_as_such_whether_the_gate_is_met_or_missed() -> None:
    other = {**GOOD_EVIDENCE, "delta_same_inputs": False}
    met = detector_gates(other, CONFIG)
    assert gates_summary(met) == "passed"
    assert gate_reasons(met) == [f"delta_joint_success_at_3_lo 0.04 > 0, {OVER_OTHERS}"]
    assert f"| delta_joint_success_at_3_lo, {OVER_OTHERS} | 0.04 | > 0 | yes |" in gates_markdown(met).splitlines()
    assert {row["gate"]: row.get("about") for row in gates_table(met)}[GAIN] == OVER_OTHERS
    low = {"delta_joint_success_at_3": {"mean": 0.1, "lo": -0.02, "hi": 0.2}}
    (text,) = missed_gates(detector_gates({**other, **low}, CONFIG))
    assert text == f"delta_joint_success_at_3_lo -0.02 <= 0 (by 0.02): no sure gain {OVER_OTHERS}"


@pytest.mark.parametrize("same", [True, None, "no", 0])
def test_a_gain_over_networks_with_the_same_inputs_needs_no_word(same: Any) -> None:
    gates = detector_gates({**GOOD_EVIDENCE, "delta_same_inputs": same}, CONFIG)
    assert gate_reasons(gates) == []
    assert f"| {GAIN} | 0.04 | > 0 | yes |" in gates_markdown(gates).splitlines()
    assert not any("about" in row for row in gates_table(gates))


EVENTS = {
    "kind": "event", "map": 0.7, "precision": 0.9, "recall": {"retracement": 0.5}, "event_ece": 0.02,
    "event_ece_if_calibrated": 0.02, "delta_map": {"mean": 0.1, "lo": 0.05, "hi": 0.2},
}  # fmt: skip


@pytest.mark.parametrize(("evidence", "gate"), [(GOOD_EVIDENCE, GAIN), (EVENTS, "delta_map_lo")])
def test_a_quick_comparison_misses_the_gate_on_the_gain_whatever_the_gain_and_says_what_it_left_out(
    evidence: dict[str, Any], gate: str
) -> None:
    assert gates_summary(detector_gates(evidence, CONFIG)) == "passed"
    gates = detector_gates({**evidence, "left_out": ["random_encoder"]}, GateLimits(delta_map=-9.0))
    (text,) = missed_gates(gates)
    assert text.startswith(f"{gate} was not measured (cv.baselines=quick left out random_encoder), needed > ")
    assert f"| {gate} | missing |" in gates_markdown(gates)


@pytest.mark.parametrize(
    ("evidence", "gate", "words"),
    [
        (GOOD_EVIDENCE, GAIN, "against scratch, the least sure gain of scratch, random_encoder"),
        (EVENTS, "delta_map_lo", "against scratch, the best of scratch, random_encoder"),
    ],
)
def test_a_gain_over_the_best_of_several_baselines_names_them_all(
    evidence: dict[str, Any], gate: str, words: str
) -> None:
    named = {**evidence, "delta_against": "scratch", "delta_compared": ["scratch", "random_encoder"]}
    (text,) = gate_reasons([g for g in detector_gates(named, CONFIG) if g.name == gate])
    assert text.endswith(f" > 0, {words}")
    key = "delta_map" if gate == "delta_map_lo" else "delta_joint_success_at_3"
    (missed,) = missed_gates(detector_gates({**named, key: {"mean": 0.1, "lo": -0.5, "hi": 1.0}}, CONFIG))
    assert missed.endswith(words)


def test_no_evidence_at_all_misses_every_gate() -> None:
    assert not any(gate.passed for gate in [*detector_gates(None, CONFIG), *encoder_gates({}, CONFIG)])


@pytest.mark.parametrize("by_chance", [None, math.nan])
def test_an_event_detector_without_an_event_to_judge_misses_its_gates_in_words(by_chance: float | None) -> None:
    evidence = {"kind": "event", "map": 0.1, "event_ece": None, "event_ece_if_calibrated": by_chance}
    gates = detector_gates(evidence, CONFIG)
    (calibration,) = (gate for gate in gates if gate.name == "event_ece")
    assert not calibration.passed
    assert calibration.text() == "event_ece is missing or not finite, needed < 0.05"
    assert "event_ece" in gates_markdown(gates) + gates_summary(gates)
    assert "nan" in Gate("a", 0.1, math.nan, "<").text()


@pytest.mark.parametrize("relation", RELATIONS)
def test_nan_stands_in_no_relation(relation: str) -> None:
    gate = Gate("x", math.nan, 0.5, relation)
    assert not gate.passed
    assert gate.text() == f"x is missing or not finite, needed {relation} 0.50"


def test_a_missed_gate_tells_its_figure_its_limit_and_by_how_much() -> None:
    gates = detector_gates({**GOOD_EVIDENCE, "joint_success_at_3": 0.31, "ece": 0.1234}, CONFIG)
    assert gates_summary(gates) == "failed: joint_success_at_3 0.31 < 0.40 (by 0.09); ece 0.1234 >= 0.10 (by 0.0234)"


def test_limits_come_from_the_configuration() -> None:
    loose = GateLimits(joint_success_at_3=0.1, recall=0.0)
    evidence = {**GOOD_EVIDENCE, "joint_success_at_3": 0.2, "recall": {"consolidation": 0.0, "retracement": 1.0}}
    assert gates_summary(detector_gates(evidence, loose)) == "passed"
    assert [g.name for g in encoder_gates(CARD, GateLimits(probe_r2_gain=0.2)) if not g.passed] == ["probe_r2_gain"]


def test_the_table_is_plain_json_and_the_markdown_marks_what_is_missed() -> None:
    gates = detector_gates({**GOOD_EVIDENCE, "ece": None, "f1_macro": 0.2}, CONFIG)
    rows = {row["gate"]: row for row in gates_table(gates)}
    assert rows["ece"] == {"gate": "ece", "value": None, "needed": "< 0.10", "passed": False}
    assert rows["f1_macro"]["value"] == 0.2
    lines = gates_markdown(gates).splitlines()
    assert "| ece | missing | < 0.10 | **no** |" in lines
    assert "| joint_success_at_3 | 0.52 | >= 0.40 | yes |" in lines


@pytest.mark.parametrize(
    ("num", "bias", "least", "most"),
    [(91, 0.0, 0.95, 1.0), (91, 0.2, 0.0, 0.12), (500, 0.0, 1.0, 1.0), (500, 0.15, 0.0, 0.03)],
)
def test_the_gate_of_calibration_knows_how_many_windows_there_are(
    num: int, bias: float, least: float, most: float
) -> None:
    """Confidences are spread evenly over 0.50 to 0.98, and too high by ``bias``."""
    rng, met = np.random.default_rng(3), []
    for _ in range(300):
        sure = rng.uniform(0.5, 0.98, num)
        probability = np.stack([sure, 1 - sure], 1)
        error = ece((rng.random(num) >= sure - bias).astype(int), probability)
        by_chance = ece_if_calibrated(probability[None], draws=30)
        gates = detector_gates({**GOOD_EVIDENCE, "ece": error, "ece_if_calibrated": by_chance}, CONFIG)
        met.append(next(gate.passed for gate in gates if gate.name == "ece"))
    assert least <= np.mean(met) <= most


def test_a_met_gate_of_calibration_says_what_its_limit_knows() -> None:
    gates = detector_gates({**GOOD_EVIDENCE, "ece": 0.12, "ece_if_calibrated": 0.075}, CONFIG)
    assert gate_reasons(gates) == [f"ece 0.12 < 0.125, {ECE_OF_WINDOWS}"]


@pytest.mark.parametrize(
    ("card", "copies"),
    [
        ({"objective": PUBLISHED}, True),
        ({"objective": MASKED}, False),
        ({"objective": {**PATH, "hide_masked": False}}, False),
        ({}, None),
    ],
)
def test_an_objective_that_shows_what_it_asks_for_is_a_copy(card: dict[str, Any], copies: bool | None) -> None:
    assert copies_input(card) is copies


@pytest.mark.parametrize(
    ("val_loss", "val_mae", "levels"),
    [(-5, 0.002, "EXCELLENT EXCELLENT"), (-4.9, 0.0021, "GOOD GOOD"), (-3.9, 0.0051, "WARNING WARNING"),
     (-4, 0.005, "GOOD GOOD"), (math.nan, math.nan, "WARNING WARNING")],
)  # fmt: skip
def test_published_levels_follow_the_published_thresholds(val_loss: float, val_mae: float, levels: str) -> None:
    found = published_levels(val_loss, val_mae)
    assert f"{found['val_loss']} {found['val_mae']}" == levels
