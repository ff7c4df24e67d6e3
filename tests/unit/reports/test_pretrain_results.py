"""The note of a pre-training: which command it names next."""

from __future__ import annotations

import shlex

import pytest

from moola_mlflow.core import resolve
from moola_mlflow.evaluation.gates import Gate
from moola_mlflow.evaluation.probing import ProbeScores
from moola_mlflow.reports.pretrain_results import Results, pretrain_note

MET = Gate("probe_r2_gain", 0.2, 0.067, ">")
MISSED = Gate("probe_r2_gain", 0.01, 0.067, ">")


def next_words(gate: Gate, uri: str = "models:/e/3", **given: object) -> list[str]:
    """Return the command that a note ends with, as a shell reads it."""
    config = resolve({}, {key.replace("__", "."): value for key, value in given.items()})
    scores = {"loss": 0.1, "huber": 0.1, "mae": 0.1, "skill": 0.3}
    results = Results(
        config, [{"val/loss": 0.1, "val/mae": 0.1}], 0, scores, scores, {}, 0.0, (), (),
        ProbeScores(0.3, 0.1, 0.2, 0.1), identity=False, hides=True, seconds=1.0,
    )  # fmt: skip
    last = pretrain_note(results, "a preset", uri, [gate]).strip().splitlines()[-1]
    assert last.startswith("Next")
    return shlex.split(last.split("`")[1])


def test_an_encoder_that_meets_its_gates_is_fine_tuned() -> None:
    assert next_words(MET) == ["mlflow", "run", ".", "-e", "finetune", "-P", "encoder=models:/e/3"]
    assert next_words(MET, "models:/my encoder/3")[-1] == "encoder=models:/my encoder/3"


def test_one_that_misses_them_is_trained_on_the_same_bars_with_the_path_objective() -> None:
    bars = {"bars__path": "my bars; rm -rf ~.parquet", "bars__instrument": "front", "bars__timezone": "Europe/Berlin"}
    assert next_words(MISSED, **bars, bars__stamp="end", bars__repair="refuse") == [
        *("mlflow", "run", ".", "-e", "pretrain", "-P", "config=configs/path.yaml"),
        *("-P", "bars=my bars; rm -rf ~.parquet", "-P", "bars.instrument=front"),
        *("-P", "bars.timezone=Europe/Berlin", "-P", "bars.stamp=end"),
    ]
    assert next_words(MISSED)[-1] == "config=configs/path.yaml"


@pytest.mark.parametrize("bars", ["sample", "mine.parquet"])
def test_a_path_objective_that_misses_them_is_not_trained_the_same_way_again(bars: str) -> None:
    words = next_words(MISSED, objective__name="path", trainer__epochs=24, bars__path=bars)
    assert "epochs=48" in words
    assert ("bars=mine.parquet" in words) == (bars != "sample")
