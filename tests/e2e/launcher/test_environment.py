"""`mlflow run .` on a machine without conda: the stand-in under bash and under MLflow's own launcher."""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import conda_standin
import pytest
from mlflow import MlflowClient
from paths import ROOT

MLPROJECT = """\
name: tiny
conda_env: conda.yaml
entry_points:
  main:
    parameters:
      empty: {type: string, default: ''}
      spaced: {type: string, default: ''}
    command: "python arguments.py --empty {empty} --spaced {spaced}"
"""
ARGUMENTS_PY = """\
import json, pathlib, sys
pathlib.Path("arguments.json").write_text(json.dumps([sys.prefix, *sys.argv[1:]]))
"""


class Machine:
    """A project folder and an environment's bin folder on a PATH that has no conda but the stand-in's."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.project = folder / "an environment" / "bin", folder / "project"
        self.bin.mkdir(parents=True)
        self.project.mkdir()
        # A wrapper, because a symbolic link to a virtual environment's python leaves that environment.
        self.script("python", f'exec {shlex.quote(sys.executable)} "$@"')
        (self.bin / "activate").write_text("PLAIN_ACTIVATION=yes\n")
        for name in ("bash", "sh"):
            (self.bin / name).symlink_to(str(shutil.which(name)))
        folders = [path for path in os.environ["PATH"].split(os.pathsep) if not Path(path, "conda").exists()]
        # pytest's variable makes MLflow's launcher behave differently from a user's.
        skipped = re.compile(r"MLFLOW_|CONDA_|PYTEST_CURRENT_TEST")
        self.environ = {key: value for key, value in os.environ.items() if not skipped.match(key)}
        self.environ["PATH"] = os.pathsep.join([str(self.bin), *folders])
        conda_standin.install(self.bin, {"PATH": ""})

    def script(self, name: str, body: str, folder: Path | None = None) -> Path:
        path = (folder or self.bin) / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    def conda_yaml(self, text: str) -> str:
        """Write the project's conda.yaml and return the name that MLflow gives its environment."""
        (self.project / "conda.yaml").write_text(text)
        return f"mlflow-{hashlib.sha1(text.encode()).hexdigest()}"

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(argv, cwd=self.project, env=self.environ, capture_output=True, text=True, check=False)

    def mlflow_run(self, *options: str) -> subprocess.CompletedProcess[str]:
        (self.project / "MLproject").write_text(MLPROJECT)
        (self.project / "arguments.py").write_text(ARGUMENTS_PY)
        return self.run(sys.executable, "-m", "mlflow", "run", ".", *options)

    def statuses(self) -> list[str]:
        client = MlflowClient(f"sqlite:///{self.project / 'mlflow.db'}")
        return [run.info.status for run in client.search_runs(["0"])]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="conda.yaml asks for Python 3.11, and the stand-in holds to it"
)
def test_mlflow_run_without_options_uses_the_active_environment_and_passes_values_unharmed(machine: Machine) -> None:
    machine.conda_yaml((ROOT / "conda.yaml").read_text())
    done = machine.mlflow_run("-P", 'spaced=it\'s a "$HOME" {x}', "-P", "encoder.hidden=64")
    assert done.returncode == 0, done.stderr
    assert "there is no conda here" in done.stderr
    expected = ["--empty", "", "--spaced", 'it\'s a "$HOME" {x}', "--encoder.hidden", "64"]
    assert json.loads((machine.project / "arguments.json").read_text()) == [sys.prefix, *expected]
    assert machine.statuses() == ["FINISHED"]


@pytest.mark.slow
def test_mlflow_run_in_an_environment_with_other_versions_starts_nothing_and_its_run_is_failed(
    machine: Machine,
) -> None:
    machine.conda_yaml((ROOT / "conda.yaml").read_text().replace("numpy==", "numpy==0."))
    done = machine.mlflow_run()
    assert done.returncode == 1
    assert re.search(r"numpy: found [\d.]+, wanted 0\.", done.stderr)
    assert "make setup" in done.stderr
    assert not (machine.project / "arguments.json").exists()
    assert machine.statuses() == ["FAILED"]


def test_activation_by_a_user_is_what_it_was(machine: Machine) -> None:
    assert machine.run("bash", "-c", "source activate && echo $PLAIN_ACTIVATION").stdout == "yes\n"


def test_activation_by_mlflow_refuses_an_environment_that_differs(machine: Machine) -> None:
    name = machine.conda_yaml("dependencies:\n  - python=2.7\n  - pip:\n      - no-such-package-here==1.0\n")
    done = machine.run("bash", "-c", f"source activate {name} 1>&2 && echo started")
    assert done.returncode != 0
    assert done.stdout == ""
    assert "python: found 3." in done.stderr
    assert "no-such-package-here: not installed, wanted 1.0" in done.stderr


def test_activation_by_mlflow_refuses_when_the_project_s_file_is_gone(machine: Machine) -> None:
    done = machine.run("bash", "-c", f"source activate mlflow-{'0' * 40} 1>&2 && echo started")
    assert done.returncode != 0
    assert "nothing was started" in done.stderr


def test_a_conda_installed_later_is_used_instead(machine: Machine, tmp_path: Path) -> None:
    real = tmp_path / "miniconda" / "bin"
    real.mkdir(parents=True)
    machine.script("conda", 'echo "the real conda: $@"', real)
    machine.script("activate", 'echo "the real activate: $1"', real)
    machine.environ["PATH"] += f"{os.pathsep}{real}"
    name = machine.conda_yaml("dependencies:\n  - python=2.7\n")
    assert machine.run("conda", "env", "list", "--json").stdout == "the real conda: env list --json\n"
    assert machine.run("bash", "-c", f"source activate {name}").stdout == f"the real activate: {name}\n"


def test_two_stand_ins_on_one_path_do_not_take_each_other_for_a_real_conda(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    second = Machine(tmp_path / "second")
    machine.environ["PATH"] += f"{os.pathsep}{second.bin}"
    assert json.loads(machine.run("conda", "env", "list", "--json").stdout) == {"envs": []}
