"""Trainings on disks that fill up, or that cannot be written at all."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from harness import QUICK, SMOKE, Store
from outage import epochs_in, wait_for
from small_disks import make_read_only, small_disk

pytestmark = pytest.mark.slow
EPOCHS = 40
SMALL = {**QUICK, "config": SMOKE, "register": "none", "trainer.epochs": str(EPOCHS), "trainer.patience": str(EPOCHS)}


def test_a_disk_that_fills_up_in_a_training_fails_the_run_which_goes_on_once_there_is_space(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.runs() == []
    with small_disk(tmp_path / ".moola", kib=8192) as disk:
        process = store.start("pretrain", SMALL)
        wait_for(lambda: epochs_in(store) >= 3, process)
        filler = disk / "filler"
        while process.poll() is None:  # an epoch's checkpoint gives a little space back: take that too
            try:
                with open(filler, "ab", buffering=0) as f:
                    f.write(bytes(65536))
            except OSError:
                time.sleep(0.01)
        said = process.communicate()[0]
        assert (process.returncode, "Traceback" in said) == (1, False), said
        assert "No space left" in said
        (run,) = store.runs()
        assert run.info.status == "FAILED", said[-3000:]
        assert "No space left" in run.data.tags["mlflow.note.content"]
        filler.unlink()
        done = store.run("pretrain", {**SMALL, "resume": run.info.run_id})
        assert done.returncode == 0, done.stderr[-2000:]
    (run,) = store.runs()
    assert run.info.status == "FINISHED"
    points = store.client.get_metric_history(run.info.run_id, "val/huber")
    assert [point.step for point in points] == list(range(EPOCHS))


def test_a_read_only_folder_fails_the_run_with_the_reason_before_training(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with small_disk(tmp_path / "work", kib=256) as work:
        make_read_only(work)
        done = subprocess.run(
            store.command("pretrain", SMALL, launcher=False),
            cwd=work, env=store.environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert "Read-only file system" in done.stderr
    (run,) = store.runs()
    assert (run.info.status, "train/loss" in run.data.metrics) == ("FAILED", False)
    assert "cannot write .moola" in run.data.tags["mlflow.note.content"]
