"""The next commands follow from the figures that are there and from those that are missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from run_figures import DONE, MISSED_PROBE, tuned

from moola_mlflow.reports.run_report.facts import Pretrained, Tuned
from moola_mlflow.reports.run_report.next_steps import next_steps


def test_next_steps_are_what_the_figures_ask_for() -> None:
    def commands(p: Pretrained, *tunings: Tuned, detectors: Mapping[str, Any] = MappingProxyType({})) -> list[str]:
        return [step.command for step in next_steps("abc", "models:/e/1", p, tunings, detectors)]

    finetune = "mlflow run . -e finetune -P encoder=models:/e/1"
    phase2 = f"{finetune} -P config=configs/phase2.yaml"
    assert commands(DONE) == [finetune, phase2]
    rules = "mlflow run . -e pretrain -P config=configs/rules.yaml"
    assert commands(replace(DONE, gates=(MISSED_PROBE,)))[0] == rules
    own = {"path": "my bars.parquet", "instrument": "front", "stamp": "start", "sample_bars": 200_000}
    carried = f"{rules} -P bars='my bars.parquet' -P bars.instrument=front"
    assert commands(replace(DONE, gates=(MISSED_PROBE,), config={"bars": own}))[0] == carried
    assert commands(Pretrained("FAILED", config={"bars": own})) == [
        carried.replace(" -P config=configs/rules.yaml", "")
    ]
    assert commands(replace(DONE, gates=(MISSED_PROBE,), objective="price_path"))[0] == rules
    few = replace(MISSED_PROBE, name="few_shot_gain")
    longer = commands(replace(DONE, gates=(few,), objective="rules"))[0]
    assert longer.endswith("-P config=configs/rules.yaml -P trainer.steps=none -P epochs=10")
    sure = tuned((0.1, 0.2), (0.1, 0.2))
    both = (sure, replace(sure, kind="unfrozen", run_id="other"))
    assert commands(DONE, *both) == ["mlflow run . -e compare -P run_ids=id,other"]
    assert commands(DONE, *both, detectors={"models:/d/7": {}})[0] == "mlflow run . -e promote -P model=d -P version=7"
    assert f"{finetune} -P repeats=5" in commands(DONE, tuned((-0.1, 0.1), (-0.1, 0.1)))
    assert f"{finetune} -P labels=my_labels.parquet" in commands(DONE, replace(sure, weak=True))
    assert any("bars=my_bars.parquet" in command for command in commands(replace(DONE, sample=True), *both))


def test_a_models_name_cannot_leave_its_place_in_a_command() -> None:
    steps = next_steps("abc", "models:/e; rm -rf ~/1", DONE, [], {})
    assert steps[0].command == "mlflow run . -e finetune -P encoder='models:/e; rm -rf ~/1'"


def test_next_steps_carry_labels_project_and_keys_of_the_fine_tuning_that_they_repeat() -> None:
    config = {
        "project": {"name": "nq"},
        "labels": {"path": "mine.parquet", "duplicates": "newest"},
        "trainer": {"epochs": 7, "seed": 17},
        "encoder": {"hidden": 64},
        "registry": {"name": "nq-detector"},
        "finetune": {"freeze": True, "encoder": "models:/nq-encoder/1"},
    }
    unsure = tuned((-0.1, 0.1), (-0.1, 0.1), config=config)
    commands = [step.command for step in next_steps("abc", "models:/nq-encoder/1", DONE, [unsure], {})]
    start = "mlflow run . -e finetune -P encoder=models:/nq-encoder/1"
    kept = "-P project=nq"
    assert (
        f"{start} -P config=configs/phase2.yaml -P labels=mine.parquet -P labels.duplicates=newest {kept}" in commands
    )
    again = next(command for command in commands if command.endswith("-P repeats=5"))
    words = set(again.removeprefix(start).split(" -P ")[1:])
    assert words == {
        *("labels=mine.parquet", "labels.duplicates=newest", "project=nq", "epochs=7", "encoder.hidden=64"), "repeats=5"
    }  # fmt: skip
