"""Two ways to the store, through the journal and directly: what is written reaches it, and its state is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from moola_mlflow.tracking import Tags
from moola_mlflow.tracking.delivery import (
    JOURNAL_FILE,
    Delivery,
    DirectDelivery,
    JournalDelivery,
    SendPolicy,
    count_unsent,
    id_in_store,
)
from moola_mlflow.tracking.delivery.files import OUTBOX


@pytest.fixture
def client(workdir: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient()


@pytest.fixture
def folder(client: mlflow.MlflowClient, workdir: Path) -> Path:
    """The folder of a run that the store has."""
    folder = workdir / ".moola" / "runs" / str(client.create_run("0").info.run_id)
    folder.mkdir(parents=True)
    return folder


def through_journal(folder: Path, client: mlflow.MlflowClient) -> Delivery:
    return JournalDelivery(folder, client, folder.name, None, SendPolicy())


def from_a_thread(folder: Path, client: mlflow.MlflowClient) -> Delivery:
    return JournalDelivery(folder, client, folder.name, None, SendPolicy(background=True))


def directly(folder: Path, client: mlflow.MlflowClient) -> Delivery:
    return DirectDelivery(folder, client, folder.name)


@pytest.mark.parametrize("make", [through_journal, from_a_thread, directly])
def test_what_is_written_reaches_the_store(
    client: mlflow.MlflowClient, folder: Path, make: Callable[[Path, mlflow.MlflowClient], Delivery]
) -> None:
    delivery = make(folder, client)
    key = delivery.add_files("deep/a.txt", lambda path: path.write_text("kept"))
    delivery.write({"kind": "artifacts", "key": key, "names": ["deep/a.txt"]})
    delivery.write({"kind": "metrics", "step": 3, "metrics": {"a": 1.0}})
    delivery.write({"kind": "tags", "tags": {"kept": "yes"}})
    delivery.sync()
    assert delivery.flush()
    assert (delivery.state.run_id, delivery.state.pending, delivery.state.problem) == (folder.name, False, "")
    delivery.write({"kind": "status", "status": "FINISHED", "note": "done"})
    assert delivery.close()
    run = client.get_run(folder.name)
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"a": 1.0})
    assert (run.data.tags["kept"], run.data.tags[Tags.NOTE]) == ("yes", "done")
    assert mlflow.artifacts.load_text(f"runs:/{folder.name}/deep/a.txt") == "kept"
    assert not (folder / OUTBOX).exists() or not any((folder / OUTBOX).iterdir())
    assert (folder / JOURNAL_FILE).exists() == (make is not directly)


def test_what_is_not_to_be_sent_yet_goes_with_the_next_event(client: mlflow.MlflowClient, folder: Path) -> None:
    delivery = through_journal(folder, client)
    delivery.write({"kind": "metrics", "step": 0, "metrics": {"a": 1.0}}, send=False)
    assert delivery.state.pending
    assert client.get_run(folder.name).data.metrics == {}
    delivery.write({"kind": "metrics", "step": 0, "metrics": {"b": 2.0}})
    assert client.get_run(folder.name).data.metrics == {"a": 1.0, "b": 2.0}
    assert delivery.close()


def test_closing_with_no_time_sends_nothing_more_and_the_rest_is_kept(
    client: mlflow.MlflowClient, folder: Path
) -> None:
    delivery = through_journal(folder, client)
    delivery.write({"kind": "metrics", "step": 0, "metrics": {"a": 1.0}}, send=False)
    assert not delivery.close(0)
    assert client.get_run(folder.name).data.metrics == {}
    assert count_unsent(folder) == 1
    again = through_journal(folder, client)
    assert again.state.continued
    assert again.close()
    assert client.get_run(folder.name).data.metrics == {"a": 1.0}


def test_a_new_journal_continues_nothing(client: mlflow.MlflowClient, folder: Path) -> None:
    assert not through_journal(folder, client).state.continued


def test_a_refused_event_raises_where_the_next_one_is_written_or_waited_for(
    client: mlflow.MlflowClient, folder: Path
) -> None:
    bad = {"kind": "metrics", "step": 0, "metrics": {"no?name": 1.0}}
    delivery = through_journal(folder, client)
    with pytest.raises(MlflowException, match="Invalid value"):
        delivery.write(bad)
    delivery.write(bad, send=False)
    with pytest.raises(MlflowException, match="Invalid value"):
        delivery.flush()
    delivery.write(bad, send=False)
    assert not delivery.close()  # nothing waits, but the store lacks three events
    assert count_unsent(folder) == 3
    assert {"Invalid value" in str(error) for error in delivery.state.refused} == {True}


def test_a_store_that_did_not_answer_just_before_is_left_alone_at_first(
    client: mlflow.MlflowClient, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    delivery = JournalDelivery(folder, client, folder.name, None, SendPolicy(problem="no answer"))
    delivery.write({"kind": "metrics", "step": 0, "metrics": {"a": 1.0}})
    assert (delivery.state.problem, delivery.state.pending) == ("no answer", True)
    assert client.get_run(folder.name).data.metrics == {}
    assert delivery.close()  # the end tries it once more
    assert client.get_run(folder.name).data.metrics == {"a": 1.0}
    said = capsys.readouterr().out
    assert said.count("Warning: the tracking store does not take what is logged: no answer.") == 1
    assert said.count("The tracking store takes what is logged again") == 1


def test_a_run_that_began_offline_has_its_id_in_the_store_once_it_is_made(
    client: mlflow.MlflowClient, workdir: Path
) -> None:
    folder = workdir / f"offline-{'0' * 32}"
    folder.mkdir()
    delivery = JournalDelivery(folder, client, id_in_store(folder), None, SendPolicy(problem="no answer"))
    make = {"name": "a", "experiment": "away", "tags": {}, "at_ms": 1}
    delivery.write({"kind": "begin", "show": False, "make": make})
    assert (delivery.state.run_id, id_in_store(folder)) == ("", "")
    assert delivery.close()
    assert delivery.state.run_id == id_in_store(folder) != ""
    assert client.get_run(id_in_store(folder)).data.tags[Tags.OFFLINE] == folder.name
