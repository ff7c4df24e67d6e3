"""What a fine-tuning tells people: the console's table, warnings, next step, and its folds as child runs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from prior_settings import encoder_with_heads
from prior_settings import setting as prior_setting
from small_evidence import FOLDS, LABELS, SKILL, evidence

from moola_mlflow.core import FinetuneKeys, GateLimits, make_config
from moola_mlflow.evaluation.bootstrap import Interval
from moola_mlflow.evaluation.evidence import DETECTOR, TITLES, Evidence
from moola_mlflow.evaluation.gates import Gate, detector_gates
from moola_mlflow.evaluation.methods import FinetuneSetting, make_setting
from moola_mlflow.models.calibration import HIGHEST, LOWEST
from moola_mlflow.reports.finetune_results import (
    WEAK_LABELS_TEXT,
    collapse_warning,
    finetune_console_lines,
    finetune_note,
    fold_line,
    fold_run,
    list_doubts,
    next_step,
)


@pytest.fixture(scope="module")
def weighed() -> Evidence:
    return evidence(**SKILL)


def test_the_console_shows_every_method_with_its_interval_every_gate_and_the_headline_last(weighed: Evidence) -> None:
    gates = detector_gates(weighed.gate_figures(False), GateLimits())
    lines = finetune_console_lines(weighed, gates)
    assert lines[0].startswith("Out of fold, 30 windows, 3 folds x 2 repeats x 2 seeds")
    assert all(any(TITLES[name] in line for line in lines) for name in weighed.table)
    assert sum(line.startswith(("  met ", "  MISSED")) for line in lines) == len(gates)
    assert lines[-1] == weighed.headline()
    assert not any("nan" in line for line in lines)


def test_a_class_that_is_hardly_ever_found_is_a_warning_that_names_it(weighed: Evidence) -> None:
    assert collapse_warning(weighed, 0.0) is None
    warning = collapse_warning(weighed, 1.0)
    assert warning is not None
    assert all(f"{name} {weighed.recall()[name].mean:.2f}" in warning for name in LABELS.classes)


def test_a_folds_child_run_has_its_curves_scores_and_sizes(weighed: Evidence) -> None:
    fold, row = FOLDS[4], weighed.fold_scores[4]
    outcome = replace(weighed.outcomes[DETECTOR][4], history=[{"train_loss": 2.0, "held_nll": 3.0}, {"train_loss": 1}])
    child = fold_run(fold, outcome, row)
    assert child["name"] == "seed 5 repeat 2 fold 2"
    assert child["tags"] == {"moola.stage": "fold", "moola.fold": 2, "moola.repeat": 2, "moola.seed": 5}
    assert child["series"] == [{"train/loss": 2.0, "val/nll": 3.0}, {"train/loss": 1}]
    assert child["final"]["test/f1_macro"] == row["f1_macro"]
    assert child["final"]["split/test"] == len(fold.test)
    line = fold_line(fold, row)
    assert line.startswith(f"Fold 2/3: F1={row['f1_macro']:.3f}, Joint@3={row['joint_success_at_3']:.3f}")


def setting(**changed: str) -> FinetuneSetting:
    """A fine-tuning from scratch."""
    return make_setting(
        LABELS, [], make_config(FinetuneKeys, {}, {"encoder.hidden": "4", **changed}), torch.device("cpu"), "fp32"
    )


def doubts(found: Evidence) -> list[str]:
    return list_doubts(setting(), found)


@pytest.mark.parametrize(("edge", "expected"), [(LOWEST, 1), (HIGHEST * 0.9995, 1), (HIGHEST / 2, 0)])
def test_a_temperature_at_the_end_of_its_range_is_a_warning(weighed: Evidence, edge: float, expected: int) -> None:
    first, *rest = weighed.outcomes[DETECTOR]
    found = replace(weighed, outcomes={**weighed.outcomes, DETECTOR: [replace(first, temperature=edge), *rest]})
    texts = [text for text in doubts(found) if "end of its search range" in text]
    assert [text.startswith(f"The temperature of 1 of {len(rest) + 1} folds") for text in texts] == [True] * expected


def test_fewer_than_twenty_groups_are_a_warning(weighed: Evidence) -> None:
    assert doubts(weighed) == []
    assert "Only 19 groups of windows do not overlap" in doubts(replace(weighed, num_groups=19))[0]


def note(found: Evidence, gates: list[Gate], *warnings: str, **changed: str) -> str:
    return finetune_note(setting(**changed), found, gates, "models:/d/3", warnings)


def test_the_note_begins_with_the_headline_and_ends_with_what_to_do(weighed: Evidence) -> None:
    gates = detector_gates(weighed.gate_figures(False), GateLimits())
    text = note(weighed, gates, "look out")
    assert text.startswith(f"**{weighed.headline()}**\n\nF1 {weighed.detector['f1_macro'].mean:.3f} [")
    assert text.rstrip().endswith(next_step(weighed, gates, "models:/d/3", setting().config))
    assert "30 windows (" in text
    assert "3 folds x 2 repeats x 2 seeds, purged." in text
    assert f"{WEAK_LABELS_TEXT}\n\nWarning: look out\n\n" in text
    assert WEAK_LABELS_TEXT not in note(replace(weighed, labels=replace(LABELS, weak=False)), gates)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows[2:]] == [f"| {weighed.title(name)}" for name in weighed.table]


@pytest.mark.parametrize("worse", [True, False])
def test_that_temperature_made_it_worse_is_said_in_the_note_and_on_the_console(weighed: Evidence, worse: bool) -> None:
    after = weighed.detector["ece"].mean
    found = replace(weighed, ece_before=after - 0.01 if worse else after + 0.01)
    before = f"{found.ece_before:.3f}"
    end = ", so temperature made it worse" if worse else ""
    assert f"ECE {after:.3f} out of fold ({before} before temperature{end})." in note(found, [GOOD])
    (line,) = (line for line in finetune_console_lines(found, [GOOD]) if "ECE" in line)
    assert f"after temperature {found.temperature():.2f}{end}; a perfectly" in line


def test_after_a_quick_comparison_a_warning_and_the_next_step_ask_for_all_baselines(weighed: Evidence) -> None:
    quick, gain = replace(weighed, left_out=("scratch",)), Gate("delta_joint_success_at_3_lo", math.nan, 0.0, ">")
    (warning,) = (text for text in list_doubts(setting(), quick) if "quick" in text)
    assert "left out scratch" in warning
    assert "cv.baselines=all" in warning
    assert "cv.baselines=all" in next_step(quick, [GOOD, gain], "models:/d/3", setting().config)
    assert not any("quick" in text for text in list_doubts(setting(), weighed))


@pytest.mark.parametrize(("lo", "expected"), [(-0.01, True), (0.01, False)])
def test_a_prior_reader_without_a_sure_gain_over_path_features_is_told_of_the_averaged_one(
    weighed: Evidence, lo: float, expected: bool
) -> None:
    gain = {"joint_success_at_3": Interval(0.02, lo, 0.09), "f1_macro": Interval(0.02, -0.1, 0.1)}
    found = replace(weighed, differences={**weighed.differences, "path_features": gain})
    said = [text for text in list_doubts(prior_setting([encoder_with_heads()]), found) if "averaged" in text]
    assert bool(said) == expected
    assert not any("averaged" in text for text in list_doubts(setting(), found))


def test_the_command_that_promotes_carries_the_project_and_the_limits_of_the_run(weighed: Evidence) -> None:
    text = note(weighed, [GOOD], **{"project.name": "nq", "gates.recall": "0.2"})
    assert "Next: `mlflow run . -e promote -P model=d -P version=3 -P project=nq -P gates.recall=0.2`" in text


def test_names_in_the_note_stay_text(weighed: Evidence) -> None:
    named = replace(LABELS, classes=("<b>", "*b*"), path="`l` <i>.parquet")
    text = note(replace(weighed, labels=named), [GOOD], "<u>", **{"finetune.encoder": "models:/<e>`/1"})
    assert "&lt;b&gt;, 15 \\*b\\*" in text
    assert "Warning: &lt;u&gt;" in text
    assert "`` `l` <i>.parquet ``" in text
    assert "`` models:/<e>`/1 ``" in text


GOOD = Gate("f1_macro", 0.7, 0.6, ">=")


@pytest.mark.parametrize(
    ("missed", "uri", "said"),
    [
        ((), "models:/d/3", "Next: `mlflow run . -e promote -P model=d -P version=3`"),
        ((), "runs:/x/detector", "-P register=moola-detector"),
        (("ece",), "models:/d/3", "label more windows (a perfectly calibrated detector averages"),
        (("recall/up",), "models:/d/3", "before it can be promoted: label more of that class"),
        (("delta_joint_success_at_3_lo",), "models:/d/3", "use none (`-P finetune.inputs=price_path`)"),
        (("identity", "f1_macro"), "models:/d/3", "configs/rules.yaml); label more windows, or compare"),
    ],
)
def test_promotion_is_offered_where_every_gate_is_met(
    weighed: Evidence, missed: tuple[str, ...], uri: str, said: str
) -> None:
    gates = [GOOD, *(Gate(name, 0.0, 1.0, ">=") for name in missed)]
    text = next_step(weighed, gates, uri, setting().config)
    assert said in text
    assert ("-e promote" in text) == (not missed and uri.startswith("models:/"))
