"""Where a run is seen in MLflow's UI, and what a model's page says."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path

import mlflow
import pytest
from empty_store import copy_empty_store
from mlflow.exceptions import MlflowException

from moola_mlflow.tracking import ui


@pytest.fixture(autouse=True)
def _uri(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def where(uri: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: uri)
    return ui.run_address("1", "ab")


def test_a_run_on_a_server_has_an_address_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    assert where("http://127.0.0.1:5000/", monkeypatch) == "http://127.0.0.1:5000/#/experiments/1/runs/ab"
    assert where("https://me:secret@host/mlflow", monkeypatch) == "https://host/mlflow/#/experiments/1/runs/ab"


def test_a_run_in_a_database_has_the_command_that_shows_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    then = "http://127.0.0.1:5000/#/experiments/1/runs/ab"
    for own in ("sqlite:///mlflow.db", f"sqlite:///{tmp_path}/mlflow.db"):
        assert where(own, monkeypatch) == f"mlflow ui, then {then}"
    other = "sqlite:////data/mlflow.db"
    assert where(other, monkeypatch) == f"mlflow ui --backend-store-uri {other}, then {then}"
    secret = "postgresql://me:secret@host/db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", secret)
    assert where(secret, monkeypatch) == f"mlflow ui --backend-store-uri $MLFLOW_TRACKING_URI, then {then}"


def test_a_version_says_its_scores_its_gates_and_where_it_comes_from() -> None:
    encoder = {
        "val_skill": "0.1410", "preset": "stones", "features": "relativity11", "moola.identity": "true",
        "trained_from": "2023-01-02T23:00Z", "trained_until": "2023-03-01T18:04Z",
        "gates": "failed: identity 1 > 0; probe_r2_gain 0.01 <= 0.067 (by 0.06)",
    }  # fmt: skip
    text = ui.version_text("encoder", encoder)
    assert text.startswith("Skill 0.1410 on validation windows.")
    assert "its skill measures copying" in text
    assert "Gates at registration: missed identity, probe_r2_gain." in text
    assert text.endswith(
        "Made with preset `stones`, features `relativity11`, encoder trained on 2023-01-02 to 2023-03-01."
    )
    detector = {"f1_macro": "0.7", "joint_success_at_3": "0.5", "trained_from": "unknown", "weak_labels": "true"}
    detector |= {"gates": "passed", "preset": "<img src=x>"}
    text = ui.version_text("detector", detector)
    assert text.startswith("F1 macro 0.7, Joint@3 0.5 out of fold, on WEAK labels.")
    assert "Gates at registration: passed." in text
    assert "preset `<img src=x>`" in text
    assert "trained on" not in text
    assert ui.version_text("encoder", {}) == ""


def test_saved_views_are_what_the_ui_itself_writes() -> None:
    for key, view in ui.VIEWS.items():
        tag = json.loads(ui.view_tags()[f"mlflow.sharedViewState.{key}"])
        kind, _, packed = tag["state"].partition(";")
        state = json.loads(zlib.decompress(base64.b64decode(packed)))
        assert (tag["name"], kind) == (view.name, "deflate")
        assert state["searchFilter"] == f"tags.`moola.stage` = '{view.stage}'"
        assert all(column.count("`") == 2 for column in state["selectedColumns"])
    assert ui.view_tags() == ui.view_tags()


class Late(mlflow.MlflowClient):
    """A client of a store in which another command has set each tag just before, as PostgreSQL answers it."""

    def set_experiment_tag(self, experiment_id: str, key: str, value: object) -> None:
        super().set_experiment_tag(experiment_id, key, value)
        raise MlflowException("duplicate key value violates unique constraint")


class Refused(mlflow.MlflowClient):
    """A client of a store that takes no tag."""

    def set_experiment_tag(self, experiment_id: str, key: str, value: object) -> None:
        raise MlflowException("no rights")


def test_views_that_another_command_adds_at_the_same_time_are_kept_and_a_refusal_is_told(tmp_path: Path) -> None:
    copy_empty_store(tmp_path)
    late, refused = (kind(f"sqlite:///{tmp_path}/mlflow.db") for kind in (Late, Refused))
    experiment = late.get_experiment(late.create_experiment("new"))
    with pytest.raises(MlflowException, match="no rights"):
        ui.offer_views(refused, experiment)
    ui.offer_views(late, experiment)
    assert set(ui.view_tags()) <= set(late.get_experiment(experiment.experiment_id).tags)
