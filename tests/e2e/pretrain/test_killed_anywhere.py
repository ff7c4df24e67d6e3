"""A training that is killed right before any change of the disk goes on to the same bits, best epoch and curves.

The kill comes before every single replacement, link, removal and fsync of a training of three epochs.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import dying_command
import pytest
import torch
from empty_store import copy_empty_store
from harness import SMOKE, Store
from warm_process import run_python

WORDS = (
    *("pretrain", "--config", SMOKE, "--bars.sample_bars", "3000", "--encoder.hidden", "4"),
    *("--trainer.epochs", "3", "--register", "none", "--resume", "auto"),
)
TIMES = ("epoch_seconds", "windows_per_second", "total_seconds", "system/")

CURVES = ("train/", "val/", "lr")
"""Metrics of each epoch: every point is there once. A start logs its features again, with the same values."""
MOST_EARLY = 20
"""Kills, of about 200, that a run may end before."""


def outcomes(folder: Path) -> list[dict[str, Any]]:
    """Return what each finished training has left in a store: every point, weights and epochs of its checkpoints.

    A kill after a run has ended, and before its process has, leaves a finished run; `resume=auto` then makes a second.
    A kill before a run has a journal leaves one that never began: `doctor` ends it.
    """
    with closing(sqlite3.connect(folder / "mlflow.db")) as store:
        runs = store.execute("SELECT run_uuid, artifact_uri, status FROM runs").fetchall()
        points = store.execute("SELECT run_uuid, key, step, value FROM metrics").fetchall()
    begun = {point[0] for point in points}
    assert {status for run_id, _, status in runs if run_id in begun} <= {"FINISHED", "KILLED"}
    return [
        outcome([point[1:] for point in points if point[0] == run_id], Path(place))
        for run_id, place, status in runs
        if status == "FINISHED"
    ]


def outcome(points: list[tuple[str, int, float]], artifacts: Path) -> dict[str, Any]:
    saved = {
        name: torch.load(artifacts / "checkpoints" / f"checkpoint_{name}.pt", map_location="cpu", weights_only=True)
        for name in ("latest", "best", "top_1", "top_2", "top_3")
    }
    return {
        "curves": sorted(point for point in points if point[0].startswith(CURVES)),
        "points": sorted({point for point in points if not point[0].startswith((*TIMES, *CURVES))}),
        "epochs": {name: state["epoch"] for name, state in saved.items()},
        "weights": {
            name: {k: v.tolist() for k, v in state["model_state_dict"].items()} for name, state in saved.items()
        },
        "encoder": (artifacts / "encoder" / "weights.safetensors").read_bytes(),
    }


def tried(tmp_path: Path) -> tuple[dict[str, list[int]], list[str], dict[str, int]]:
    """Kill and go on at every change.

    Returns exit codes by folder, the changes of a whole run, and how many changes a run had that ended before its kill.
    """
    (tmp_path / "store").mkdir()
    copy_empty_store(tmp_path / "store")
    words = [dying_command.__file__, str(tmp_path), *WORDS]
    done = run_python(words, tmp_path, Store(tmp_path / "store").environment, timeout=7200)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "codes.json").read_text())
    return found["codes"], found["changes"], found["early"]


def is_like(expected: dict[str, Any], folder: Path) -> bool:
    """Return whether every training of a folder ended as the one that was not killed."""
    found = outcomes(folder)
    return bool(found) and all(one == expected for one in found)


@pytest.mark.slow
def test_a_training_killed_before_any_change_of_the_disk_goes_on_to_the_same_bits(
    tmp_path: Path, figure: Callable[[str], None]
) -> None:
    codes, changes, early = tried(tmp_path)
    assert codes.pop("whole") == [0]
    assert len(codes) == len(changes) > 100
    # a run that sends its last points in fewer steps has ended before its last kills
    assert all(num_changes <= int(name) for name, num_changes in early.items())
    assert len(early) <= MOST_EARLY
    (expected,) = outcomes(tmp_path / "whole")
    wrong = [
        f"{name} {changes[int(name)]}: {ended}"
        for name, ended in codes.items()
        if ended != [0 if name in early else dying_command.DEAD, 0] or not is_like(expected, tmp_path / name)
    ]
    kinds = Counter(change.split()[0] for change in changes)
    line = f"killed before each of {len(changes)} changes: {', '.join(f'{n} {kind}' for kind, n in kinds.items())}"
    print(line)
    figure(line)
    assert not wrong, "\n".join(wrong)
