"""Weak labels of real bars through a fine-tuning: neither file holds 174, so all that are found are used."""

from __future__ import annotations

from pathlib import Path

import pytest
from finetuning import NOTE, SMALL, command, newest
from harness import Store

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["es_front_1min", "es_multi_expiry_1min"])
def test_fewer_real_labels_than_asked_for_are_all_used_and_that_is_told(
    real_data: Path, tmp_path: Path, name: str
) -> None:
    store = Store(tmp_path)
    bars = {"bars": str(real_data / f"{name}.parquet"), "bars__instrument": "front"}
    made = command(store, "label", **bars, n="174", out="es.parquet")
    found = int(newest(store, made).data.metrics["labels/used"])
    assert 80 <= found <= 160
    assert f"Warning: {found} labelled windows found, fewer than the 174 asked for (n): all are used." in made.out
    small = {key.replace(".", "__"): SMALL[key] for key in ("encoder.hidden", "encoder.layers", "epochs", "cv.workers")}
    done = command(
        store, "finetune", labels="es.parquet", finetune__inputs="price_path", folds="5", register="none", **small
    )
    run = newest(store, done)
    assert run.data.metrics["labels/used"] == run.data.metrics["labels/groups"] == found
    assert run.data.tags["moola.weak_labels"] == "true"
    assert 0 < run.data.metrics["cv/ece_if_calibrated"] < 0.2
    assert "The labels are WEAK" in run.data.tags[NOTE]
    scarce = min(run.data.metrics[f"labels/{kind}"] for kind in ("consolidation", "retracement"))
    refused = command(store, "finetune", labels="es.parquet", folds=str(int(scarce) // 2 + 1), **small)
    assert refused.code == 2
    assert f"lower cv.folds to {int(scarce) // 2} or label more" in refused.err
