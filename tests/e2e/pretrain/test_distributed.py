"""Several processes, one training: torchrun starts them, rank 0 tracks, and none of them dies unnoticed."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from epochs import wait_for_epochs
from harness import QUICK, SMOKE, Store, note_of
from mlflow.entities import ViewType
from torchrun import launch, start_processes

from moola_mlflow.tracking.delivery import read_history

pytestmark = pytest.mark.slow
SMALL = {**QUICK, "config": SMOKE, "register": "none"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path)
    assert made.runs() == []  # the tables are there before the processes are
    return made


def ranked(launcher: subprocess.Popen[str], rank: int) -> psutil.Process:
    """Return the process of a rank."""
    return next(
        child
        for child in psutil.Process(launcher.pid).children(recursive=True)
        if child.environ().get("RANK") == str(rank)
    )


def test_one_two_and_four_processes_have_equal_losses_and_only_the_first_tracks(store: Store) -> None:
    curves = []
    for processes in (1, 2, 4):
        launcher = start_processes(store, processes, SMALL)
        said, _ = launcher.communicate(timeout=300)
        assert launcher.returncode == 0, said[-3000:]
        assert said.count("Epoch   1 |") == 1
        run = store.runs()[0]
        assert run.info.status == "FINISHED"
        assert run.data.tags["moola.processes"] == str(processes)
        points = store.client.get_metric_history(run.info.run_id, "val/huber")
        assert [point.step for point in points] == [0, 1]
        losses = store.client.get_metric_history(run.info.run_id, "train/loss")
        curves.append([point.value for point in (*points, *losses)])
        assert {"test/huber", "probe/r2_gain"} <= set(run.data.metrics)
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)
    assert curves[2] == pytest.approx(curves[0], rel=1e-3)
    assert len(store.runs()) == 3
    assert len(list(store.folder.glob(".moola/runs/*"))) == 3


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_training_as_failed_and_it_can_be_resumed(store: Store, killed: int) -> None:
    epochs = 30
    many = {**SMALL, "trainer.epochs": str(epochs), "trainer.patience": str(epochs)}
    launcher = start_processes(store, 2, many)
    wait_for_epochs(store, 2, launcher)
    ranked(launcher, killed).send_signal(signal.SIGKILL)
    said, _ = launcher.communicate(timeout=120)
    assert launcher.returncode != 0
    (run,) = store.runs()
    assert run.info.status == "FAILED", said[-3000:]
    gone = ("the first process of this training", "another process of this training is gone")[killed]
    assert gone in run.data.tags["mlflow.note.content"]
    assert "resume" in run.data.tags["mlflow.note.content"]
    assert read_history(store.folder / ".moola/runs" / run.info.run_id).status == "FAILED"
    reached = len(store.client.get_metric_history(run.info.run_id, "val/huber"))
    on = start_processes(store, 2, {**many, "resume": "auto"})
    said, _ = on.communicate(timeout=400)
    assert on.returncode == 0, said[-3000:]
    assert "Going on with run" in said
    (run,) = store.runs()
    assert run.info.status == "FINISHED"
    steps = [point.step for point in store.client.get_metric_history(run.info.run_id, "val/huber")]
    assert steps == list(range(epochs))
    assert reached < epochs


def test_a_first_process_that_dies_before_the_first_epoch_ends_the_run_as_failed(store: Store) -> None:
    launcher = start_processes(store, 2, {**SMALL, "bars.sample_bars": "400000"})
    deadline = time.monotonic() + 120
    while not any(
        '"moola.data_sha256"' in path.read_text() for path in store.folder.glob(".moola/runs/*/journal.jsonl")
    ):
        assert launcher.poll() is None
        assert time.monotonic() < deadline
    ranked(launcher, 0).send_signal(signal.SIGKILL)
    said, _ = launcher.communicate(timeout=120)
    assert launcher.returncode != 0
    (run,) = store.runs()
    assert run.info.status == "FAILED", said[-3000:]
    assert "saved" not in run.data.tags["mlflow.note.content"]


def test_a_signal_to_one_process_stops_all_after_the_same_step(store: Store) -> None:
    many = {**SMALL, "trainer.epochs": "400", "trainer.patience": "400"}
    launcher = start_processes(store, 2, many)
    wait_for_epochs(store, 1, launcher)
    ranked(launcher, 1).send_signal(signal.SIGTERM)
    said, _ = launcher.communicate(timeout=120)
    (run,) = store.runs()
    assert run.info.status == "KILLED", said[-3000:]
    assert "Stopped; the state of the training is in" in said
    assert (store.folder / ".moola/runs" / run.info.run_id / "checkpoints/checkpoint_latest.pt").exists()


def test_a_mistake_is_said_once_and_leaves_no_run(store: Store) -> None:
    launcher = start_processes(store, 2, {**SMALL, "encoder.hidden": "none"})
    said, _ = launcher.communicate(timeout=120)
    assert launcher.returncode != 0
    assert said.count("moola: encoder.hidden='none'") == 1, said[-3000:]
    assert store.runs(ViewType.ALL) == []


def test_processes_that_would_train_on_different_things_are_refused_with_both_values(store: Store) -> None:
    words = [word for key, value in SMALL.items() for word in (f"--{key}", value)]
    command = shlex.join([sys.executable, "-m", "moola_mlflow", "pretrain", *words])
    other = {"trainer.seed": "$((17 + RANK))", "bars.sample_seed": "$((3 + RANK))"}
    each = " ".join(f'--{key} "{value}"' for key, value in other.items())
    launcher = launch(store, 2, ["--no-python", "bash", "-c", f"exec {command} {each}"])
    said, _ = launcher.communicate(timeout=120)
    (run,) = store.runs()
    assert run.info.status == "FAILED", said[-3000:]
    assert re.search(r"exitcode +: 2 ", said), said[-3000:]
    assert "trainer.seed is 17 in process 0 and 18 in process 1" in said
    assert re.search(r"SHA-256 of the bars is \w{12} in process 0 and \w{12} in process 1", said)
    assert "trainer.seed is 17 in process 0" in note_of(run)
    assert "trainer.epochs" not in note_of(run)
