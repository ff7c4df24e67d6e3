"""Runs as a store gives them back, made without a store."""

from __future__ import annotations

import json
from typing import Any

from mlflow.entities import Metric, Param, Run, RunData, RunInfo, RunTag

from moola_mlflow.tracking.run_reader import RunRecord

FOLDS = [{"fold": k, "num_train": 20, "num_test": 10, "num_purged": 0} for k in range(4)]
SECOND = "second of two classes"


def record(
    stage: str = "finetune",
    tags: dict[str, str] | None = None,
    metrics: dict[str, float] | None = None,
    params: dict[str, str] | None = None,
    files: dict[str, Any] | None = None,
    status: str = "FINISHED",
    run_id: str = "a",
) -> RunRecord:
    """A run as the store would give it back, with its artifacts fetched already."""
    info = RunInfo(run_id, "0", "me", status, 0, 1, "active", run_name=f"name of {run_id}")
    all_tags = {"moola.stage": stage, "moola.data_sha256": "labels", **(tags or {})}
    data = RunData(
        [Metric(key, value, 0, 0) for key, value in (metrics or {}).items()],
        [Param(key, value) for key, value in (params or {}).items()],
        [RunTag(key, value) for key, value in all_tags.items()],
    )
    names = ("config.yaml", "cv_summary.json", "predictions.json", "scored_events.json", "detector/detector.json")
    given = dict.fromkeys(names) | {
        name: (content if isinstance(content, str) else json.dumps(content)).encode()
        for name, content in (files or {}).items()
    }
    return RunRecord(Run(info, data), given)


def scored(
    right: list[bool], draws: tuple[tuple[int, int], ...] = ((17, 0),), num_groups: int | None = None, **changed: Any
) -> RunRecord:
    """A fine-tuning that names the class and the span of some windows right, in its first draw; elsewhere of none."""
    n = len(right)
    rows = [
        {
            "window_id": f"w{i}", "seed": seed, "repeat": repeat + 1, "label": SECOND if i % 2 else "a",
            "predicted": (SECOND if i % 2 else "a") if ok and k == 0 else ("a" if i % 2 else SECOND),
            "expansion_start": 30, "expansion_end": 40, "predicted_start": 30, "predicted_end": 40,
        }
        for k, (seed, repeat) in enumerate(draws) for i, ok in enumerate(right)
    ]  # fmt: skip
    summary = {
        "fold_results": [{"seed": s, "repeat": r, **row} for s, r in draws for row in changed.pop("folds", FOLDS)],
        "num_groups": n if num_groups is None else num_groups,
        "config": {"cv": {"folds": 4, "kind": "auto", "embargo_bars": 105, **changed.pop("cv", {})}},
    }
    table = {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}
    files = {"cv_summary.json": summary, "predictions.json": table, **changed.pop("files", {})}
    return record(files=files, **changed)
