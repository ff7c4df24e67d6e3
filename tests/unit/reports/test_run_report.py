"""The report draws its conclusions from figures by fixed rules."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moola_mlflow.evaluation.metrics import Interval
from moola_mlflow.reports.run_report import conclusions
from moola_mlflow.reports.run_report.facts import GateRow, Pretrained, Tuned, gate_rows

PROBE = GateRow("probe_r2_gain", 0.004, ">", 0.067, False)
DONE = Pretrained(
    "FINISHED", "masked", done=True, epochs_planned=5, epochs_run=5, best_epoch=2, best_val_loss=-4.2,
    best_val_mae=0.001, test_skill=0.4, val_skill=0.4, test_huber=0.06, baselines={"mean": 0.2, "ridge": 0.1},
    probe={"r2": 0.2, "r2_random": 0.05, "r2_inputs": 0.1, "r2_gain": 0.15},
    gates=(GateRow("probe_r2_gain", 0.15, ">", 0.067, True), GateRow("skill", 0.4, ">", 0.1, True)),
)  # fmt: skip


def tuned(network: tuple[float, float], best: tuple[float, float], **changed: object) -> Tuned:
    """A fine-tuning whose Joint@3 lies so far beyond the networks and beyond path features: (lo, hi) each."""
    over, beyond = (Interval(sum(ends) / 2, *ends) for ends in (network, best))
    clear = Interval(0.5, 0.45, 0.55)
    base = Tuned(
        "id", "a name", "FINISHED", "frozen", scores={"hit_at_3": clear, "recall_a": Interval(0.1, 0.0, 0.2)},
        baselines={"majority": {"hit_at_3": Interval(0.1, 0.05, 0.15)}},
        differences={"scratch": {"joint_success_at_3": over}, "random_encoder": {"joint_success_at_3": clear},
                     "path_features": {"joint_success_at_3": beyond}},
        best={"joint_success_at_3": "path_features"}, headline="HEADLINE", num_groups=60,
    )  # fmt: skip
    return replace(base, **changed)  # type: ignore[arg-type]


def texts(findings: list[conclusions.Conclusion]) -> str:
    return "\n".join(finding.text for finding in findings)


@pytest.mark.parametrize(
    ("row", "margin", "said"),
    [
        (GateRow("a", 0.7, ">=", 0.6, True), 0.1, "met by 0.1"),
        (GateRow("a", 0.5, ">", 0.6, False), -0.1, "missed by 0.1"),
        (GateRow("ece", 0.13, "<", 0.1, False), -0.03, "missed by 0.03"),
        (GateRow("ece", 0.03, "<", 0.1, True), 0.07, "met by 0.07"),
        (GateRow("identity", 1.0, "=", 0.0, False), -1.0, "missed by 1"),
        (GateRow("identity", 0.0, "=", 0.0, True), 0.0, "met"),
        (GateRow("a", None, ">", 0.6, False), None, "missed: no figure"),
    ],
)
def test_a_gates_margin_is_positive_where_it_is_met(row: GateRow, margin: float | None, said: str) -> None:
    assert row.margin == (None if margin is None else pytest.approx(margin))
    assert conclusions.gate_text(row) == said


def test_gates_of_another_shape_are_left_out_and_the_rest_is_read() -> None:
    good = {"gate": "skill", "value": 0.2, "needed": "> 0.10", "passed": True}
    assert gate_rows([{"gate": "x"}, "text", good]) == [GateRow("skill", 0.2, ">", 0.1, True)]
    assert gate_rows(None) == gate_rows({"no": "list"}) == []


@pytest.mark.parametrize(
    ("network", "best", "good", "said"),
    [
        ((0.1, 0.3), (0.02, 0.2), True, "pre-training helps."),
        ((0.1, 0.3), (-0.05, 0.1), None, "helps the network"),
        ((-0.1, 0.1), (-0.1, 0.1), None, "no gain."),
        ((-0.1, 0.1), (-0.3, -0.1), False, "worse than what needs no pre-training"),
        ((-0.3, -0.1), (-0.2, 0.1), False, "pre-training harms the network"),
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


def test_the_least_sure_network_counts_not_the_kindest() -> None:
    # Beyond the random encoder it is clear by 0.45; beyond scratch it is not.
    found = tuned((-0.1, 0.1), (-0.1, 0.1)).least_sure()
    assert found is not None
    assert found[0] == "scratch"


def test_the_first_sentence_is_the_headline_of_the_last_fine_tuning_or_says_that_there_is_none() -> None:
    gain, loss, open_ = tuned((0.1, 0.2), (0.1, 0.2)), tuned((0.1, 0.2), (-0.2, -0.1)), tuned((0.1, 0.2), (-0.1, 0.1))
    assert [conclusions.honest_sentence(DONE, [one]).good for one in (gain, loss, open_)] == [True, False, None]
    unsure = replace(  # beyond the best baseline, and not surely beyond path features
        tuned((0.1, 0.2), (-0.1, 0.3)), best={"joint_success_at_3": "scratch"},
    )  # fmt: skip
    assert (unsure.against_best()[1].lo, conclusions.honest_sentence(DONE, [unsure]).good) == (0.1, None)
    assert "no gain is sure" in conclusions.of_tuning(unsure)[0].text
    assert "+0.100 [-0.100, +0.300] over path features alone" in conclusions.of_tuning(unsure)[0].text
    assert conclusions.honest_sentence(DONE, [gain]).text == "HEADLINE"
    assert "not known" in conclusions.honest_sentence(DONE, []).text
    assert "not known" in conclusions.honest_sentence(DONE, [replace(gain, scores={})]).text


def test_what_could_not_have_been_seen_is_said_only_where_nothing_was() -> None:
    said = texts(conclusions.of_tuning(tuned((-0.1, 0.1), (-0.1, 0.1))))
    assert "With 60 independent groups of windows a difference under about 0.10" in said
    assert "cannot be told from none" not in texts(conclusions.of_tuning(tuned((0.1, 0.3), (0.1, 0.3))))


def test_a_collapsed_class_and_uncalibrated_probabilities_are_named_with_their_figures() -> None:
    gates = (GateRow("recall/a", 0.1, ">=", 0.3, False), GateRow("ece", 0.2, "<", 0.1, False))
    said = texts(conclusions.of_tuning(tuned((0.1, 0.2), (0.1, 0.2), gates=gates, ece_before=0.25)))
    assert "Class 'a' has collapsed: recall 0.100 [0.000, 0.200]." in said
    assert "ECE 0.200, 0.250 before temperature" in said


@pytest.mark.parametrize(
    ("hit", "good"), [((0.5, 0.45, 0.55), True), ((0.16, 0.12, 0.2), None), ((0.08, 0.05, 0.11), False)]
)
def test_pointers_are_judged_against_always_naming_the_typical_span(
    hit: tuple[float, float, float], good: bool | None
) -> None:
    found = [
        finding
        for finding in conclusions.of_tuning(tuned((0.1, 0.2), (0.1, 0.2), scores={"hit_at_3": Interval(*hit)}))
        if "pointers" in finding.text
    ]
    assert [finding.good for finding in found] == [good]


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
        (0.05, False, "by less than 0.1"),
        (-0.2, False, "no better than a baseline"),
    ],
)
def test_skill_is_judged_by_the_best_baseline_and_the_gate(skill: float, good: bool, said: str) -> None:
    found = conclusions.of_pretraining(replace(DONE, test_skill=skill))[0]
    assert found.good is good
    assert said in found.text
    assert "0.1000 of the best baseline (ridge)" in found.text


def test_a_probe_that_raw_inputs_match_is_no_good_news_whatever_the_gate_says() -> None:
    above = conclusions.of_pretraining(DONE)[1]
    assert above.good is True
    matched = conclusions.of_pretraining(replace(DONE, probe={**DONE.probe, "r2_inputs": 0.3}))[1]
    assert matched.good is False
    assert "raw inputs give as much or more (R2 0.300)" in matched.text


def test_a_training_that_ended_on_its_best_epoch_had_not_levelled_off() -> None:
    assert "levelled off" not in texts(conclusions.of_pretraining(DONE))
    assert "levelled off" in texts(conclusions.of_pretraining(replace(DONE, best_epoch=4)))
    # Stopped before its time by patience: its best epoch lies before the last one.
    assert "levelled off" not in texts(conclusions.of_pretraining(replace(DONE, epochs_planned=9, best_epoch=4)))


@pytest.mark.parametrize(
    ("status", "epochs", "command"),
    [
        ("KILLED", 3, "moola pretrain --resume abc"),
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
    assert [step.command for step in conclusions.next_steps("abc", "models:/e/1", p, [], [])] == [command]


def test_next_steps_are_what_the_figures_ask_for() -> None:
    def commands(p: Pretrained, *tunings: Tuned, detectors: tuple[str, ...] = ()) -> list[str]:
        return [step.command for step in conclusions.next_steps("abc", "models:/e/1", p, tunings, detectors)]

    finetune = "mlflow run . -e finetune -P encoder=models:/e/1"
    phase2 = f"{finetune} -P config=configs/phase2.yaml"
    assert commands(DONE) == [finetune, phase2]
    path = "mlflow run . -e pretrain -P config=configs/path.yaml"
    assert commands(replace(DONE, gates=(PROBE,)))[0] == path
    own = {"path": "my bars.parquet", "instrument": "front", "stamp": "start", "sample_bars": 200_000}
    carried = f"{path} -P bars='my bars.parquet' -P bars.instrument=front"
    assert commands(replace(DONE, gates=(PROBE,), bars=own))[0] == carried
    assert commands(Pretrained("FAILED", bars=own)) == [carried.replace(" -P config=configs/path.yaml", "")]
    longer = commands(replace(DONE, gates=(PROBE,), objective="price_path"))[0]
    assert longer.endswith("-P config=configs/path.yaml -P epochs=10")
    sure = tuned((0.1, 0.2), (0.1, 0.2))
    both = (sure, replace(sure, kind="unfrozen", run_id="other"))
    assert commands(DONE, *both) == ["mlflow run . -e compare -P run_ids=id,other"]
    assert commands(DONE, *both, detectors=("models:/d/7",))[0] == "mlflow run . -e promote -P model=d -P version=7"
    assert f"{finetune} -P repeats=5" in commands(DONE, tuned((-0.1, 0.1), (-0.1, 0.1)))
    assert f"{finetune} -P labels=my_labels.parquet" in commands(DONE, replace(sure, weak=True))
    assert any("bars=my_bars.parquet" in command for command in commands(replace(DONE, sample=True), *both))


def test_a_models_name_cannot_leave_its_place_in_a_command() -> None:
    steps = conclusions.next_steps("abc", "models:/e; rm -rf ~/1", DONE, [], [])
    assert steps[0].command == "mlflow run . -e finetune -P encoder='models:/e; rm -rf ~/1'"


def test_phases_are_set_against_each_other_or_it_is_said_why_not() -> None:
    goods = [conclusions.of_phases(Interval(m, m - 0.05, m + 0.05))[0].good for m in (0.1, -0.1, 0.0)]
    assert goods == [True, False, None]
    assert "their folds differ" in conclusions.of_phases("their folds differ")[0].text
    assert conclusions.of_phases(None) == []
