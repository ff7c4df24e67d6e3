"""Commands of notes carry the keys that the next run would not have by itself, and no others."""

from __future__ import annotations

import shlex
from pathlib import Path

from moola_mlflow.cli.parser import parse
from moola_mlflow.core import PretrainKeys, find_preset, make_config, read_preset
from moola_mlflow.reports.next_commands import (
    RECOMMENDED,
    better_encoder_command,
    carried,
    finetune_command,
    launcher_command,
    promote_command,
)


def pretrained(preset: str = "", **keys: str) -> dict:
    """The configuration of a run; two underscores are a dot."""
    given = {key.replace("__", "."): value for key, value in keys.items()}
    return make_config(PretrainKeys, read_preset(find_preset(preset)) if preset else {}, given).model_dump(mode="json")


def test_a_run_with_its_presets_values_carries_nothing() -> None:
    assert better_encoder_command(pretrained("configs/stones.yaml"), {}) == (
        "mlflow run . -e pretrain -P config=configs/rules.yaml"
    )
    assert carried({}, PretrainKeys, ("bars", "windows"), RECOMMENDED) == {}


def test_windows_split_project_and_name_are_carried_and_another_objectives_network_is_not() -> None:
    config = pretrained(
        "configs/stones.yaml", windows__stride="7", split__train="0.7", project__name="nq", registry__name="nq-encoder",
        encoder__hidden="64",
    )  # fmt: skip
    assert better_encoder_command(config, {}) == (
        "mlflow run . -e pretrain -P config=configs/rules.yaml -P windows.stride=7 -P split.train=0.7 -P project=nq"
    )
    config["registry"]["name"] = "mine"
    assert better_encoder_command(config, {}).endswith("-P register=mine")


def test_a_run_on_rules_keeps_its_network_and_the_command_makes_the_same_configuration() -> None:
    config = pretrained(
        RECOMMENDED, encoder__hidden="64", windows__weights="{ES: 2}", trainer__seed="3", runtime__threads="2"
    )
    command = better_encoder_command(config, {"trainer.steps": 8000})
    assert {"encoder.hidden=64", "seed=3", "trainer.steps=8000"} <= set(shlex.split(command))
    words = [f"--{word}" for word in shlex.split(command)[5:] if word != "-P"]
    again = parse("pretrain", words).config.model_dump(mode="json")
    config["trainer"]["steps"] = 8000
    for section in ("encoder", "windows", "trainer", "objective", "bars"):
        assert again[section] == config[section]


def test_fine_tuning_an_encoder_keeps_its_project_alone() -> None:
    config = pretrained(RECOMMENDED, project__name="nq", windows__stride="7")
    assert finetune_command("models:/nq-encoder/1", config) == (
        "mlflow run . -e finetune -P encoder=models:/nq-encoder/1 -P project=nq"
    )


def test_a_promotion_has_the_limits_that_the_run_was_judged_by() -> None:
    config = {"project": {"name": "nq"}, "gates": {"recall": 0.2, "f1_macro": 0.6, "mode": "warn"}}
    assert promote_command("models:/nq-detector/3", config) == (
        "mlflow run . -e promote -P model=nq-detector -P version=3 -P project=nq -P gates.recall=0.2"
    )


def test_values_are_quoted_and_written_as_the_command_line_reads_them() -> None:
    command = launcher_command("pretrain", {"a": None, "b": True, "c": [1, 2], "d": "x y; rm"})
    assert command == "mlflow run . -e pretrain -P a=none -P b=true -P c=1,2 -P d='x y; rm'"


def test_in_a_folder_without_the_presets_commands_are_written_all_the_same(workdir: Path) -> None:
    assert better_encoder_command(pretrained(windows__stride="7"), {}).endswith("-P windows.stride=7")
