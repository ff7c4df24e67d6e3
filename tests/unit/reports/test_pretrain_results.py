"""What a pre-training leaves for people: its scores, its note and the next command."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

import pytest

from moola_mlflow.core import PretrainKeys, make_config
from moola_mlflow.evaluation.gates import Gate
from moola_mlflow.evaluation.probing import ProbeScores
from moola_mlflow.reports.pretrain_results import Results, pretrain_note

MET = Gate("probe_r2_gain", 0.2, 0.067, ">")
MISSED = Gate("probe_r2_gain", 0.01, 0.067, ">")


def results(**changed: Any) -> Results:
    """Scores of a run of one epoch; two underscores in a key of the configuration are a dot."""
    keys = {key: changed.pop(key) for key in list(changed) if "__" in key}
    config = make_config(PretrainKeys, {}, {key.replace("__", "."): value for key, value in keys.items()})
    scores = {"loss": 0.1, "huber": 0.1, "mae": 0.1, "skill": 0.3, "skill_state": 0.25, "mae_range": 0.02}
    found = Results(
        config, [{"train/loss": 0.2, "train/mae": 0.2, "val/loss": 0.1, "val/mae": 0.1}], 0, scores, scores,
        {"test": {"mean": 0.2}}, 0.0, (), (), ProbeScores(0.3, 0.1, 0.2, 0.1),
        few_shot={}, identity=False, hides=True, seconds=1.0,
    )  # fmt: skip
    return replace(found, **changed)


def next_words(gate: Gate, uri: str = "models:/e/3", **given: object) -> list[str]:
    """Return the command that a note ends with, as a shell reads it."""
    last = pretrain_note(results(**given), "a preset", uri, [gate]).strip().splitlines()[-1]
    assert last.startswith("Next")
    return shlex.split(last.split("`")[1])


def test_an_encoder_that_meets_its_gates_is_fine_tuned() -> None:
    assert next_words(MET) == ["mlflow", "run", ".", "-e", "finetune", "-P", "encoder=models:/e/3"]
    assert next_words(MET, "models:/my encoder/3")[-1] == "encoder=models:/my encoder/3"


def test_one_that_misses_them_is_trained_on_the_same_bars_on_rules() -> None:
    bars = {"bars__path": "my bars; rm -rf ~.parquet", "bars__instrument": "front", "bars__timezone": "Europe/Berlin"}
    assert next_words(MISSED, **bars, bars__stamp="end", bars__repair="refuse") == [
        *("mlflow", "run", ".", "-e", "pretrain", "-P", "config=configs/rules.yaml"),
        *("-P", "bars=my bars; rm -rf ~.parquet", "-P", "bars.instrument=front"),
        *("-P", "bars.timezone=Europe/Berlin", "-P", "bars.stamp=end"),
    ]
    assert next_words(MISSED)[-1] == "config=configs/rules.yaml"


@pytest.mark.parametrize("bars", ["sample", "mine.parquet"])
def test_one_trained_on_rules_that_misses_them_is_trained_for_longer(bars: str) -> None:
    words = next_words(MISSED, objective__name="rules", trainer__steps=4000, bars__path=bars)
    assert "trainer.steps=8000" in words
    assert ("bars=mine.parquet" in words) == (bars != "sample")
    words = next_words(MISSED, objective__name="rules", trainer__epochs=24)
    assert {"trainer.steps=none", "epochs=48"} <= set(words)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (
            {"identity": True},
            "copying, not understanding. Published levels: validation loss 0.1000 WARNING, MAE 0.1",
        ),
        ({"hides": True, "leak": 0.0}, "Hidden input does not reach the encoder (leak 0)."),
        ({"hides": False}, "Nothing is hidden from the encoder."),
    ],
)
def test_the_note_says_what_the_scores_measure(kind: dict[str, Any], said: str) -> None:
    note = pretrain_note(results(**kind), "a preset", "models:/e/3", [MET])
    assert said in note
    assert ("WARNING" in note) == ("identity" in kind)


def test_the_note_gives_the_result_first_and_names_every_missed_gate() -> None:
    note = pretrain_note(results(groups=("state",)), "`p` <b>", "models:/e/3", [MET, MISSED])
    assert note.startswith(
        "**Test:** loss 0.1000, Huber 0.1000, MAE 0.1000, skill 0.300, probe gain +0.200 (skill of state 0.250) at "
        "epoch 1 of 1.\n\n"
    )
    assert "Probe: R2 0.300, random network 0.100, raw inputs 0.200." in note
    assert "**Gates missed:**\n\n- probe_r2_gain 0.01 <= 0.067 (by " in note
    assert "Preset `` `p` <b> ``," in note
    assert "**Gates:** passed." in pretrain_note(results(), "p", "models:/e/3", [MET])


def test_what_is_tracked_and_published_are_the_scores_of_the_best_epoch() -> None:
    found = results(groups=("state",), targets=("range",))
    metrics = found.metrics()
    assert {key: metrics[key] for key in ("best_val_loss", "test/huber", "test/skill_state", "test/mae_range")} == {
        "best_val_loss": 0.1, "test/huber": 0.1, "test/skill_state": 0.25, "test/mae_range": 0.02,
    }  # fmt: skip
    published = found.published()
    assert published["val_metrics"] == {"val_loss": 0.1, "val_mae": 0.1}
    assert published["train_metrics"] == {"train_loss": 0.2, "train_mae": 0.2}
    assert published["test_metrics"]["val_skill_state"] == 0.25
    assert found.skills() == {
        "skill": {part: {"skill": 0.3, "state": 0.25} for part in ("val", "test")},
        "baseline_huber": {"test": {"mean": 0.2}},
    }
