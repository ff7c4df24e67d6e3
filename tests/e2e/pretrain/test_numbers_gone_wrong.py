"""A loss that is no number, through the command: a failed run that says where, and the way back where it is wanted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness import QUICK, SMOKE, Store

pytestmark = pytest.mark.slow
DIVERGING = {**QUICK, "config": SMOKE, "register": "none", "optimizer.lr": "1e6", "schedule.warmup_epochs": "0"}


@pytest.mark.parametrize("retry", ["false", "true"])
def test_a_diverging_training_leaves_its_diagnosis_and_retries_where_asked_to(tmp_path: Path, retry: str) -> None:
    store = Store(tmp_path)
    done = store.run("pretrain", {**DIVERGING, "trainer.nan_retry": retry})
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (run,) = store.runs()
    assert run.info.status == "FAILED"
    assert "lower optimizer.lr" in run.data.tags["mlflow.note.content"]
    found = json.loads(store.artifact(run, "diagnosis.json").read_text())
    assert store.artifact(run, "figures/feature_quality.png").stat().st_size > 10_000
    assert {"epoch", "step", "loss", "gradient_norms", "features", "windows", "weights_not_finite"} <= set(found)
    assert len(found["features"]) == 11
    assert ("moola.nan_retry" in run.data.tags) == (retry == "true")
    assert ("at 0.5 of the learning rate" in done.stdout) == (retry == "true")
