"""The README in a fresh clone: its commands and its Python run, every preset trains, the UI shows the runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from documented import PYTHON_BY, ROOT, blocks, clone, commands, environment, newest, reduced, run, run_all
from harness import free_port, wait_for_server

pytestmark = pytest.mark.slow

CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which the README's commands have run, all in the default store of its root."""
    folder = clone(tmp_path_factory.mktemp("clone"), "README.md")
    words = ["label", "--bars", "my_bars.parquet", "--out", "my_labels.parquet"]
    assert run([sys.executable, "-m", "moola_mlflow", *words], folder).returncode == 0
    assert len(commands("README.md")) >= 4
    run_all("README.md", folder)
    return folder


def test_the_readmes_commands_leave_runs_in_the_default_store(fresh: Path) -> None:
    made = newest(fresh)
    assert (fresh / "mlflow.db").is_file()
    assert {"pretrain", "finetune"} <= {run.data.tags.get("moola.stage") for run in made}
    # doctor fails where it finds something to do on the machine that runs the tests
    failed = {run.data.tags.get("moola.stage") for run in made if run.info.status != "FINISHED"}
    assert failed <= {"doctor"}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_trains(fresh: Path, name: str) -> None:
    done = run(reduced(f"moola pretrain --config configs/{name}.yaml --register config-{name}"), fresh)
    assert done.returncode == 0, done.stderr[-3000:]
    assert newest(fresh)[0].data.tags["moola.identity"] == str(name == "published").lower()


PYTHON = [code for page, test in PYTHON_BY.items() if test == "test_readme.py" for code in blocks(page, "python")]


@pytest.mark.parametrize("code", PYTHON)
def test_every_python_example_runs_on_a_registered_encoder(fresh: Path, code: str) -> None:
    done = run([sys.executable, "-c", code], fresh)
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_ui_started_in_the_root_shows_the_runs_with_nothing_exported(fresh: Path) -> None:
    port = free_port()
    words = [sys.executable, "-m", "mlflow", "ui", "--port", str(port), "--workers", "1"]
    with open(fresh / "ui.log", "w", encoding="utf-8") as log:
        server = subprocess.Popen(words, cwd=fresh, env=environment(), stdout=log, stderr=log)
    try:
        wait_for_server(f"http://127.0.0.1:{port}", fresh / "ui.log")
        client = mlflow.MlflowClient(f"http://127.0.0.1:{port}")
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        assert any(run.data.tags.get("moola.stage") == "pretrain" for run in client.search_runs(experiments))
        assert client.get_model_version_by_alias("moola-encoder", "candidate").status == "READY"
    finally:
        server.terminate()
        server.wait(30)
