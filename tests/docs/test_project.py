"""The files around the package agree with each other and with what users were promised."""

import os
import re
import subprocess
import tomllib
from importlib import metadata
from typing import Any

import pytest
import yaml
from lock import installed, locked, needed
from mlflow.projects.utils import load_project
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from paths import ROOT

# The public interface: entry points and their short parameters.
ENTRY_POINTS = {
    "main": {"seed", "project"},
    "data": {"project", "bars", "out", "head", "overwrite"},
    "features": {"project", "bars", "features"},
    "label": {"project", "bars", "n", "out", "overwrite", "seed"},
    "labels": {"project", "labels", "bars", "out", "overwrite"},
    "annotate": {"project", "bars", "labels", "detector", "annotator", "port"},
    "finetune": {
        *("labels", "config", "encoder", "freeze_encoder", "epochs", "batch_size", "lr", "folds", "repeats", "seed"),
        *("bars", "register", "project"),
    },
    "sweep": {"project", "config", "base", "n_trials", "workers", "study", "storage"},
    "detect": {"project", "bars", "detector", "out", "overwrite"},
    "evaluate": {"project", "bars", "labels", "detector", "out", "overwrite"},
    "report": {"project", "run_id", "out", "overwrite"},
    "compare": {"project", "run_ids", "out", "overwrite"},
    "doctor": {"fix"},
    "sync": {"run_dir", "server", "as_new"},
    "promote": {"project", "model", "version", "alias", "force"},
    "pretrain": {"project", "bars", "config", "epochs", "batch_size", "lr", "seed", "device", "resume", "register"},
}


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def conda_dependencies() -> list[Any]:
    return yaml.safe_load((ROOT / "conda.yaml").read_text())["dependencies"]


def entry_points() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]


def test_conda_yaml_pins_the_locked_version_of_what_the_package_needs() -> None:
    pip = next(item["pip"] for item in conda_dependencies() if isinstance(item, dict))
    assert pip == [f"{one.name}=={locked()[one.name]}" for one in needed()]


def test_the_locked_versions_lie_in_the_ranges_of_pyproject_and_are_installed() -> None:
    extras = pyproject()["optional-dependencies"]  # those of docs have a lock of their own: test_site.py
    groups = [pyproject()["dependencies"], *(lines for name, lines in extras.items() if name != "docs")]
    wanted = [Requirement(line) for group in groups for line in group]
    versions = locked()
    outside = [str(one) for one in wanted if versions[canonicalize_name(one.name)] not in one.specifier]
    assert outside == []
    assert (
        installed().items()
        >= {name: versions[name] for name in map(canonicalize_name, [w.name for w in wanted])}.items()
    )


def test_conda_yaml_names_a_python_that_the_package_supports() -> None:
    python = next(item for item in conda_dependencies() if str(item).startswith("python="))
    assert re.fullmatch(r"python=3\.11\.\d+", python)
    assert pyproject()["requires-python"] == ">=3.11"


def test_the_package_needs_ranges_and_the_tools_of_its_developers_exact_versions() -> None:
    extras = dict(pyproject()["optional-dependencies"])
    tools = [str(Requirement(line).specifier) for line in extras.pop("dev")]
    assert [text for text in tools if not re.fullmatch(r"==[\w.]+", text)] == []
    groups = [pyproject()["dependencies"], *extras.values()]
    ranges = [Requirement(line) for group in groups for line in group]
    assert [str(one) for one in ranges if not any(bound.operator == ">=" for bound in one.specifier)] == []


def closure(names: list[str]) -> set[str]:
    """What an installation of packages brings: they, and what each of them requires without an extra."""
    found: set[str] = set()
    while names:
        name = canonicalize_name(names.pop())
        if name not in found:
            found.add(name)
            required = [Requirement(line) for line in metadata.requires(name) or []]
            names += [one.name for one in required if not one.marker or one.marker.evaluate({"extra": ""})]
    return found


def test_the_extra_for_s3_brings_the_library_with_which_mlflow_keeps_artifacts_there() -> None:
    project = pyproject()
    brought = closure([Requirement(line).name for line in project["dependencies"]])
    assert "boto3" not in brought, "MLflow brings it: the extra need not"
    assert "boto3" in closure([Requirement(line).name for line in project["optional-dependencies"]["cloud"]])


def test_mlproject_declares_the_promised_entry_points_and_short_parameters() -> None:
    assert {name: set(entry["parameters"]) for name, entry in entry_points().items()} == ENTRY_POINTS


def test_the_launcher_passes_no_default_that_could_override_a_preset() -> None:
    defaults = {
        (name, key): value["default"]
        for name, entry in entry_points().items()
        for key, value in entry["parameters"].items()
        if value["default"] != ""
    }
    assert defaults == {
        ("pretrain", "config"): "configs/stones.yaml",
        ("finetune", "config"): "configs/finetune.yaml",
        ("sweep", "config"): "configs/sweep.yaml",
        ("sweep", "base"): "configs/stones.yaml",
    }
    assert all((ROOT / path).is_file() for path in defaults.values())


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_an_entry_point_hands_every_declared_parameter_to_its_command_once(name: str) -> None:
    entry = load_project(str(ROOT)).get_entry_point(name)
    given = {key: f"a {key}'s value" for key in entry.parameters}
    quoted = {key: f"'a {key}'\"'\"'s value'" for key in given}
    expected = f"python -m moola_mlflow {name} " + " ".join(f"--{key} {value}" for key, value in quoted.items())
    assert " ".join(entry.compute_command(given, storage_dir=str(ROOT)).split()) == expected


def test_the_preset_of_promote_has_the_limits_that_other_commands_have_by_default() -> None:
    from moola_mlflow.core import GateLimits

    shipped = yaml.safe_load((ROOT / "configs" / "gates.yaml").read_text())["gates"]
    assert shipped == GateLimits().model_dump()


def test_parameters_are_strings_because_mlflow_would_download_paths() -> None:
    assert {value["type"] for entry in entry_points().values() for value in entry["parameters"].values()} == {"string"}


def test_make_without_a_target_lists_every_target() -> None:
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets is not None
    # A make that runs this test hands its own flags down, and `make -n` or `make -w` would change what is printed.
    environ = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    listing = subprocess.run(["make", "-s"], cwd=ROOT, env=environ, capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in listing.splitlines()] == targets[1].split()


def test_ci_runs_the_commands_that_contributors_run() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text()
    assert re.findall(r"^for lane in (.*); do$", text, re.MULTILINE) == ["check docs test test-slow"]
    assert re.findall(r"^ +make (.*)$", text, re.MULTILINE) == ['"$lane"']
    (job,) = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"].values()
    assert job["steps"][-1] == {"run": ".ci/run"}


def test_the_hooks_before_a_commit_are_the_tools_of_make_check() -> None:
    check = re.search(r"^check: .*\n\t\$\(ACTIVATE\) (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert check is not None
    tools = [words.split()[:2] for words in check[1].replace("ruff check .", "ruff check").split(" && ")]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    entries = [hook["entry"].removeprefix(".venv/bin/").split() for hook in hooks]
    assert [entry[: len(tool)] for entry, tool in zip(entries, tools, strict=True)] == tools


def test_the_licence_is_the_one_that_the_package_names() -> None:
    assert pyproject()["license"] == "Apache-2.0"
    (name,) = pyproject()["license-files"]
    text = (ROOT / name).read_text(encoding="utf-8")
    assert re.match(r"\s+Apache License\n\s+Version 2\.0, January 2004\n", text)
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_changelog_has_a_section_for_the_version_of_the_package() -> None:
    from moola_mlflow import __version__

    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$", changes, re.MULTILINE)
    assert "## [Unreleased]" in changes
    assert released[0] == __version__
