"""A clock that is set back in the middle of a training: nothing lost, nothing doubled, no run ended too early."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
from harness import QUICK, SMOKE, Store, absent

EPOCHS = 40
DAY_S = 86_400
LIBRARIES = ("*/faketime/libfaketimeMT.so.1", "faketime/libfaketimeMT.so.1")


def faked() -> Path:
    """The library that gives a process a clock of its own."""
    folders = (Path("/usr/lib"), Path("/usr/local/lib"))
    found = (path for folder in folders for pattern in LIBRARIES for path in folder.glob(pattern))
    return next(found, None) or absent("libfaketime", "apt-get install faketime")


@pytest.mark.slow
def test_a_clock_set_back_by_a_day_loses_no_point_and_no_run_ends_before_it_began(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.runs() == []
    clock = tmp_path / "clock"
    clock.write_text("+0")
    given = {**QUICK, "config": SMOKE, "trainer.epochs": str(EPOCHS), "trainer.patience": str(EPOCHS)}
    environment = {
        **store.environment, "LD_PRELOAD": str(faked()), "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "PYTHONUNBUFFERED": "1",
    }  # fmt: skip
    process = subprocess.Popen(
        store.command("pretrain", given, launcher=False), cwd=tmp_path, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Epoch   3 "):
            break
    else:
        raise AssertionError("it ended before its clock was set back")
    clock.write_text(f"-{DAY_S}")
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    (run,) = store.runs()
    assert run.info.status == "FINISHED"
    assert run.info.end_time >= run.info.start_time > (time.time() - DAY_S / 2) * 1000
    for name in ("val/huber", "train/loss", "lr"):
        points = store.client.get_metric_history(run.info.run_id, name)
        assert [point.step for point in points] == list(range(EPOCHS)), name
        assert [p.timestamp for p in points] == sorted(p.timestamp for p in points)
    (beat,) = tmp_path.glob(".moola/runs/*/heartbeat.json")
    assert json.loads(beat.read_text())["beat_at"] < time.time() - DAY_S / 2  # the clock was indeed another one
