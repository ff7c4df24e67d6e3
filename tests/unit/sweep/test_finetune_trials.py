"""Trials of fine-tuning: what is refused before the first."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from moola_mlflow.core import FinetuneSweepKeys, make_config
from moola_mlflow.core.errors import UserError
from moola_mlflow.sweep.finetune_trials import FinetuneTrials


def test_an_encoder_that_is_not_there_is_refused_before_any_trial(workdir: Path) -> None:
    given = {"labels": {"n": 20}, "finetune": {"encoder": "models:/moola-encoder@nope"}}
    searched = {"sweep": {"stage": "finetune", "space": {"optimizer.lr": [1e-3, 1e-2]}}}
    with pytest.raises(UserError, match="moola-encoder@nope"):
        FinetuneTrials(make_config(FinetuneSweepKeys, {**given, **searched}, {}), torch.device("cpu"), "32")
    given["finetune"] = {}
    searched["sweep"]["space"] = {"finetune.encoder": ["", "no/such.pt"]}
    with pytest.raises(UserError, match=r"no/such\.pt"):
        FinetuneTrials(make_config(FinetuneSweepKeys, {**given, **searched}, {}), torch.device("cpu"), "32")
