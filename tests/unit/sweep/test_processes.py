"""Worker processes: what one says that fails."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest
from small_studies import Bench, configured

from moola_mlflow.core import SweepKeys
from moola_mlflow.sweep import processes
from moola_mlflow.sweep.processes import WorkerJob
from moola_mlflow.sweep.worker import Reporter, TrialOutcome

ADDRESS = "http://me:secret@127.0.0.1:9/api"


def raises(config: SweepKeys) -> Callable[[SweepKeys, Reporter], TrialOutcome]:
    raise RuntimeError(f"no data from {ADDRESS}")


def test_a_worker_process_that_fails_shows_no_password(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configured(n_trials=2)
    _, run_id = Bench(config).sweep()
    monkeypatch.setattr(processes.signal, "signal", lambda *handler: None)
    mine, theirs = multiprocessing.Pipe()
    with pytest.raises(SystemExit) as left:  # any other exception multiprocessing would print whole
        processes._main(WorkerJob(config, "contract", "1", run_id, raises), theirs)
    assert left.value.code == 1
    assert mine.recv() == "RuntimeError: no data from http://127.0.0.1:9/api"
    said = capsys.readouterr().err
    assert "in raises" in said
    assert "secret" not in said
