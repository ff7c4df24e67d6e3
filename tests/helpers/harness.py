"""Real commands against a real store: what the end-to-end tests share."""

from __future__ import annotations

import html
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import mlflow
import numpy as np
import pytest
import yaml
from browser import find_browser
from empty_store import copy_empty_store
from mlflow.entities import Run, ViewType
from paths import ROOT
from warm_process import run_python, start_python

from moola_mlflow.tracking import Run as ActiveRun
from moola_mlflow.tracking.store import release_run

SMOKE = str(ROOT / "configs" / "smoke.yaml")
QUICK = {"bars.sample_bars": "12000", "encoder.hidden": "4"}
"""Overrides that make a command as small as it can be and still do everything."""


def wait_for_server(address: str, log: Path) -> None:
    """Wait until a tracking server answers; fail with the end of its log if it does not within three minutes."""
    deadline = time.monotonic() + 180
    while True:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5)
            return
        except OSError:
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8")[-3000:]
            time.sleep(0.2)


@dataclass
class Store:
    """A tracking store in a folder of its own; commands run in that folder."""

    folder: Path

    def __post_init__(self) -> None:
        if self.uri.startswith("sqlite:"):
            copy_empty_store(self.folder)
        mlflow.set_tracking_uri(self.uri)  # parts of MLflow's client ask the global one, whatever they were given

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder}/mlflow.db"

    @property
    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        # The launcher's child is whatever `python` the PATH has, as in an activated environment.
        path = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
        return {**kept, "PATH": path, "MLFLOW_TRACKING_URI": self.uri, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def command(self, name: str, parameters: dict[str, str], launcher: bool) -> list[str]:
        if launcher:
            pairs = [word for key, value in parameters.items() for word in ("-P", f"{key}={value}")]
            return [sys.executable, "-m", "mlflow", "run", str(ROOT), "-e", name, "--env-manager", "local", *pairs]
        pairs = [word for key, value in parameters.items() for word in (f"--{key}", value)]
        return [sys.executable, "-m", "moola_mlflow", name, *pairs]

    def run(self, name: str, parameters: dict[str, str], launcher: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a command to its end. The launcher itself starts it in a fresh process."""
        return run_python(self.command(name, parameters, launcher)[1:], self.folder, self.environment)

    def start(self, name: str, parameters: dict[str, str], launcher: bool = False) -> subprocess.Popen[str]:
        """Start a command in a process group of its own, as a terminal does."""
        return start_python(self.command(name, parameters, launcher)[1:], self.folder, self.environment)

    @property
    def client(self) -> mlflow.MlflowClient:
        return mlflow.MlflowClient(self.uri, self.uri)

    def runs(self, view: int = ViewType.ACTIVE_ONLY) -> list[Run]:
        """All runs, the newest first."""
        experiments = [e.experiment_id for e in self.client.search_experiments()]
        return list(self.client.search_runs(experiments, "", view, order_by=["attributes.start_time DESC"]))

    def newest(self) -> Run:
        """The newest run, in the bin or not."""
        return self.runs(ViewType.ALL)[0]

    def refused(self) -> list[Run]:
        """The runs in the bin, the newest first: their input was refused."""
        found = [run for run in self.runs(ViewType.DELETED_ONLY) if "moola.refused" in run.data.tags]
        assert all((run.info.status, run.data.tags["moola.refused"]) == ("FAILED", "true") for run in found)
        assert not any((self.folder / ".moola/runs" / run.info.run_id).exists() for run in found)
        return found

    def artifact(self, run: Run, name: str) -> Path:
        return Path(
            mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path=name, tracking_uri=self.uri)
        )

    def config(self, run: Run) -> dict[str, Any]:
        return yaml.safe_load(self.artifact(run, "config.yaml").read_text())


@dataclass
class Served(Store):
    """A store at an address; commands run in a folder of their own."""

    address: str = ""

    @property
    def uri(self) -> str:
        return self.address


def absent(what: str, cure: str) -> NoReturn:
    """Leave a test out for want of a program, on a developer's machine; fail it in CI, which installs them all."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{what} is not on this machine: {cure}")


def browser_path() -> str:
    """The Chromium that tests drive."""
    return find_browser() or absent("Chromium", "apt-get install chromium")


def note_of(run: Run) -> str:
    """A run's note as it is read on the page: without the signs that keep other people's text text."""
    return re.sub(r"\\([^\w\s])", r"\1", html.unescape(run.data.tags["mlflow.note.content"]))


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask_elsewhere(store: Store, folder: Path, code: str, windows: np.ndarray) -> list[Any]:
    """Run a script on windows in a fresh process, in a folder outside the checkout, where no pickle may be loaded.

    Returns the JSON of its last line.
    """
    np.save(folder / "windows.npy", windows)
    environment = {**store.environment, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    del environment["PYTHONPATH"]  # the model brings its own code
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / "windows.npy")],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return list(json.loads(done.stdout.strip().splitlines()[-1]))


def kill(run: ActiveRun) -> None:
    """Leave a run as a process leaves it that is killed: nothing more is sent, no status, no lock."""
    session = run._session
    if session._system_metrics is not None:
        session._system_metrics.stop()
    run.delivery.close(0)
    if (sender := run.delivery._outbox._thread) is not None:  # what it is sending now would be acknowledged later
        sender.join(60)
    session._lock.close()
    release_run(run.id)
