"""A command can be called with values of Python, as the Python API does."""

from __future__ import annotations

from pathlib import Path

import pytest

from moola_mlflow.cli.calling import call_command
from moola_mlflow.cli.parser import parse, settle
from moola_mlflow.core import UserError


def test_values_of_python_mean_what_their_texts_mean() -> None:
    words = ["--config", "smoke", "--epochs", "3", "--encoder.hidden", "8", "--objective.mask_ratio", "0.3"]
    values = {"config": "smoke", "epochs": 3, "encoder.hidden": 8, "objective.mask_ratio": 0.3, "lr": None, "bars": ""}
    assert settle("pretrain", values) == parse("pretrain", words)


def test_a_command_gives_its_outcome_to_the_caller(workdir: Path) -> None:
    made = call_command("label", {"n": 20, "bars.sample_bars": 20_000, "out": "mine.parquet"})
    assert len(made.labels) == 20
    assert made.path.is_file()
    with pytest.raises(UserError, match="unknown parameter 'rulez'"):
        call_command("label", {"rulez": "surge-1"})
