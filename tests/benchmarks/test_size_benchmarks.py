"""The benchmarks of size run through at their smallest, and say what they promise to say."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from paths import ROOT

sys.path.insert(0, str(ROOT))

from benchmarks.speed import startup

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from Linux's /proc"),
]
SAYS = {
    "ingest": ("folder of 8 instruments to a store", "rows"),
    "scale": ("both_time", "slopes"),
    "five_years": ("start to registered encoder", "registered"),
    "features": ("pandas loop with iloc, 3 calls of it a bar", "share_of_epoch"),
    "startup": ("pretrain, first step", "seconds"),
    "processes": ("2 processes against 1", "runs"),
    "tracking": ("with less without", "shares"),
    "finetune": ("folds a second with a frozen encoder", "seconds"),
    "fresh_labels": ("of each set", "differences"),
}

ROOM = {"fresh_labels": "science"}


@pytest.mark.parametrize("name", SAYS)
def test_the_smoke_size_of_a_benchmark_runs_and_leaves_its_result(tmp_path: Path, name: str) -> None:
    line, key = SAYS[name]
    command = [
        sys.executable,
        "-m",
        f"benchmarks.{ROOM.get(name, 'speed')}.{name}",
        "--smoke",
        "--out",
        str(tmp_path / "result.json"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert line in done.stdout
    result = json.loads((tmp_path / "result.json").read_text())
    assert result[key]
    assert result["machine"]["cores"] >= 1


def test_the_first_step_is_measured_to_its_end(tmp_path: Path) -> None:
    before = time.time()
    seconds = startup.first_step(str(tmp_path), smoke=True)
    (journal,) = tmp_path.glob(".moola/runs/*/journal.jsonl")
    events = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    at = {name: event["at"] - before for event in reversed(events) for name in event.get("metrics", {})}
    assert at["leak/masked_sensitivity"] < seconds < at["windows_per_second"]
