"""Pre-training on rules by real processes: one that is killed goes on bit-equal, and two train as one does."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from epochs import wait_for_epochs
from harness import ROOT, Store
from mlflow.entities import Run
from torchrun import start_processes

from moola_mlflow.models.files.encoder import load_from_path

pytestmark = pytest.mark.slow
SMALL = {
    "config": str(ROOT / "configs" / "rules.yaml"), "bars.sample_bars": "20000", "encoder.hidden": "8",
    "objective.num_rules": "12", "objective.rules_per_step": "6", "trainer.steps": "120", "register": "none",
}  # fmt: skip


def encoder_of(store: Store, run: Run) -> dict[str, torch.Tensor]:
    """Return weights and task heads of a run's encoder."""
    encoder = load_from_path(store.folder / ".moola" / "runs" / run.info.run_id / "encoder")
    heads = encoder.task_heads
    return {**encoder.state_dict(), "pointers": heads.pointers, "classes": heads.classes}


def curve(store: Store, run: Run, name: str) -> list[float]:
    return [point.value for point in store.client.get_metric_history(run.info.run_id, name)]


def test_a_killed_training_on_rules_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole, store = Store(tmp_path / "whole"), Store(tmp_path / "killed")
    assert whole.run("pretrain", SMALL).returncode == 0
    (expected,) = whole.runs()
    process = store.start("pretrain", SMALL)
    wait_for_epochs(store, 2, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    done = store.run("pretrain", {**SMALL, "resume": "auto"})
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Going on with run" in done.stdout
    (run,) = store.runs()
    ours, theirs = encoder_of(store, run), encoder_of(whole, expected)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    for name in ("train/loss", "val/huber", "rules/few_shot"):
        assert curve(store, run, name) == curve(whole, expected, name)
        assert len(curve(store, run, name)) > 2


def test_two_processes_train_on_rules_as_one_does(tmp_path: Path) -> None:
    store, losses = Store(tmp_path), []
    assert store.runs() == []  # the tables are there before the processes are
    for processes in (1, 2):
        launcher = start_processes(store, processes, {**SMALL, "trainer.steps": "40"})
        said, _ = launcher.communicate(timeout=300)
        assert launcher.returncode == 0, said[-3000:]
        losses.append(curve(store, store.runs()[0], "val/huber"))
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
