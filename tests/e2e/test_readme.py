"""The README and the docs in a fresh clone: their commands run, their Python runs, and the UI shows the runs."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import mlflow
import pytest
from harness import ROOT, Store

from moola_mlflow.synthetic import generate

pytestmark = pytest.mark.slow

CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))
REDUCED = {"bars.sample_bars": "12000", "encoder.hidden": "4"}


def blocks(name: str, language: str = "") -> list[str]:
    """Fenced code blocks of a document, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / name).read_text(), re.MULTILINE | re.DOTALL)


def commands(name: str, program: str) -> list[str]:
    """Command lines of a document that start with a program, without their comments."""
    lines = [line.split("  #")[0].strip() for block in blocks(name) for line in block.splitlines()]
    return [line for line in lines if line.startswith(program)]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that git would clone, with the working tree's content."""
    folder = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    for name in ("my_bars.parquet", "nq.parquet"):
        generate(12_000, 9).to_parquet(folder / name)
    return folder


def environment() -> dict[str, str]:
    """A shell with the project's environment active and nothing of MLflow exported."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "PYTHONPATH"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
    return {**kept, "PATH": path, "OMP_NUM_THREADS": "1"}


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=folder, env=environment(), capture_output=True, text=True, timeout=600)


def reduced(line: str) -> list[str]:
    """The words of a command line, with parameters that the line leaves open set to a small size."""
    words = shlex.split(line)
    given = {word.split("=")[0] for word in words}
    extra = {key: value for key, value in REDUCED.items() if key not in given}
    if words[0] == "mlflow":
        manager = [] if "--env-manager" in words else ["--env-manager", "local"]
        return [*words, *manager, *(word for key, value in extra.items() for word in ("-P", f"{key}={value}"))]
    return [*words, *(word for key, value in extra.items() if f"--{key}" not in given for word in (f"--{key}", value))]


def newest(folder: Path) -> mlflow.entities.Run:
    store = Store(folder)
    return store.runs()[0]


@pytest.mark.parametrize("line", [*commands("README.md", "mlflow run"), *commands("docs/pretraining.md", "mlflow run")])
def test_every_launcher_command_of_readme_and_docs_runs_in_a_fresh_clone(clone: Path, line: str) -> None:
    done = run(reduced(line), clone)
    assert done.returncode == 0, done.stderr[-3000:]
    assert newest(clone).info.status == "FINISHED"  # in the default store, mlflow.db in the project's root
    assert (clone / "mlflow.db").is_file()


@pytest.mark.parametrize(
    "line", [line for name in ("README.md", "docs/pretraining.md") for line in commands(name, "moola")]
)
def test_every_moola_command_of_readme_and_docs_runs(clone: Path, line: str) -> None:
    words = reduced(line) if "--help" not in line and "pretrain" in line else shlex.split(line)
    done = run([sys.executable, "-m", "moola_mlflow", *words[1:]], clone)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_trains(clone: Path, name: str) -> None:
    words = ["-m", "moola_mlflow", "pretrain", "--config", f"configs/{name}.yaml", "--epochs", "1"]
    done = run(
        [sys.executable, *words, *(word for key, value in REDUCED.items() for word in (f"--{key}", value))], clone
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert newest(clone).data.tags["moola.identity"] == str(name == "published").lower()


@pytest.mark.parametrize(
    "code", [code for name in ("README.md", "docs/pretraining.md") for code in blocks(name, "python")]
)
def test_every_python_example_runs_on_a_registered_encoder(clone: Path, code: str) -> None:
    if not (clone / "mlflow.db").is_file():
        assert run(reduced("mlflow run . -e pretrain -P epochs=1"), clone).returncode == 0
    done = run([sys.executable, "-c", code], clone)
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_ui_started_in_the_root_shows_the_runs_with_nothing_exported(clone: Path) -> None:
    if not (clone / "mlflow.db").is_file():
        assert run(reduced("mlflow run . -e pretrain -P epochs=1"), clone).returncode == 0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, "-m", "mlflow", "ui", "--port", str(port), "--workers", "1"]
    server = subprocess.Popen(words, cwd=clone, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                break
            except OSError:
                assert time.monotonic() < deadline, "mlflow ui did not answer within 90 s"
        client = mlflow.MlflowClient(f"http://127.0.0.1:{port}")
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        assert any(run.data.tags.get("moola.stage") == "pretrain" for run in client.search_runs(experiments))
        assert client.get_model_version_by_alias("moola-encoder", "candidate").status == "READY"
    finally:
        server.terminate()
        server.wait(30)
