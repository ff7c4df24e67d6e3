"""What a run keeps of its configuration: the keys that its command reads, as parameters, a file and a hash."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest

from moola_mlflow.core import COMMANDS, CommandKeys, FinetuneKeys, make_config
from moola_mlflow.tracking.run import Run


@pytest.mark.parametrize(
    "config", [make_config(FinetuneKeys, {}, {"finetune.gamma": 2}), COMMANDS["promote"]()], ids=["finetune", "promote"]
)
def test_a_run_has_every_key_of_its_command_as_parameter_and_in_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: CommandKeys
) -> None:
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    try:
        with Run.start("label", "config") as active:
            active.config(config)
        logged = mlflow.MlflowClient().get_run(active.id).data
        text = mlflow.artifacts.load_text(f"runs:/{active.id}/config.yaml")
    finally:
        mlflow.set_tracking_uri(before)
    assert logged.params == {key: str(value) for key, value in config.logged().items()}
    assert (text, logged.tags["moola.config_sha256"]) == (config.to_yaml(), config.sha256())
