"""Gates: which evidence passes, and that what is missing or no number never does."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_models import GOOD_EVIDENCE, small_encoder

from moola_mlflow.config import GatesConfig
from moola_mlflow.gates import (
    RELATIONS,
    Gate,
    copies_input,
    detector_gates,
    encoder_gates,
    markdown,
    missed,
    published_levels,
    summary,
    table,
)

CONFIG = GatesConfig()
PUBLISHED = {"name": "masked", "hide_masked": False}
MASKED = {"name": "masked", "hide_masked": True}
PATH = {"name": "path", "hide_masked": True}


def encoder_misses(**card: Any) -> list[str]:
    return [gate.name for gate in encoder_gates({**small_encoder().card, **card}, CONFIG) if not gate.passed]


def detector_misses(**evidence: Any) -> list[str]:
    return [gate.name for gate in detector_gates({**GOOD_EVIDENCE, **evidence}, CONFIG) if not gate.passed]


def test_good_evidence_passes_every_gate() -> None:
    assert encoder_misses() == detector_misses() == []
    assert summary(detector_gates(GOOD_EVIDENCE, CONFIG)) == "passed"


@pytest.mark.parametrize(
    ("card", "names"),
    [
        ({"objective": PUBLISHED, "leak": 1.82}, ["identity"]),
        ({"objective": {"name": "path+0.5*masked", "hide_masked": False}, "leak": 1.8}, ["identity"]),
        ({"leak": 0.1}, ["leak"]),
        ({"leak": None}, ["leak"]),
        ({"objective": PATH, "leak": None}, []),
        ({"objective": {"name": "path + 0.5 * masked", "hide_masked": True}, "leak": 1e-9}, ["leak"]),
        ({"probe": {"r2_gain": -0.041}}, ["probe_r2_gain"]),
        ({"probe": {"r2_gain": 0.067}}, ["probe_r2_gain"]),
        ({"probe": {}}, ["probe_r2_gain"]),
        ({"val_skill": 0.1}, ["skill"]),
        ({"val_skill": math.nan}, ["skill"]),
        ({"quality": None}, ["feature_faults"]),
        ({"quality": {"features": []}}, ["feature_faults"]),
        ({"objective": {}, "leak": None}, ["identity"]),
    ],
)
def test_an_encoder_misses_the_gate_that_its_card_does_not_meet(card: dict[str, Any], names: list[str]) -> None:
    assert encoder_misses(**card) == names


def test_features_out_of_bounds_are_named() -> None:
    card = small_encoder().card
    card["quality"]["features"][0] |= {"max": 9.0}
    card["quality"]["features"][1] |= {"nan": 0.25}
    (text,) = missed(encoder_gates(card, CONFIG))
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
        assert summary(gates).startswith("failed: ")


def test_no_evidence_at_all_misses_every_gate() -> None:
    assert not any(gate.passed for gate in [*detector_gates(None, CONFIG), *encoder_gates({}, CONFIG)])


@pytest.mark.parametrize("relation", RELATIONS)
def test_nan_stands_in_no_relation(relation: str) -> None:
    gate = Gate("x", math.nan, 0.5, relation)
    assert not gate.passed
    assert gate.text() == f"x is missing or not finite, needed {relation} 0.50"


def test_a_missed_gate_tells_its_figure_its_limit_and_by_how_much() -> None:
    gates = detector_gates({**GOOD_EVIDENCE, "joint_success_at_3": 0.31, "ece": 0.1234}, CONFIG)
    assert summary(gates) == "failed: joint_success_at_3 0.31 < 0.40 (by 0.09); ece 0.1234 >= 0.10 (by 0.0234)"


def test_limits_come_from_the_configuration() -> None:
    loose = GatesConfig(joint_success_at_3=0.1, recall=0.0)
    evidence = {**GOOD_EVIDENCE, "joint_success_at_3": 0.2, "recall": {"consolidation": 0.0, "retracement": 1.0}}
    assert summary(detector_gates(evidence, loose)) == "passed"
    assert [g.name for g in encoder_gates(small_encoder().card, GatesConfig(probe_r2_gain=0.2)) if not g.passed] == [
        "probe_r2_gain"
    ]


def test_the_table_is_plain_json_and_the_markdown_marks_what_is_missed() -> None:
    gates = detector_gates({**GOOD_EVIDENCE, "ece": None, "f1_macro": 0.2}, CONFIG)
    rows = {row["gate"]: row for row in table(gates)}
    assert rows["ece"] == {"gate": "ece", "value": None, "needed": "< 0.10", "passed": False}
    assert rows["f1_macro"]["value"] == 0.2
    lines = markdown(gates).splitlines()
    assert "| ece | missing | < 0.10 | **no** |" in lines
    assert "| joint_success_at_3 | 0.52 | >= 0.40 | yes |" in lines


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
