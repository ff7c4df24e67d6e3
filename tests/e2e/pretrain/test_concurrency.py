"""Several processes on one SQLite store: nothing is lost, and no lock error reaches the user."""

from __future__ import annotations

import threading
from pathlib import Path

import mlflow
import pytest
import screenshots
from harness import QUICK, SMOKE, Store

pytestmark = pytest.mark.slow
EPOCHS = 30


def test_two_trainings_at_once_while_the_ui_reads_lose_no_point_and_see_no_lock(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.runs() == []
    given = {**QUICK, "config": SMOKE, "trainer.epochs": str(EPOCHS), "trainer.patience": str(EPOCHS)}
    with screenshots.served(tmp_path) as address:
        over, errors, looks = threading.Event(), [], [0]

        def look() -> None:
            """Read as the runs table and the charts of the UI do, as fast as the server answers."""
            client = mlflow.MlflowClient(address)
            while not over.is_set():
                try:
                    experiments = [one.experiment_id for one in client.search_experiments()]
                    for run in client.search_runs(experiments):
                        client.get_metric_history(run.info.run_id, "val/huber")
                    looks[0] += 1
                except Exception as e:  # whatever it is, the test shows it
                    errors.append(str(e))

        reader = threading.Thread(target=look)
        reader.start()
        processes = [store.start("pretrain", {**given, "seed": seed}) for seed in ("13", "17")]
        said = [process.communicate(timeout=500)[0] for process in processes]
        over.set()
        reader.join()
    assert [process.returncode for process in processes] == [0, 0], said
    assert "locked" not in "".join(said)
    assert errors == []
    assert looks[0] > 3
    runs = store.runs()
    assert [run.info.status for run in runs] == ["FINISHED"] * 2
    for run in runs:
        for name in ("train/loss", "val/huber", "lr"):
            points = store.client.get_metric_history(run.info.run_id, name)
            assert [point.step for point in points] == list(range(EPOCHS)), name
    versions = store.client.search_model_versions("name='moola-encoder'")
    assert {version.run_id for version in versions} == {run.info.run_id for run in runs}
