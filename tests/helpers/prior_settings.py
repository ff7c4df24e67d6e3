"""Settings of a fine-tuning with the prior reader, on small labels and an encoder with heads of rules."""

from __future__ import annotations

from typing import Any

import torch
from small_labels import small_labels
from small_models import small_encoder

from moola_mlflow.core import FinetuneKeys, make_config
from moola_mlflow.evaluation.methods import FinetuneSetting, make_setting
from moola_mlflow.labels.labelled_set import LabelledSet
from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.task_heads import TaskHeads

LABELS = small_labels(24, seed=4)
CPU = torch.device("cpu")


def encoder_with_heads(seed: int = 0, hidden: int = 4) -> Encoder:
    """Return an encoder with the heads of six rules, all of them random."""
    encoder = small_encoder(seed=seed, hidden=hidden)
    torch.manual_seed(seed)
    names = tuple(f"rule-{i}" for i in range(6))
    size = encoder.output_size
    encoder.task_heads = TaskHeads(names, torch.randn(6, 2, size), torch.randn(6, 3, 3 * size))
    return encoder


def setting(encoders: list[Encoder], labels: LabelledSet = LABELS, **keys: Any) -> FinetuneSetting:
    """Return a setting of two folds and two epochs."""
    given = {"trainer.epochs": 2, "labels.path": "l.parquet", "cv.folds": 2, "finetune.encoder": "given", **keys}
    return make_setting(labels, encoders, make_config(FinetuneKeys, {}, given), CPU, "fp32")
