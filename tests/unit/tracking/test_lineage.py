"""What a model's URI means: which version, and which run made it."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest

from moola_mlflow.tracking import log_model_inputs, resolve_origin
from moola_mlflow.tracking.registry.lineage import Origin, model_id_of


@pytest.fixture
def client(workdir: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient()


@pytest.fixture
def registered(client: mlflow.MlflowClient) -> tuple[str, str]:
    """A logged model that is version 2 of `small`, and its champion: the run's id and the logged model's."""
    run = client.create_run("0")
    model = client.create_logged_model("0", name="encoder", source_run_id=run.info.run_id)
    client.create_registered_model("small")
    client.create_model_version("small", "elsewhere")
    client.create_model_version("small", f"models:/{model.model_id}", run_id=run.info.run_id, model_id=model.model_id)
    client.set_registered_model_alias("small", "champion", "2")
    return run.info.run_id, model.model_id


@pytest.mark.parametrize("uri", ["models:/small@champion", "models:/small/2"])
def test_an_alias_and_a_version_mean_the_version_and_the_run_that_made_it(
    registered: tuple[str, str], uri: str
) -> None:
    assert resolve_origin(uri, {}) == Origin("models:/small/2", *registered)


def test_the_card_says_it_before_the_registry_does(registered: tuple[str, str]) -> None:
    assert resolve_origin("models:/small@champion", {"run_id": "of the card"}).run_id == "of the card"


def test_an_alias_that_moved_means_another_version_later(
    client: mlflow.MlflowClient, registered: tuple[str, str]
) -> None:
    client.set_registered_model_alias("small", "champion", "1")
    assert resolve_origin("models:/small@champion", {}) == Origin("models:/small/1")


@pytest.mark.parametrize(
    ("uri", "card", "expected"),
    [
        ("runs:/abc/encoder", {}, Origin("runs:/abc/encoder", "abc")),
        ("out/encoder", {"run_id": "abc"}, Origin("out/encoder", "abc")),
        ("out/encoder", {"run_id": None}, Origin("out/encoder")),
        ("models:/m-0123", {}, Origin("models:/m-0123", "", "m-0123")),
        ("models:/gone@champion", {}, Origin("models:/gone@champion")),
        ("models:/small/9", {}, Origin("models:/small/9")),
    ],
)
def test_what_no_registry_knows_keeps_its_uri(
    registered: tuple[str, str], uri: str, card: dict[str, object], expected: Origin
) -> None:
    assert resolve_origin(uri, card) == expected


def test_the_logged_model_of_a_version_is_read_from_its_source_if_the_store_keeps_it_there(
    client: mlflow.MlflowClient, registered: tuple[str, str]
) -> None:
    versions = [client.get_model_version("small", number) for number in ("1", "2")]
    assert [model_id_of(version) for version in versions] == ["", registered[1]]


def test_a_run_that_reads_a_model_has_it_as_an_input_and_a_store_that_refuses_it_raises_nothing(
    client: mlflow.MlflowClient, registered: tuple[str, str]
) -> None:
    reader = client.create_run("0").info.run_id
    log_model_inputs(reader, [])
    assert not client.get_run(reader).inputs.model_inputs
    log_model_inputs("0" * 32, [registered[1]])  # the store refuses it: it has no such run
    log_model_inputs(reader, [registered[1]])
    assert [one.model_id for one in client.get_run(reader).inputs.model_inputs] == [registered[1]]
