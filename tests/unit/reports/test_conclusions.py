"""The report draws its conclusions from figures by fixed rules."""

from __future__ import annotations

from dataclasses import replace

import pytest
from run_figures import DONE, tuned

from moola_mlflow.evaluation.bootstrap import Interval
from moola_mlflow.reports.run_report import conclusions
from moola_mlflow.reports.run_report.facts import GateRow, Pretrained
from moola_mlflow.reports.run_report.next_steps import next_steps


def texts(found: list[conclusions.Conclusion]) -> str:
    return "\n".join(one.text for one in found)


@pytest.mark.parametrize(
    ("network", "best", "good", "said"),
    [
        ((0.1, 0.3), (0.02, 0.2), True, "Pre-training helps: "),
        ((0.1, 0.3), (-0.05, 0.1), None, "helps the network"),
        ((-0.1, 0.1), (-0.1, 0.1), None, "No gain: "),
        ((-0.1, 0.1), (-0.3, -0.1), False, "worse than a method without pre-training"),
        ((-0.3, -0.1), (-0.2, 0.1), False, "Pre-training harms the network"),
    ],
)
def test_what_is_said_of_the_gain_follows_from_its_intervals(
    network: tuple[float, float], best: tuple[float, float], good: bool | None, said: str
) -> None:
    first = conclusions.of_tuning(tuned(network, best))[0]
    assert first.good is good
    assert said in first.text
    assert f"[{network[0]:+.3f}, {network[1]:+.3f}]" in first.text
    assert f"[{best[0]:+.3f}, {best[1]:+.3f}]" in first.text


def test_the_first_sentence_is_the_headline_of_the_last_fine_tuning_or_says_that_there_is_none() -> None:
    gain, loss, open_ = tuned((0.1, 0.2), (0.1, 0.2)), tuned((0.1, 0.2), (-0.2, -0.1)), tuned((0.1, 0.2), (-0.1, 0.1))
    assert [conclusions.main_conclusion([one]).good for one in (gain, loss, open_)] == [True, False, None]
    unsure = replace(  # beyond the best baseline, and not surely beyond path features
        tuned((0.1, 0.2), (-0.1, 0.3)), best={"joint_success_at_3": "scratch"},
    )  # fmt: skip
    assert (unsure.against_best()[1].lo, conclusions.main_conclusion([unsure]).good) == (0.1, None)
    assert "No gain is sure" in conclusions.of_tuning(unsure)[0].text
    assert "+0.100 [-0.100, +0.300] against path features alone" in conclusions.of_tuning(unsure)[0].text
    assert conclusions.main_conclusion([gain]).text == "HEADLINE"
    assert "not known" in conclusions.main_conclusion([]).text
    assert "not known" in conclusions.main_conclusion([replace(gain, scores={})]).text


def test_what_could_not_have_been_seen_is_said_only_where_nothing_was() -> None:
    said = texts(conclusions.of_tuning(tuned((-0.1, 0.1), (-0.1, 0.1))))
    assert "60 independent groups of windows. They cannot show a difference in Joint@3 under about 0.10" in said
    assert "cannot show a difference" not in texts(conclusions.of_tuning(tuned((0.1, 0.3), (0.1, 0.3))))


def test_a_collapsed_class_and_uncalibrated_probabilities_are_named_with_their_figures() -> None:
    gates = (GateRow("recall/a", 0.1, ">=", 0.3, False), GateRow("ece", 0.2, "<", 0.1, False))
    said = texts(conclusions.of_tuning(tuned((0.1, 0.2), (0.1, 0.2), gates=gates, ece_before=0.25)))
    assert "Class 'a' has collapsed: recall 0.100 [0.000, 0.200]." in said
    assert "ECE 0.200, 0.250 before temperature; the gate" in said
    said = texts(conclusions.of_tuning(tuned((0.1, 0.2), (0.1, 0.2), gates=gates, ece_before=0.15)))
    assert "ECE 0.200, 0.150 before temperature, so temperature made it worse; the gate" in said


@pytest.mark.parametrize(
    ("hit", "good"), [((0.5, 0.45, 0.55), True), ((0.16, 0.12, 0.2), None), ((0.08, 0.05, 0.11), False)]
)
def test_pointers_are_judged_against_always_naming_the_typical_span(
    hit: tuple[float, float, float], good: bool | None
) -> None:
    found = conclusions.of_tuning(tuned((0.1, 0.2), (0.1, 0.2), scores={"hit_at_3": Interval(*hit)}))
    assert [one.good for one in found if "pointers" in one.text] == [good]


def test_a_detector_that_reads_no_encoder_says_nothing_about_it() -> None:
    assert (
        "says nothing about the encoder"
        in conclusions.of_tuning(tuned((0.1, 0.2), (0.1, 0.2), kind="price_path"))[0].text
    )


def test_published_thresholds_are_for_the_published_objective_alone() -> None:
    assert DONE.levels() == {}
    copied = replace(DONE, identity=True)
    assert copied.levels() == {"val_loss": "GOOD", "val_mae": "EXCELLENT"}
    said = texts(conclusions.of_pretraining(copied))
    assert "copying, not understanding" in said
    assert "val loss GOOD, val mae EXCELLENT" in said
    assert "better than every baseline" not in said
    assert "EXCELLENT" not in texts(conclusions.of_pretraining(DONE))


@pytest.mark.parametrize(
    ("skill", "good", "said"),
    [
        (0.4, True, "better than every baseline"),
        (0.05, False, "its skill is not above 0.1"),
        (-0.2, False, "no better than a baseline"),
    ],
)
def test_skill_is_judged_by_the_best_baseline_and_the_gate(skill: float, good: bool, said: str) -> None:
    found = conclusions.of_pretraining(replace(DONE, test_skill=skill))[0]
    assert found.good is good
    assert said in found.text
    assert "best baseline 0.1000 (ridge)" in found.text


def test_a_probe_that_raw_inputs_match_is_no_good_news_whatever_the_gate_says() -> None:
    above = conclusions.of_pretraining(DONE)[1]
    assert above.good is True
    matched = conclusions.of_pretraining(replace(DONE, probe={**DONE.probe, "r2_inputs": 0.3}))[1]
    assert matched.good is False
    assert "raw inputs give as much or more (R2 0.300)" in matched.text


def test_a_training_that_ended_on_its_best_epoch_was_still_improving() -> None:
    assert "still improving" not in texts(conclusions.of_pretraining(DONE))
    assert "still improving" in texts(conclusions.of_pretraining(replace(DONE, best_epoch=4)))
    # Stopped before its time by patience: its best epoch lies before the last one.
    assert "still improving" not in texts(conclusions.of_pretraining(replace(DONE, epochs_planned=9, best_epoch=4)))


@pytest.mark.parametrize(
    ("status", "epochs", "command"),
    [
        ("KILLED", 3, "moola pretrain --config .moola/runs/abc/config.yaml --resume abc"),
        ("RUNNING", 3, "moola report --run_id abc"),
        ("FINISHED", 3, "moola doctor"),
        ("FAILED", 0, "mlflow run . -e pretrain"),
    ],
)
def test_a_run_without_results_is_said_to_have_none_and_how_to_get_them(status: str, epochs: int, command: str) -> None:
    p = Pretrained(status, epochs_planned=9, epochs_run=epochs)
    assert texts(conclusions.of_pretraining(p)) == (
        f"There are no results: the run is {status} after {epochs} of 9 epochs."
    )
    assert [step.command for step in next_steps("abc", "models:/e/1", p, [], [])] == [command]


def test_phases_are_set_against_each_other_or_it_is_said_why_not() -> None:
    goods = [conclusions.of_phases(Interval(m, m - 0.05, m + 0.05))[0].good for m in (0.1, -0.1, 0.0)]
    assert goods == [True, False, None]
    assert "their folds differ" in conclusions.of_phases("their folds differ")[0].text
    assert conclusions.of_phases(None) == []
