"""From words to a command's configuration: precedence, and messages that name key, value, what is allowed, the cure."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from paths import ROOT

from moola_mlflow.cli.entry_points import ENTRY_POINTS, SHORT
from moola_mlflow.cli.parser import configurations_of, parse
from moola_mlflow.core import (
    COMMANDS,
    FinetuneSweepKeys,
    PretrainKeys,
    PretrainSweepKeys,
    UserError,
    dotted_keys,
    every_key,
)


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_a_short_parameter_beats_a_dotted_key_which_beats_the_preset() -> None:
    base = ["--config", "configs/jade10.yaml"]
    assert parse("pretrain", base)[0].trainer.epochs == 50
    assert parse("pretrain", [*base, "--trainer.epochs", "7"])[0].trainer.epochs == 7
    for words in (["--epochs", "3", "--trainer.epochs", "7"], ["--trainer.epochs", "7", "--epochs", "3"]):
        assert parse("pretrain", [*base, *words])[0].trainer.epochs == 3


def test_an_empty_value_is_unset() -> None:
    config, preset, _ = parse("pretrain", ["--epochs", "", "--config", "configs/jade10.yaml", "--bars", ""])
    assert (config.trainer.epochs, config.bars.path, preset) == (50, "sample", "jade10")


def test_negative_numbers_equals_signs_and_dashes_are_read_as_meant() -> None:
    config = parse("pretrain", ["--objective.log_sigma_min", "-2", "--batch-size=16"])[0]
    assert (config.objective.log_sigma_min, config.trainer.batch_size) == (-2.0, 16)


def test_the_mask_ratio_of_the_command_line_follows_its_strategy() -> None:
    assert parse("pretrain", ["--objective.mask_strategy", "patch"])[0].objective.mask_ratio == 0.4
    assert parse("pretrain", [])[0].objective.mask_ratio == 0.15


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--ecnoder.hidden", "64"],
            r"unknown parameter 'ecnoder.hidden' \(value '64'\); did you mean 'encoder.hidden'\?",
        ),
        (["--epoch", "3"], r"unknown parameter 'epoch'.*did you mean 'epochs'"),
        (["--epochs", "-1"], r"trainer.epochs='-1'.*allowed: int >= 1"),
        (["--epochs", "many"], r"trainer.epochs='many'.*valid integer"),
        (["--epochs", "2.5"], r"trainer.epochs='2.5'"),
        (["--lr", "nan"], r"optimizer.lr='nan'.*finite"),
        (["--objective.mask_ratio", "1.5"], r"objective.mask_ratio='1.5'.*allowed: float or none > 0 < 1"),
        (["--objective.mask_strategy", "blocks"], r"objective.mask_strategy='blocks'.*allowed: random \| patch"),
        (
            ["--objective.mask_strategy", "patch", "--objective.mask_patch", "40"],
            r"mask_patch=40 is more than the 34 steps",
        ),
        (["--windows.stride", "99999999999999999999"], r"windows.stride=.*allowed: int >= 1"),
        (["--register", "a/b"], r"registry.name='a/b'.*allowed: text that matches"),
        (["--windows.warmup", "105"], r"windows: warmup 105 leaves no valid step in a window of 105"),
        (["--split.train_end", "2024-12-31"], r"split: train_end, val_end and test_end come together"),
        (["--resume", "yes"], r"tracking.resume='yes'.*allowed: text that matches"),
        (["--config", "configs/stone.yaml"], r"no file 'configs/stone.yaml'; did you mean 'configs/stones.yaml'\?"),
        (["--epochs"], r"'--epochs' has no value"),
        (["--epochs", "--lr", "1"], r"'--epochs' has no value"),
        (["epochs=3"], r"'epochs=3' is not a parameter; write --key value"),
    ],
)
def test_a_bad_argument_is_refused_by_name(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse("pretrain", words)


# Keys of other commands


@pytest.mark.parametrize(
    ("command", "word", "message"),
    [
        ("label", "optimizer.lr=1e-3", "label does not read optimizer.lr=1e-3, a key of pretrain, finetune and sweep"),
        ("label", "trainer.epochs=3", "a key of main, pretrain, finetune and sweep; did you mean 'trainer.seed'?"),
        ("detect", "epochs=3", "detect does not read epochs=3, a key of pretrain and finetune"),
        ("report", "tracking.resume=auto", "a key of pretrain; did you mean 'tracking.experiment'?"),
        ("sync", "tracking.experiment=x", "sync does not read tracking.experiment=x, a key of main, data, features"),
        (
            "finetune",
            "windows.stride=7",
            "does not read windows.stride=7, a key of features, pretrain and sweep",
        ),
        ("finetune", "schedule.warmup_epochs=2.5", "a key of pretrain and sweep"),
        (
            "promote",
            "bars.path=x",
            "a key of data, features, rules, label, labels, annotate, pretrain, finetune, sweep, detect and evaluate",
        ),
        ("finetune", "tracking.resume=auto", "a key of pretrain"),
        ("finetune", "runtime.shards=2", "a key of pretrain and sweep"),
        ("finetune", "sweep.n_trials=3", "a key of sweep"),
        ("pretrain", "gates.f1_macro=0.5", "a key of finetune, sweep, promote, detect and evaluate"),
        ("promote", "gates.mode=strict", "a key of pretrain, finetune and sweep"),
        (
            "sweep",
            "finetune.head=pooled",
            "finetune.head=pooled, a key of a sweep of finetune (sweep.stage=finetune)",
        ),
        (
            "sweep",
            "labels=l.parquet",
            "labels.path=l.parquet, a key of a sweep of finetune (sweep.stage=finetune)",
        ),
        ("sweep", "tracking.resume=auto", "sweep does not read tracking.resume=auto, a key of pretrain"),
    ],
)
def test_a_key_of_another_command_is_refused_with_the_commands_that_read_it(
    command: str, word: str, message: str
) -> None:
    with pytest.raises(UserError) as refused:
        parse(command, [f"--{word}"])
    assert message in str(refused.value)
    assert str(refused.value).endswith(f"Every key of this command: moola {command} --help")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("command", ENTRY_POINTS)
def test_a_command_takes_its_own_keys_and_no_other(command: str) -> None:
    own = {key for keys in configurations_of(command) for key in dotted_keys(keys)}
    for key in every_key():
        if key in own:
            continue
        with pytest.raises(UserError, match=f"{command} does not read {key}=1, a key of "):
            parse(command, [f"--{key}", "1"])
    assert {SHORT[key] for key in ENTRY_POINTS[command].parameters if key in SHORT} <= own


def test_a_preset_may_hold_keys_of_several_commands(tmp_path: Path) -> None:
    preset = tmp_path / "all.yaml"
    preset.write_text("trainer: {epochs: 3, seed: 5}\nlabels: {n: 60}\ngates: {skill: 0.2, ece: 0.3}\n")
    assert parse("finetune", ["--config", str(preset)]).config.labels.n == 60
    assert parse("label", ["--config", str(preset)]).config.flat()["trainer.seed"] == 5
    assert parse("finetune", ["--config", str(preset)]).config.gates.ece == 0.3
    assert parse("pretrain", ["--config", str(preset)]).config.gates.skill == 0.2
    preset.write_text("split: {train: 2}\n")
    assert parse("label", ["--config", str(preset)]).preset == "all"
    with pytest.raises(UserError, match=r"split.train=2: .*less than 1"):  # which pretrain reads
        parse("pretrain", ["--config", str(preset)])


def test_a_key_that_no_command_knows_is_refused_in_a_preset_too(tmp_path: Path) -> None:
    preset = tmp_path / "wrong.yaml"
    preset.write_text("objective: {mask_ration: 0.2}\n")
    with pytest.raises(UserError, match=r"unknown key 'objective.mask_ration' .*did you mean 'objective.mask_ratio'"):
        parse("label", ["--config", str(preset)])


def test_a_configuration_with_the_keys_of_every_command_is_a_preset_of_each(tmp_path: Path) -> None:
    """A run's config.yaml held the whole tree up to version 0.1."""
    whole = tmp_path / "config.yaml"
    tree: dict[str, dict[str, object]] = {}
    for keys in COMMANDS.values():
        for section, values in keys().model_dump(mode="json").items():
            tree[section] = {**tree.get(section, {}), **values}
    tree["optimizer"]["lr"] = 0.002
    whole.write_text(yaml.safe_dump(tree))
    config = parse("pretrain", ["--config", str(whole)]).config
    assert isinstance(config, PretrainKeys)
    assert config == PretrainKeys.model_validate({"optimizer": {"lr": 0.002}})
    assert parse("finetune", ["--config", str(whole)]).config.optimizer.lr == 0.002
    assert parse("detect", ["--config", str(whole)]).config == COMMANDS["detect"]()


def test_a_sweep_reads_the_keys_of_the_command_that_its_trials_run() -> None:
    assert isinstance(parse("sweep", []).config, PretrainSweepKeys)
    finetune = ["--config", "configs/sweep_finetune.yaml", "--base", "configs/finetune.yaml"]
    config, preset, arguments = parse("sweep", [*finetune, "--finetune.head", "pooled", "--labels", "l.parquet"])
    assert isinstance(config, FinetuneSweepKeys)
    assert (config.finetune.head, config.labels.path, preset) == ("pooled", "l.parquet", "finetune")
    assert arguments == {"base": "configs/finetune.yaml"}
    assert isinstance(parse("sweep", ["--sweep.stage", "finetune"]).config, FinetuneSweepKeys)
    with pytest.raises(UserError, match=r"sweep.stage='label'.*allowed: pretrain \| finetune"):
        parse("sweep", ["--sweep.stage", "label"])


def test_a_key_has_one_value_under_both_of_its_spellings() -> None:
    assert parse("label", ["--label.rule", "strict-0-12"]).config.labels.rule == "strict-0-12"


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("pretrain", {"registry.name": "nq-encoder", "tracking.experiment": "nq"}),
        ("finetune", {"registry.name": "nq-detector", "tracking.experiment": "nq"}),
        ("detect", {"detect.detector": "models:/nq-detector@champion", "tracking.experiment": "nq"}),
        ("label", {"tracking.experiment": "nq"}),
    ],
)
def test_a_project_names_what_is_not_named_otherwise(
    monkeypatch: pytest.MonkeyPatch, command: str, names: dict[str, str]
) -> None:
    for key in ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(key, raising=False)
    flat = parse(command, ["--project", "nq"]).config.flat()
    assert {key: flat[key] for key in names} == names
    plain = parse(command, []).config.flat()
    assert {key: plain[key].replace("moola", "nq") for key in names} == names
    for key in names:
        assert parse(command, ["--project", "nq", f"--{key}", "mine"]).config.flat()[key] == "mine"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of the team")
    assert parse(command, ["--project", "nq"]).config.tracking.experiment == "of the team"
    assert parse(command, ["--tracking.experiment", "mine"]).config.tracking.experiment == "mine"


def test_a_project_names_the_model_that_promote_reads_and_the_tour_has_a_project_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for key in ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(key, raising=False)
    assert parse("promote", ["--project", "nq"]).arguments["model"] == "nq-detector"
    assert parse("promote", ["--project", "nq", "--model", "other"]).arguments["model"] == "other"
    assert "model" not in parse("promote", []).arguments
    tour = parse("main", []).config
    assert (tour.project.name, tour.tracking.experiment) == ("demo", "demo")
    assert parse("main", ["--project", "nq"]).config.project.name == "nq"


def test_a_run_is_read_back_with_the_names_it_was_begun_with(tmp_path: Path) -> None:
    config = parse("pretrain", ["--project", "nq", "--register", "mine"]).config
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert parse("pretrain", ["--config", str(tmp_path / "config.yaml")]).config == config


def test_a_project_that_could_be_no_name_is_refused() -> None:
    with pytest.raises(UserError, match=r"project\.name='a/b'"):
        parse("pretrain", ["--project", "a/b"])
