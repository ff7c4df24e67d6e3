"""Fixtures that several test files share."""

from __future__ import annotations

import gc
import os
import sys

# Before torch is imported anywhere: two suites on one machine must not fight for cores.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import quick_sqlite  # noqa: F401
from empty_store import copy_empty_store
from hypothesis import settings
from paths import REAL_DATA

LONGEST = (
    "e2e/pretrain/test_killed_anywhere.py",
    "docs/test_docs_commands.py",
    "e2e/sweep/test_sweep.py",
    "e2e/main/test_tour_command.py",
    "docs/test_readme.py",
    "e2e/launcher/test_every_entry_point.py",
    "e2e/pretrain/test_distributed.py",
    "e2e/sync/test_outage.py",
    "e2e/sweep/test_sweep_servers.py",
    "e2e/sweep/test_sweep_sharing.py",
    "benchmarks/test_speed_benchmarks.py",
    "e2e/pretrain/test_shared_server.py",
    "benchmarks/test_size_benchmarks.py",
    "e2e/pretrain/test_resume_command.py",
    "unit/evaluation/test_shuffled_labels.py",
    "e2e/finetune/test_finetune_interrupted.py",
    "docs/test_sweep_docs.py",
)
"""The slow lane's longest files. They start first: a file has one worker, and the last one to end decides."""

# What is imported stays. Python's own thresholds look through it again and again: a tenth of the CPU time of the tests.
gc.set_threshold(100_000, 50, 100)

# A shared machine stalls for seconds; no test asserts on time.
settings.register_profile("moola", deadline=None)
settings.load_profile("moola")


@pytest.fixture(autouse=True)
def _no_experiment_of_another_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the experiment that MLflow wrote into this process's environment: a command would take it for the user's.

    ``mlflow.set_experiment`` writes it there.
    """
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    tests = Path(__file__).parent
    place = {tests / name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(LONGEST)))


def pytest_collection_finish() -> None:
    """Leave what is there before the first test out of every later garbage collection."""
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List what tests found, of those that passed too: what they print is seen of those that fail alone."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    found = [
        f"{report.nodeid}: {value}"
        for report in reports
        if report.when == "call"
        for name, value in report.user_properties
        if name == "figure"
    ]
    if found:
        terminalreporter.section("figures")
        terminalreporter.write_line("\n".join(sorted(found)))


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Record a line for the section "figures" that ends the run's output; it comes from worker processes too."""
    return lambda line: record_property("figure", line)


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real bars."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"real bars are not here: {REAL_DATA} is absent; everything else is tested on synthetic bars")
    return REAL_DATA


@pytest.fixture(scope="session")
def sample_prices() -> np.ndarray:
    """Windows of the synthetic series. Shapes: float64 [N, 105, 4]."""
    from moola_mlflow.bars.reader import read_bars
    from moola_mlflow.core import BarsConfig
    from moola_mlflow.windows.windows import make_windows

    windows = make_windows(read_bars(BarsConfig(sample_bars=8000)))
    return windows.gather(np.arange(len(windows)))


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with a tracking store of its own."""
    monkeypatch.chdir(tmp_path)
    copy_empty_store(tmp_path)
    if "mlflow" in sys.modules:  # an address that another test has set counts more than the environment's
        sys.modules["mlflow"].set_tracking_uri(None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    return tmp_path
