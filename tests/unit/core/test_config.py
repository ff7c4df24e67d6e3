"""Configuration: presets, precedence, and messages that name the key, the value, what is allowed and the cure."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from paths import ROOT

from moola_mlflow.cli.entry_points import SHORT
from moola_mlflow.core import COMMANDS, PretrainKeys, dotted_keys, every_key, make_config, read_preset, sections_of
from moola_mlflow.core.errors import UserError

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_resolves_and_reads_back_the_same(path: Path) -> None:
    preset = read_preset(path)
    for keys in COMMANDS.values():
        config = make_config(keys, preset, {})
        assert make_config(keys, yaml.safe_load(config.to_yaml()), {}) == config
    read = {key for keys in COMMANDS.values() for key in dotted_keys(keys)}
    assert {f"{section}.{key}" for section, given in preset.items() for key in given} <= read


@pytest.mark.parametrize(
    ("key", "old", "new"),
    [
        ("objective.name", "path", "price_path"),
        ("objective.name", "path+0.5*masked", "price_path+0.5*masked"),
        ("objective.name", "2*masked + 0.5*path", "2*masked + 0.5*price_path"),
        ("objective.name", "price_path", "price_path"),
        ("objective.name", "my_path", "my_path"),  # an objective of the user's own
        ("finetune.inputs", "path", "price_path"),
    ],
)
def test_the_name_of_the_price_path_in_earlier_versions_is_accepted(key: str, old: str, new: str) -> None:
    section, name = key.split(".")
    keys = COMMANDS["finetune" if section == "finetune" else "pretrain"]
    given, saved = make_config(keys, {}, {key: old}), make_config(keys, {section: {name: old}}, {})
    assert given.flat()[key] == saved.flat()[key] == new
    assert given.sha256() == saved.sha256() == make_config(keys, {}, {key: new}).sha256()


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("encoding+price_path", "both"),
        ("features+encoding", "encoding+features"),
        ("encoding + path + features", "both+features"),
        ("both+features", "both+features"),
        ("features+path", "price_path+features"),
    ],
)
def test_the_parts_of_a_heads_inputs_may_be_in_any_order(given: str, read: str) -> None:
    keys = COMMANDS["finetune"]
    assert make_config(keys, {}, {"finetune.inputs": given}).flat()["finetune.inputs"] == read


@pytest.mark.parametrize("given", ["features", "auto+features", "encoding+spam", "+", ""])
def test_other_inputs_of_a_head_are_refused(given: str) -> None:
    with pytest.raises(UserError, match=r"finetune\.inputs"):
        make_config(COMMANDS["finetune"], {"finetune": {"inputs": given}}, {})


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("stones", {"features.set": "relativity11", "encoder.hidden": 128, "encoder.dropout": 0.65,
                    "trainer.epochs": 20, "trainer.batch_size": 64, "objective.uncertainty": True,
                    "objective.hide_masked": True, "objective.log_sigma_min": -3.0}),
        ("jade10", {"features.set": "relativity10", "encoder.hidden": 128, "encoder.dropout": 0.2, "trainer.epochs": 50,
                    "trainer.batch_size": 1024, "objective.uncertainty": False}),
        ("published", {"features.set": "relativity11", "encoder.dropout": 0.65, "objective.hide_masked": False,
                       "objective.units": "raw", "objective.log_sigma_min": -6.0, "objective.uncertainty": True}),
        ("smoke", {"encoder.hidden": 16, "encoder.dropout": 0.1, "trainer.epochs": 2, "trainer.batch_size": 32}),
    ],
)  # fmt: skip
def test_presets_hold_the_specified_values(preset: str, expected: dict[str, object]) -> None:
    flat = make_config(PretrainKeys, read_preset(f"configs/{preset}.yaml"), {}).flat()
    common = {"objective.jitter_sigma": 0.03, "objective.mask_ratio": 0.15, "optimizer.lr": 1e-3, "trainer.seed": 17,
              "optimizer.weight_decay": 1e-2, "schedule.warmup_epochs": 5, "trainer.patience": 10}  # fmt: skip
    assert {key: flat[key] for key in expected | common} == expected | common


def test_yaml_reads_1e_4_as_text_and_the_typed_config_makes_it_a_number(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("optimizer: {lr: 1e-4}\n")
    assert read_preset(path)["optimizer"]["lr"] == "1e-4"
    assert make_config(PretrainKeys, read_preset(path), {}).optimizer.lr == pytest.approx(1e-4)


def test_the_mask_ratio_follows_the_strategy_unless_it_is_given() -> None:
    assert make_config(PretrainKeys, {}, {"objective.mask_strategy": "patch"}).objective.mask_ratio == 0.4
    assert (
        make_config(
            PretrainKeys, {}, {"objective.mask_strategy": "patch", "objective.mask_ratio": "0.2"}
        ).objective.mask_ratio
        == 0.2
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainer: {epochs: [", "is not YAML"),
        ("just words", "must map sections to keys"),
        ("trainer: 5", "must map sections to keys"),
        ("- 1\n- 2", "must map sections to keys"),
        ("\x00\x01", "is not YAML"),
        ("trainer: {epoch: 5}", "did you mean 'trainer.epochs'"),
        ("trainer: {epochs: {a: 1}}", "trainer.epochs"),
        ("split: {train_end: 2024-13-45}", "is not YAML"),
        ("trainer: [1, 2]", "section 'trainer' holds none"),
        ("!!python/object/apply:os.system ['true']", "is not YAML"),
        ("1: {2: 3}", "unknown key '1.2'"),
    ],
)
def test_a_bad_preset_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        make_config(PretrainKeys, read_preset(path), {})


def test_a_preset_in_bytes_that_are_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"PAR1\xff\xfe\x00")
    with pytest.raises(UserError, match="is not YAML"):
        read_preset(path)


def test_every_key_says_what_it_means_and_every_short_parameter_stands_for_one() -> None:
    assert [key for key, field in every_key().items() if not field.description] == []
    assert set(SHORT.values()) <= set(every_key())
    for keys in COMMANDS.values():
        assert list(keys().flat()) == list(dotted_keys(keys))


def test_every_section_says_what_it_is_about_in_one_line() -> None:
    for keys in COMMANDS.values():
        for name, section in sections_of(keys).items():
            assert re.fullmatch(r"[A-Z][^\n]+\.(\n\n.+)?", section.__doc__ or "", re.DOTALL), name


def test_a_key_has_one_type_one_default_and_one_meaning_whatever_command_reads_it() -> None:
    found: dict[str, Any] = {}
    for keys in COMMANDS.values():
        for key, field in dotted_keys(keys).items():
            said = (field.annotation, repr(field), keys().flat()[key])
            assert found.setdefault(key, said) == said or key in ("sweep.stage", "labels.path", "detect.detector")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_section_is_made_when_it_is_asked_for(command: str) -> None:
    """A default made at import builds the validators of all commands for the help of one."""
    assert [name for name, field in COMMANDS[command].model_fields.items() if field.default_factory is None] == []
