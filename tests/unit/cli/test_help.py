"""What `moola NAME --help` says: every parameter with meaning and default, and examples that the parser takes."""

from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from command_lines import spoken
from paths import ROOT

from moola_mlflow.cli.entry_points import ENTRY_POINTS, SHORT
from moola_mlflow.cli.help import help_text, listed_sections, parameters_of, title_of
from moola_mlflow.cli.parser import configurations_of, parse
from moola_mlflow.core import dotted_keys

HEAVY = ("torch", "mlflow", "optuna", "numpy", "pandas", "matplotlib", "sklearn")


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_every_help_has_examples_of_its_command_that_are_understood(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # presets are found from anywhere
    examples = ENTRY_POINTS[name].examples
    assert examples
    for example in examples:
        command, words = spoken(example)
        assert command == name
        parse(name, words)
        assert f"\n  {example}\n" in help_text(name)


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_every_parameter_of_a_help_says_what_it_means_and_what_it_is_where_it_is_not_given(name: str) -> None:
    entry, found = ENTRY_POINTS[name], parameters_of(name)
    assert [one.name for one in found] == list(entry.parameters)
    assert set(entry.parameters) <= {*SHORT, *entry.own, "config"}
    assert {*entry.own, *entry.meanings} <= set(entry.parameters)
    for one in found:
        (line,) = [line for line in help_text(name).splitlines() if line.startswith(f"  --{one.name} ")]
        assert f" {one.meaning} [" in line
        assert line.endswith("]")
    signature = inspect.signature(
        importlib.import_module(f"moola_mlflow.cli.commands.{entry.module or name}").run
    ).parameters
    assert set(entry.own) == set(signature) - {"config", "preset", "interrupts"}
    for key, argument in entry.own.items():
        assert argument.default == signature[key].default
        assert not (argument.needed and argument.default)


def test_the_launcher_knows_the_commands_and_parameters_of_the_table() -> None:
    declared = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
    assert set(declared) == {name for name, entry in ENTRY_POINTS.items() if entry.launched}
    for name, entry in declared.items():
        assert set(entry["parameters"]) <= set(ENTRY_POINTS[name].parameters)
        presets = {key: value["default"] for key, value in entry["parameters"].items() if value["default"]}
        known = {one.name: one.default for one in parameters_of(name)}
        assert presets.items() <= known.items()


def line_of(name: str, parameter: str) -> str:
    line = next(line for line in help_text(name).splitlines() if line.startswith(f"  --{parameter} "))
    return line.split("  ")[-1].strip()


def test_a_parameter_says_what_it_means_to_this_command() -> None:
    outs = {name: line_of(name, "out") for name, entry in ENTRY_POINTS.items() if "out" in entry.own}
    assert len(set(outs.values())) == len(outs) == 8
    assert line_of("data", "out").endswith("[out/bars.parquet]")
    assert line_of("detect", "out").endswith("[not set]")
    seeds = {line_of(name, "seed") for name in ("main", "label", "pretrain", "finetune")}
    assert len(seeds) == 4
    assert line_of("label", "seed").startswith("Seed of the draw")
    assert line_of("pretrain", "encoder.hidden").endswith("(int >= 1 <= 65536; 128)")
    assert line_of("finetune", "folds") == "Folds of the cross-validation. [cv.folds; 5]"
    assert line_of("report", "run_id").endswith("[needed]")


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_a_help_lists_the_keys_that_its_command_reads_by_section_and_no_other(name: str) -> None:
    shown = help_text(name)
    short = {SHORT[key] for key in ENTRY_POINTS[name].parameters if key in SHORT}
    own = {key for keys in configurations_of(name) for key in dotted_keys(keys)}
    listed = [line.split()[0][2:] for line in shown.splitlines() if line.startswith("  --")]
    dotted = [key for key in listed if "." in key]
    if name == "sweep":  # whose other keys are those of the command that its trials run
        own = {key for key in own if key.startswith(("sweep.", "tracking."))}
        assert "moola pretrain --help" in shown
    assert set(dotted) == own - short
    assert len(set(dotted)) == len(dotted)
    assert listed[: len(ENTRY_POINTS[name].parameters)] == list(ENTRY_POINTS[name].parameters)  # the common ones first
    for section, one in listed_sections(name).items():
        lines = [line for line in shown.splitlines() if line == f"{section}: {title_of(one)}"]
        assert len(lines) == (any(key.startswith(f"{section}.") for key in dotted))


def test_a_reader_who_has_seen_enough_is_no_error() -> None:
    """As `moola pretrain --help | head -1`, with the pipe closed before the first line."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "moola_mlflow", "pretrain", "--help"], stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_waits_for_nothing_heavy() -> None:
    code = f"""
import sys
from moola_mlflow import cli
cli.run_cli([])
for name in {list(ENTRY_POINTS)}:
    cli.run_cli([name, "--help"])
print([name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
