"""Workers start with a command only where they save time: on a second core, before MLflow is imported."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from empty_store import copy_empty_store
from harness import Store

from moola_mlflow.cli.ahead import PICTURES, workers_of

COUNTED = """
import sys
from moola_mlflow.cli.main import run_cli
from moola_mlflow.core import WorkerPool
made = []
start = WorkerPool.__init__
WorkerPool.__init__ = lambda pool, num, *more: (made.append(num), start(pool, num, *more))[1]
code = run_cli(sys.argv[1:])
print(max(made), "matplotlib" in sys.modules)
sys.exit(code)
"""


def test_no_worker_starts_once_mlflow_is_imported_or_on_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert workers_of("data") == (1, PICTURES["data"])
    assert workers_of("promote") == (0, ())
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert workers_of("data") == (0, ())
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setitem(sys.modules, "mlflow", sys)
    assert workers_of("data") == (0, ())


@pytest.mark.parametrize("name", sorted({module for modules in PICTURES.values() for module in modules}))
def test_every_module_that_a_worker_imports_is_there(name: str) -> None:
    importlib.import_module(name)


@pytest.mark.parametrize(("cores", "said"), [("2", "1 False"), ("1", "0 True")])
def test_data_has_its_pictures_drawn_by_a_worker_on_a_second_core(cores: str, said: str, tmp_path: Path) -> None:
    copy_empty_store(tmp_path)
    words = [sys.executable, "-c", COUNTED, "data", "--bars.sample_bars", "2000", "--out", "bars.parquet"]
    environment = {**Store(tmp_path).environment, "OMP_NUM_THREADS": cores}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == said
