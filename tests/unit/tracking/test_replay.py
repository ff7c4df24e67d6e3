"""Events as calls to a store: each reaches it, and sending it twice changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from moola_mlflow.core import UserError
from moola_mlflow.tracking import Tags
from moola_mlflow.tracking.delivery.batches import MAX_METRICS, MAX_PARAM
from moola_mlflow.tracking.delivery.files import waiting_folder
from moola_mlflow.tracking.delivery.journal import Event
from moola_mlflow.tracking.delivery.replay import MAX_NOTE, Replayer

KEY = "a" * 32


@pytest.fixture
def client(workdir: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient()


@pytest.fixture
def replayer(client: mlflow.MlflowClient, workdir: Path) -> Replayer:
    """A replayer of a run that the store has."""
    run_id = client.create_run("0").info.run_id
    return Replayer(client, folder_of(workdir, run_id), run_id)


def folder_of(workdir: Path, name: str) -> Path:
    folder = workdir / "runs" / name
    folder.mkdir(parents=True)
    return folder


def events(*records: dict[str, Any], at: float = 1000.0) -> list[Event]:
    return [Event({"at": at + i, **record}, i, i + 1) for i, record in enumerate(records)]


def wait(replayer: Replayer, name: str, text: str) -> None:
    """Put a file where an event's files wait."""
    path = waiting_folder(replayer.folder, KEY) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_batch_sent_twice_keeps_one_of_each_point_and_the_first_value_of_each_parameter(
    client: mlflow.MlflowClient, replayer: Replayer
) -> None:
    client.log_param(replayer.run_id, "epochs", "'2'")  # as the launcher does
    batch = events(
        {"kind": "params", "params": {"epochs": "2", "seed": "17"}},
        {"kind": "params", "params": {"seed": "18", "long": "x" * (MAX_PARAM + 1)}},
        {"kind": "metrics", "step": 3, "metrics": {"a": 1.0, "none": None, "nan": float("nan")}},
        {"kind": "tags", "tags": {"kept": "old"}},
        {"kind": "tags", "tags": {"kept": "new"}},
    )
    for fresh in (True, False):
        replayer.apply(batch, fresh)
        Replayer(client, replayer.folder, replayer.run_id).apply(batch, fresh)  # a later process
    run = client.get_run(replayer.run_id)
    assert run.data.params == {"epochs": "'2'", "seed": "17", "long": "x" * MAX_PARAM}
    assert run.data.tags["kept"] == "new"
    (point,) = client.get_metric_history(replayer.run_id, "a")
    assert (point.step, point.value, point.timestamp) == (3, 1.0, 1_002_000)
    assert "none" not in run.data.metrics
    assert len(client.get_metric_history(replayer.run_id, "nan")) == 1


def test_more_points_than_a_request_takes_are_all_sent(client: mlflow.MlflowClient, replayer: Replayer) -> None:
    many = {f"a{i}": float(i) for i in range(MAX_METRICS + 1)}
    replayer.apply(events({"kind": "metrics", "step": 0, "metrics": many}), fresh=True)
    assert client.get_run(replayer.run_id).data.metrics == many


def test_a_child_whose_answer_was_lost_is_made_once(client: mlflow.MlflowClient, replayer: Replayer) -> None:
    series = [{"loss": 0.5, "bad": None}, {"loss": 0.25}]
    child = {"kind": "child", "key": KEY, "name": "fold 1", "seconds": 5.0, "tags": {Tags.FOLD: "1"},
             "params": {"lr": "0.1"}, "series": series, "final": {"f1": 0.75}}  # fmt: skip
    replayer.apply(events(child), fresh=True)
    replayer.apply(events(child), fresh=True)  # the same process tries again
    Replayer(client, replayer.folder, replayer.run_id).apply(events(child), fresh=False)  # or a later one
    (made,) = client.search_runs(["0"], f"tags.`{Tags.PARENT}` = '{replayer.run_id}'")
    assert (made.info.status, made.info.start_time, made.info.end_time) == ("FINISHED", 995_000, 1_000_000)
    assert [point.value for point in client.get_metric_history(made.info.run_id, "loss")] == [0.5, 0.25]
    assert made.data.metrics == {"loss": 0.25, "f1": 0.75}


def test_of_a_child_that_was_made_twice_the_first_is_left(client: mlflow.MlflowClient, replayer: Replayer) -> None:
    tags = {Tags.PARENT: replayer.run_id, Tags.EVENT: KEY}
    first, second = (client.create_run("0", start_time=at, tags=tags).info.run_id for at in (1, 2))
    assert replayer.delete_duplicate_children([KEY, "b" * 32]) == 1
    assert [client.get_run(run_id).info.lifecycle_stage for run_id in (first, second)] == ["active", "deleted"]
    assert replayer.delete_duplicate_children([KEY]) == 0


def test_files_are_sent_from_where_they_wait_and_named_as_a_table_once(
    client: mlflow.MlflowClient, replayer: Replayer
) -> None:
    sent = events({"kind": "artifacts", "key": KEY, "names": ["a/t.json"], "tables": ["a/t.json"]})
    for text in ("old", "new"):
        wait(replayer, "a/t.json", text)
        replayer.apply(sent, fresh=True)
        assert not waiting_folder(replayer.folder, KEY).exists()
    replayer.apply(sent, fresh=False)  # the files are gone: they were sent, and the answer was lost
    assert mlflow.artifacts.load_text(f"runs:/{replayer.run_id}/a/t.json") == "new"
    table = [{"path": "a/t.json", "type": "table"}]
    assert json.loads(client.get_run(replayer.run_id).data.tags[Tags.TABLES]) == table


@pytest.mark.parametrize("kind", ["artifacts", "register"])
def test_nothing_is_sent_through_a_link(replayer: Replayer, workdir: Path, kind: str) -> None:
    (workdir / "private.txt").write_text("private")
    place = waiting_folder(replayer.folder, KEY)
    place.mkdir(parents=True)
    (place / "encoder").symlink_to(workdir)
    record = {"kind": kind, "key": KEY, "names": ["x"], "model": "encoder", "name": "x", "tags": {}}
    with pytest.raises(UserError, match="is a link"):
        replayer.apply(events(record), fresh=True)
    assert (workdir / "private.txt").read_text() == "private"


def test_inputs_keep_their_whole_hash_and_are_not_doubled(client: mlflow.MlflowClient, replayer: Replayer) -> None:
    sha256 = "0123456789abcdef" * 4
    record = {"kind": "inputs", "files": [["data/a.csv", sha256, 12]], "context": "training"}
    for fresh in (True, False):
        replayer.apply(events(record), fresh)
    (dataset,) = client.get_run(replayer.run_id).inputs.dataset_inputs
    tags = {tag.key: tag.value for tag in dataset.tags}
    assert (dataset.dataset.name, dataset.dataset.digest) == ("a.csv", sha256[:36])
    assert (tags["sha256"], tags[Tags.INPUT_CONTEXT]) == (sha256, "training")
    assert json.loads(dataset.dataset.profile) == {"num_rows": 12}


def test_a_run_that_began_offline_is_made_once_with_its_own_time_and_its_new_id_in_every_text(
    client: mlflow.MlflowClient, workdir: Path
) -> None:
    name = f"offline-{'0' * 32}"
    folder = folder_of(workdir, name)
    make = {"name": "a run", "experiment": "away", "tags": {"mlflow.user": "me"}, "at_ms": 12_345}
    begin = events({"kind": "begin", "show": True, "make": make})
    replayer = Replayer(client, folder, "")
    replayer.apply(begin, fresh=True)
    again = Replayer(client, folder, "")  # the answer was lost
    again.apply(begin, fresh=False)
    assert again.run_id == replayer.run_id != ""
    again.apply(events({"kind": "tags", "tags": {"uri": f"runs:/{name}/encoder"}}), fresh=True)
    again.apply(events({"kind": "status", "status": "FINISHED", "note": f"See {name}"}), fresh=True)
    run = client.get_run(replayer.run_id)
    assert (run.info.run_name, run.info.start_time, run.info.status) == ("a run", 12_345, "FINISHED")
    assert (run.data.tags[Tags.OFFLINE], run.data.tags["mlflow.user"]) == (name, "me")
    assert run.data.tags["uri"] == f"runs:/{run.info.run_id}/encoder"
    assert run.data.tags[Tags.NOTE] == f"See {run.info.run_id}"
    experiment = client.get_experiment_by_name("away")
    assert experiment.experiment_id == run.info.experiment_id
    assert experiment.tags[Tags.EXPERIMENT_KIND] == "custom_model_development"


def test_a_status_has_the_time_of_its_event_and_a_note_of_a_length_that_every_store_takes(
    client: mlflow.MlflowClient, replayer: Replayer
) -> None:
    replayer.apply(events({"kind": "status", "status": "KILLED", "note": "x" * (MAX_NOTE + 1)}), fresh=True)
    run = client.get_run(replayer.run_id)
    assert (run.info.status, run.info.end_time) == ("KILLED", 1_000_000)
    assert run.data.tags[Tags.NOTE] == "x" * MAX_NOTE
    replayer.apply(events({"kind": "status", "status": "FINISHED", "note": None}), fresh=True)
    run = client.get_run(replayer.run_id)
    assert (run.info.status, run.data.tags[Tags.NOTE]) == ("FINISHED", "x" * MAX_NOTE)


def test_the_launchers_run_ends_finished_and_names_the_resumed_one(
    client: mlflow.MlflowClient, replayer: Replayer
) -> None:
    launcher = client.create_run("0").info.run_id
    replayer.apply(events({"kind": "handover", "run_id": launcher}), fresh=True)
    run = client.get_run(launcher)
    assert (run.info.status, run.data.tags[Tags.RESUMED]) == ("FINISHED", replayer.run_id)


def test_an_event_of_a_later_version_is_left_out(client: mlflow.MlflowClient, replayer: Replayer) -> None:
    before = client.get_run(replayer.run_id).to_dictionary()
    replayer.apply(events({"kind": "of a later version"}), fresh=True)
    assert client.get_run(replayer.run_id).to_dictionary() == before


def test_whether_the_run_exists_is_asked_and_another_error_is_not_taken_for_no(
    client: mlflow.MlflowClient, replayer: Replayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert replayer.run_exists()
    client.delete_run(replayer.run_id)
    assert not replayer.run_exists()
    assert not Replayer(client, replayer.folder, "0" * 32).run_exists()

    def locked(run_id: str) -> None:
        raise MlflowException("database is locked")

    monkeypatch.setattr(client, "get_run", locked)
    with pytest.raises(MlflowException, match="locked"):
        replayer.run_exists()


@pytest.mark.parametrize("most_entries", [1, 3, 7])
def test_a_request_that_a_proxy_finds_too_large_is_halved_until_it_fits(
    client: mlflow.MlflowClient, replayer: Replayer, monkeypatch: pytest.MonkeyPatch, most_entries: int
) -> None:
    send: Callable[..., None] = client.log_batch
    sizes: list[int] = []

    def narrow(run_id: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> None:
        sizes.append(len(metrics) + len(params) + len(tags))
        if sizes[-1] > most_entries:
            raise MlflowException("API request to endpoint failed with error code 413 != 200")
        send(run_id, metrics=metrics, params=params, tags=tags)

    monkeypatch.setattr(client, "log_batch", narrow)
    batch = events(
        {"kind": "params", "params": {f"p{i}": "x" for i in range(5)}},
        {"kind": "metrics", "step": 0, "metrics": {f"m{i}": 1.0 for i in range(6)}},
        {"kind": "tags", "tags": {f"t{i}": "x" for i in range(4)}},
    )
    replayer.apply(batch, fresh=True)
    run = client.get_run(replayer.run_id)
    assert (len(run.data.params), len(run.data.metrics)) == (5, 6)
    assert {f"t{i}" for i in range(4)} <= set(run.data.tags)
    assert sizes[0] == 15


def test_an_entry_that_is_too_large_alone_raises_after_all_others_are_sent(
    client: mlflow.MlflowClient, replayer: Replayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    send: Callable[..., None] = client.log_batch

    def narrow(run_id: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> None:
        if any(param.key == "large" for param in params):
            raise MlflowException("API request to endpoint failed with error code 413 != 200")
        send(run_id, metrics=metrics, params=params, tags=tags)

    monkeypatch.setattr(client, "log_batch", narrow)
    with pytest.raises(MlflowException, match="413"):
        replayer.apply(events({"kind": "params", "params": {"a": "1", "large": "2", "z": "3"}}), fresh=True)
    assert client.get_run(replayer.run_id).data.params == {"a": "1", "z": "3"}
