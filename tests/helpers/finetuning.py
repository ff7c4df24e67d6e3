"""Fine-tuning as users start it: what the end-to-end tests of `finetune` share."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from harness import Store
from mlflow.entities import Run
from small_models import small_encoder

from moola_mlflow.cli import main
from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.files.encoder import save_encoder
from moola_mlflow.tracking.registry import models

NOTE = "mlflow.note.content"
SMALL = {"labels.n": "60", "bars.sample_bars": "20000", "encoder.hidden": "3", "encoder.layers": "1", "epochs": "2",
         "folds": "3", "cv.workers": "1"}  # fmt: skip
NETWORKS = ("scratch", "pooled_scratch", "random_encoder", "path_features")
CLASSICAL = ("majority", "logistic", "boosting", "rule")


@dataclass
class Done:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


def command(store: Store, name: str, **parameters: str) -> Done:
    """Run a command in this process and the store's folder; two underscores in a key are a dot."""
    given = {key.replace("__", "."): value for key, value in parameters.items()}
    words = [word for key, value in given.items() for word in (f"--{key}", value)]
    out, err = io.StringIO(), io.StringIO()
    mlflow.set_tracking_uri(store.uri)
    with contextlib.chdir(store.folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main.run_cli([name, *words])
    return Done(code, out.getvalue(), err.getvalue())


def finetune(store: Store, **parameters: str) -> Done:
    given = {key.replace("__", "."): value for key, value in parameters.items()}
    return command(store, "finetune", **{**SMALL, **given})


def parents(store: Store) -> list[Run]:
    """Runs that are no fold, the newest first."""
    return [run for run in store.runs() if "mlflow.parentRunId" not in run.data.tags]


def children(store: Store, run: Run) -> list[Run]:
    """Fold runs of a run, in the order in which they ended."""
    found = [one for one in store.runs() if one.data.tags.get("mlflow.parentRunId") == run.info.run_id]
    return sorted(found, key=lambda one: (one.data.tags["moola.seed"], int(one.data.tags["moola.fold"])))


def newest(store: Store, done: Done) -> Run:
    assert done.code == 0, done.err[-3000:]
    return parents(store)[0]


def version_of(store: Store, name: str = "moola-detector", number: str = "1") -> Any:
    return store.client.get_model_version(name, number)


def add_encoder(store: Store, folder: str, encoder: Encoder) -> None:
    """Save an encoder in the store's folder and register it as moola-encoder."""
    mlflow.set_tracking_uri(store.uri)
    with contextlib.chdir(store.folder):
        mlflow.set_experiment("moola")
        save_encoder(encoder, encoder.card, Path(folder))
        with mlflow.start_run() as run:
            models.log_encoder("moola-encoder", Path(folder), encoder.card, {})
        mlflow.MlflowClient().delete_run(run.info.run_id)  # tests look at runs of commands


def new_store(folder: Path) -> Store:
    store = Store(folder)
    times = {"trained_from": "2024-01-01T00:00:00Z", "trained_until": "2024-02-01T00:00:00Z"}
    for i, (name, features) in enumerate([("one", "relativity11"), ("other", "relativity10")]):
        data = {"path": "elsewhere.parquet", "sha256": "0" * 64}
        add_encoder(
            store, name, small_encoder(features, 4 + i, i, model_id=name, run_id=f"run-{name}", data=data, **times)
        )
    return store


def card_of(store: Store, run: Run) -> dict[str, Any]:
    return json.loads(store.artifact(run, "detector/detector.json").read_text())
