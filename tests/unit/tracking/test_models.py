"""Registering a version: whole or not at all, under a name of its own kind, and fetched without a word."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from harness import Store
from mlflow import MlflowClient
from small_models import small_detector, small_encoder

from moola_mlflow import load_detector, load_encoder
from moola_mlflow.cli import main
from moola_mlflow.core.errors import UserError
from moola_mlflow.core.signals import Interrupted, Interrupts
from moola_mlflow.models.files.detector import read_detector_card, save_detector
from moola_mlflow.models.files.encoder import save_encoder
from moola_mlflow.tracking.registry import models

PROGRESS_BAR = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"
TAGS = {"preset": "by hand", "gates": "failed: by hand"}


@pytest.fixture
def store(workdir: Path) -> Store:
    store = Store(workdir)
    mlflow.set_experiment("moola")
    encoder, detector = small_encoder(), small_detector()
    save_encoder(encoder, encoder.card, workdir / "encoder")
    save_detector(detector, workdir / "detector")
    return store


def add_encoder(store: Store, name: str) -> str:
    with mlflow.start_run():
        return models.log_encoder(name, store.folder / "encoder", small_encoder().card, TAGS)


def add_detector(store: Store, name: str) -> str:
    card = read_detector_card(store.folder / "detector" / "detector.json")
    with mlflow.start_run():
        return models.log_detector(name, store.folder / "detector", card, TAGS)


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    """Handlers as a command installs them."""
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    interrupts = Interrupts()
    interrupts.install()
    yield interrupts
    Interrupts.current = None
    for signum, handler in before.items():
        signal.signal(signum, handler)


def interrupted_at(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Have a Ctrl-C arrive just before a step of the registration."""
    real = getattr(MlflowClient, method)

    def step(*given: Any, **named: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return real(*given, **named)

    monkeypatch.setattr(MlflowClient, method, step)


@pytest.mark.parametrize("method", ["create_registered_model", "_create_model_version", "set_registered_model_alias"])
def test_ctrl_c_while_a_version_is_made_leaves_a_whole_candidate(
    store: Store, interrupts: Interrupts, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    interrupted_at(monkeypatch, method)
    with pytest.raises(Interrupted):
        add_encoder(store, "cut")
    version = store.client.get_model_version_by_alias("cut", "candidate")
    assert (str(version.version), version.tags) == ("1", {**TAGS, "moola.kind": "encoder"})


def test_a_death_before_the_alias_moves_leaves_the_older_candidate(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_encoder(store, "dead")

    def die(*given: Any) -> None:
        raise SystemExit("killed")

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", die)
    with pytest.raises(SystemExit):
        add_encoder(store, "dead")
    assert str(store.client.get_model_version_by_alias("dead", "candidate").version) == "1"
    assert store.client.get_model_version("dead", "2").tags["gates"] == TAGS["gates"]


def test_a_version_without_tags_is_never_taken_as_candidate(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    add_encoder(store, "half")
    source = store.client.get_model_version("half", "1").source
    store.client.create_model_version("half", source)
    store.client.set_registered_model_alias("half", "candidate", "2")
    with pytest.raises(UserError, match="version 2 of half, which alias 'candidate' names, has no tags"):
        load_encoder("models:/half@candidate")
    assert main.run_cli(["promote", "--model", "half"]) == 2
    assert "its registration was interrupted" in capsys.readouterr().err
    assert "champion" not in store.client.get_registered_model("half").aliases
    assert load_encoder("models:/half/1").card["architecture"]["hidden"] == 4


@pytest.mark.parametrize("tagged", [True, False], ids=["tagged", "older"])
def test_a_name_holds_one_kind_of_model(store: Store, tagged: bool) -> None:
    add_encoder(store, "encoders")
    add_detector(store, "detectors")
    if not tagged:  # versions made before there was a tag
        for name in ("encoders", "detectors"):
            store.client.delete_model_version_tag(name, "1", "moola.kind")
    with pytest.raises(UserError, match="'encoders' holds encoders, and this is a detector; give another name"):
        add_detector(store, "encoders")
    with pytest.raises(UserError, match="'detectors' holds detectors, and this is an encoder"):
        add_encoder(store, "detectors")
    assert [add_encoder(store, "encoders"), add_detector(store, "detectors")] == ["2", "2"]


@pytest.mark.parametrize("asked", ["", "true"])
def test_loading_shows_no_progress_bars_unless_they_are_asked_for(
    store: Store, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    add_encoder(store, "quiet")
    add_detector(store, "quiet-detector")
    monkeypatch.delenv(PROGRESS_BAR, raising=False)  # a command in this process has set it
    if asked:
        monkeypatch.setenv(PROGRESS_BAR, asked)
    capfd.readouterr()
    load_encoder("models:/quiet@candidate")
    load_detector("models:/quiet-detector/1")
    said = "".join(capfd.readouterr())
    assert ("Downloading artifacts" in said) == bool(asked)
    assert os.environ.get(PROGRESS_BAR, "") == asked


@pytest.mark.parametrize("version", ["@candidate", "/1"])
def test_a_registered_model_is_loaded_without_the_files_of_the_package(
    store: Store, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    add_encoder(store, "encoders")
    add_detector(store, "detectors")
    fetch, fetched = mlflow.artifacts.download_artifacts, []

    def seen(**named: str) -> str:
        local = fetch(**named)
        fetched.append(sum(path.is_file() for path in Path(local).rglob("*")))
        return local

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", seen)
    assert load_encoder(f"models:/encoders{version}").card
    assert load_detector(f"models:/detectors{version}").classes
    assert len(fetched) == 2
    assert max(fetched) < 10, "cards and weights"


@pytest.mark.parametrize("given", ["", "true"])
def test_files_are_fetched_through_the_server_unless_the_user_says_otherwise(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD"
    monkeypatch.delenv(name, raising=False)
    if given:
        monkeypatch.setenv(name, given)
    with models.quiet_download():
        assert os.environ[name] == (given or "false")
    assert os.environ.get(name, "") == given


def test_it_is_said_where_the_candidate_has_moved_and_whether_the_gates_were_met(
    tmp_path: Path, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = small_encoder()
    save_encoder(encoder, encoder.card, tmp_path / "encoder")
    for gates in ("passed: all 3", "failed: skill"):
        with mlflow.start_run():
            models.log_encoder("nq-encoder", tmp_path / "encoder", encoder.card, {"gates": gates})
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("nq-encoder")]
    assert said == [
        "nq-encoder: candidate is now version 1, it was unset; its gates were met (passed: all 3)",
        "nq-encoder: candidate moved from version 1 to version 2; its gates were not met (failed: skill)",
    ]
