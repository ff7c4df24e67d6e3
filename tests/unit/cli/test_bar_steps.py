"""Commands that only read bars start without torch, which takes half a second and more to import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from empty_store import copy_empty_store
from harness import Store

LIGHT = """
import sys
from moola_mlflow.cli.main import run_cli
code = run_cli(sys.argv[1:])
print("torch" in sys.modules)
sys.exit(code)
"""


@pytest.mark.parametrize(
    "words",
    [
        ("data", "--bars.sample_bars", "2000", "--out", "bars.parquet"),
        ("label", "--bars.sample_bars", "20000", "--labels.n", "40", "--out", "labels.parquet"),
    ],
)
def test_a_command_that_reads_bars_ends_without_torch(words: tuple[str, ...], tmp_path: Path) -> None:
    copy_empty_store(tmp_path)
    command = [sys.executable, "-c", LIGHT, *words]
    environment = Store(tmp_path).environment
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "False"
