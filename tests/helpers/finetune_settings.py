"""Small settings of a fine-tuning, one of each kind of encoder."""

from __future__ import annotations

from typing import Any

import torch
from small_labels import small_labels
from small_models import small_encoder

from moola_mlflow.core import FinetuneKeys, make_config
from moola_mlflow.evaluation.methods import (
    FinetuneSetting,
    make_setting,
)
from moola_mlflow.models.encoders.base import Encoder

LABELS = small_labels(24, seed=4)
CPU = torch.device("cpu")
SMALL = {
    "trainer.epochs": 2,
    "encoder.hidden": 3,
    "encoder.layers": 1,
    "optimizer.lr": 4e-3,
    "labels.path": "l.parquet",
}
KINDS = ("price_path", "frozen", "unfrozen", "scratch", "ensemble", "ensemble trained on")


def encoders_of(kind: str) -> list[Encoder]:
    trained = {"trained_from": "2020-01-01T00:00:00Z", "trained_until": "2021-01-01T00:00:00Z"}
    one = small_encoder(hidden=4, seed=1, **trained)
    other = small_encoder("relativity10", 3, 2, **{**trained, "trained_until": "2022-01-01T00:00:00Z"})
    return {"scratch": [], "price_path": []}.get(kind, [one, other] if kind.startswith("ensemble") else [one])


def setting(kind: str, encoders: list[Encoder] | None = None, **keys: Any) -> FinetuneSetting:
    """A setting of each kind; further keys with two underscores for the dot."""
    chosen = {"price_path": {"finetune.inputs": "price_path"}, "unfrozen": {"finetune.freeze": False}}
    chosen["ensemble trained on"] = chosen["unfrozen"]
    given = {key.replace("__", "."): value for key, value in keys.items()}
    config: FinetuneKeys = make_config(FinetuneKeys, {}, {**SMALL, **chosen.get(kind, {}), **given})
    return make_setting(LABELS, encoders_of(kind) if encoders is None else encoders, config, CPU, "fp32")
