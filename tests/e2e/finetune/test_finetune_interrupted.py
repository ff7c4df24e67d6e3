"""Fine-tunings that are stopped: killed runs, finished folds, and no process left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from finetuning import NOTE, SMALL, children, parents
from harness import Store

pytestmark = pytest.mark.slow
LONG = {**SMALL, "epochs": "100", "trainer.patience": "100"}


def wait_for(process: subprocess.Popen[str], start: str) -> None:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(start):
            return
    raise AssertionError("".join(lines))


def assert_killed(store: Store) -> None:
    (run,) = parents(store)
    deadline = time.monotonic() + 30  # under the launcher a process of its own has the last word
    while run.info.status != "KILLED" and time.monotonic() < deadline:
        time.sleep(0.2)
        (run,) = parents(store)
    assert run.info.status == "KILLED", run.data.tags
    assert "Interrupted" in run.data.tags[NOTE]
    assert {fold.info.status for fold in children(store, run)} == {"FINISHED"}
    assert not any(one.info.status == "RUNNING" for one in store.runs())
    assert store.client.search_model_versions("name = 'moola-detector'") == []


def assert_no_process(group: int) -> None:
    """Nothing of a process group lives on; what multiprocessing keeps notes with ends a moment after its parent."""
    deadline, alive = time.monotonic() + 20, ["?"]
    while alive and time.monotonic() < deadline:
        time.sleep(0.1)
        alive = []
        for process in psutil.process_iter(["cmdline", "status"]):
            with contextlib.suppress(ProcessLookupError):
                if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                    alive.append(process.info["cmdline"])
    assert alive == []


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"])
def test_an_interrupted_fine_tuning_is_killed_with_its_folds_finished_and_no_process_left(
    tmp_path: Path, workers: str, signum: int, code: int
) -> None:
    store = Store(tmp_path)
    process = store.start("finetune", {**LONG, "cv.workers": workers})
    wait_for(process, "Fold ")
    os.killpg(process.pid, signum)  # a terminal or a job scheduler signals the whole group
    assert process.wait(60) == code
    assert_killed(store)
    assert_no_process(process.pid)


def test_ctrl_c_at_the_launcher_kills_the_run_and_leaves_no_process(tmp_path: Path) -> None:
    store = Store(tmp_path)
    process = store.start("finetune", {**LONG, "cv.workers": "2"}, launcher=True)
    wait_for(process, "Fold ")
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) != 0
    assert_killed(store)
    assert_no_process(process.pid)
