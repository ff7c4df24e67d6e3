"""Signals to a training and to its launcher: the step is finished, the state saved, the run KILLED, and soon."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from harness import QUICK, ROOT, SMOKE, Served, Store
from outage import Server, assert_whole, epochs_in, wait_for

from moola_mlflow.tracking import Tags

LONG = {**QUICK, "config": SMOKE, "epochs": "5000", "trainer.patience": "5000"}
LIMIT_S = 5.0
"""From the end of the step to the end of the process."""


def wait_for_epoch(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Epoch   2"):
            return
    raise AssertionError("".join(lines))


def interrupted(process: subprocess.Popen[str], signum: int, folder: Path) -> tuple[int, float]:
    """Send a signal; return the exit code, and the seconds from the end of the step that was under way."""
    at = time.time()
    process.send_signal(signum)
    code, ended = process.wait(60), time.time()
    (latest,) = folder.glob(".moola/runs/*/checkpoints/checkpoint_latest.pt")
    return code, ended - max(at, latest.stat().st_mtime)


def assert_killed_with_checkpoint(store: Store, folder: Path) -> None:
    (run,) = store.runs()
    assert run.info.status == "KILLED"
    assert "Interrupted" in run.data.tags[Tags.NOTE]
    state = torch.load(
        folder / ".moola" / "runs" / run.info.run_id / "checkpoints" / "checkpoint_latest.pt", map_location="cpu"
    )
    assert len(state["progress"]["history"]) >= 2


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["INT", "TERM", "HUP"]
)
def test_an_interrupted_training_is_killed_with_a_checkpoint_within_five_seconds_of_its_step(
    tmp_path: Path, signum: int, code: int
) -> None:
    store = Store(tmp_path)
    process = store.start("pretrain", LONG)
    wait_for_epoch(process)
    ended, seconds = interrupted(process, signum, tmp_path)
    assert ended == code
    assert seconds < LIMIT_S
    assert_killed_with_checkpoint(store, store.folder)
    assert process.stdout is not None
    said, (run,) = process.stdout.read(), store.runs()
    folder = Path(".moola/runs") / run.info.run_id
    assert f"Go on with:\nmoola pretrain --config {folder}/config.yaml --resume {run.info.run_id}\n" in said


@pytest.mark.slow
def test_an_interrupted_training_ends_within_five_seconds_of_its_step_though_its_server_hangs(tmp_path: Path) -> None:
    server = Server(tmp_path / "server")
    server.folder.mkdir()
    store = Served(tmp_path / "work", server.uri)
    store.folder.mkdir()
    server.start()
    try:
        process = store.start("pretrain", LONG)
        wait_for_epoch(process)
        server.signal(signal.SIGSTOP)
        epochs = epochs_in(store)
        wait_for(lambda: epochs_in(store) > epochs + 1, process)
        ended, seconds = interrupted(process, signal.SIGINT, store.folder)
        server.signal(signal.SIGCONT)
        assert process.stdout is not None
        assert (ended, "moola sync" in process.stdout.read()) == (130, True)
        assert seconds < LIMIT_S
        (folder,) = (path.parent for path in store.folder.glob(".moola/runs/*/journal.jsonl"))
        synced = store.run("sync", {"run_dir": str(folder)})
        assert synced.returncode == 0, synced.stderr
        assert assert_whole(store.client, folder).info.status == "KILLED"
    finally:
        server.kill()


HANGING = """
import ctypes, sys
from moola_mlflow import __main__ as program
from moola_mlflow.training.engine import Engine

def hang(*_):
    "Wait in the C library for a lock that is never given, as for a machine that is gone: Python hears of no signal."
    print("in a step", flush=True)
    lock, c = ctypes.create_string_buffer(256), ctypes.CDLL(None)
    c.pthread_mutex_lock(lock), c.pthread_mutex_lock(lock)

Engine.step = hang
sys.exit(program.main())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a mutex of zeros is an unlocked one on Linux")
def test_a_second_ctrl_c_more_than_a_second_later_leaves_a_step_that_hangs_at_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    command = store.command("pretrain", LONG, launcher=False)
    words = [sys.executable, "-c", HANGING, *command[command.index("pretrain") :]]
    process = subprocess.Popen(
        words, cwd=tmp_path, env=store.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout is not None
        assert any(line.startswith("in a step") for line in process.stdout)
        for wait_s in (0.25, 1.2):  # the first two are one press at the launcher, as its child sees it
            process.send_signal(signal.SIGINT)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(wait_s)
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 130
    finally:
        process.kill()
        process.communicate()
    (run,) = store.runs()
    assert run.info.status == "RUNNING"  # nothing was finished on the way out: the next start closes it


def test_an_interrupt_in_the_last_epochs_evaluation_is_not_swallowed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    process = store.start("pretrain", {**QUICK, "config": SMOKE, "epochs": "2"})
    wait_for_epoch(process)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert_killed_with_checkpoint(store, store.folder)
    assert store.client.search_model_versions("name = 'moola-encoder'") == []


def test_ctrl_c_at_the_launcher_kills_the_run_and_leaves_no_child(tmp_path: Path) -> None:
    store = Store(tmp_path)
    process = store.start("pretrain", LONG, launcher=True)
    wait_for_epoch(process)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does
    assert process.wait(60) != 0
    assert_killed_with_checkpoint(store, ROOT)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM], ids=["KILL", "TERM"])
def test_a_launcher_that_dies_does_not_leave_its_child_training(tmp_path: Path, signum: int) -> None:
    store = Store(tmp_path)
    process = store.start("pretrain", LONG, launcher=True)
    wait_for_epoch(process)
    process.send_signal(signum)
    process.wait(60)
    deadline = time.monotonic() + 60
    while (
        Tags.NOTE not in store.runs()[0].data.tags and time.monotonic() < deadline
    ):  # the note is the last that it writes
        time.sleep(0.2)
    assert_killed_with_checkpoint(store, ROOT)
