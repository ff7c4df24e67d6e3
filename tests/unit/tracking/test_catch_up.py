"""A run's folder brought to a store after an outage: the store then has everything once, with the right status."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from moola_mlflow.core import TrainingError
from moola_mlflow.tracking import Tags
from moola_mlflow.tracking.delivery import JOURNAL_FILE, SENT_FILE, Sent, count_unsent, send_missing
from moola_mlflow.tracking.delivery.files import OUTBOX, waiting_folder
from moola_mlflow.tracking.delivery.journal import Journal

KEY = "a" * 32
DIED = "It died."


@pytest.fixture
def client(workdir: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient()


@pytest.fixture
def folder(client: mlflow.MlflowClient, workdir: Path) -> Path:
    """The folder of a run that the store knows, with three events that it lacks."""
    folder = workdir / ".moola" / "runs" / str(client.create_run("0").info.run_id)
    folder.mkdir(parents=True)
    waiting = waiting_folder(folder, KEY) / "a.txt"
    waiting.parent.mkdir(parents=True)
    waiting.write_text("kept")
    journal = Journal(folder)
    journal.append({"kind": "begin", "show": False})
    journal.append({"kind": "metrics", "step": 0, "metrics": {"a": 1.0}})
    journal.append({"kind": "artifacts", "key": KEY, "names": ["a.txt"]})
    journal.close()
    Sent(0, folder.name, "here").write(folder)
    return folder


def end(folder: Path, status: str) -> None:
    journal = Journal(folder)
    journal.append({"kind": "status", "status": status, "note": "done"})
    journal.close()


def send(client: mlflow.MlflowClient, folder: Path) -> tuple[str, int]:
    sent = Sent.read(folder)
    assert sent is not None
    done = send_missing(folder, sent, client.get_run(sent.run_id), DIED)
    assert done.run_id == sent.run_id
    return done.status, done.num_missing


def test_everything_is_sent_and_a_second_time_nothing_is_missing(client: mlflow.MlflowClient, folder: Path) -> None:
    end(folder, "FINISHED")
    assert [send(client, folder), send(client, folder)] == [("FINISHED", 4), ("FINISHED", 0)]
    run = client.get_run(folder.name)
    assert (run.info.status, run.data.metrics, run.data.tags[Tags.NOTE]) == ("FINISHED", {"a": 1.0}, "done")
    assert mlflow.artifacts.load_text(f"runs:/{folder.name}/a.txt") == "kept"
    assert (count_unsent(folder), (folder / OUTBOX).exists()) == (0, False)


def test_a_run_with_damaged_lines_is_never_called_whole(client: mlflow.MlflowClient, folder: Path) -> None:
    end(folder, "FINISHED")
    path = folder / JOURNAL_FILE
    path.write_text(path.read_text().replace('"a": 1.0', '"a": 2.0'))
    for _ in range(2):
        with pytest.raises(TrainingError, match=r"is not whole in .* line 2 of the journal"):
            send(client, folder)
    run = client.get_run(folder.name)
    assert (run.info.status, run.data.metrics) == ("FINISHED", {})


@pytest.mark.parametrize("content", ["", "{", '{"offset": 3}', None])
def test_with_an_unreadable_cursor_all_is_sent_again_and_doubles_nothing(
    client: mlflow.MlflowClient, folder: Path, content: str | None
) -> None:
    end(folder, "FINISHED")
    send(client, folder)
    (folder / SENT_FILE).unlink() if content is None else (folder / SENT_FILE).write_text(content)
    assert send(client, folder) == ("FINISHED", 4)
    assert len(client.get_metric_history(folder.name, "a")) == 1
    assert mlflow.artifacts.load_text(f"runs:/{folder.name}/a.txt") == "kept"


def test_a_run_that_does_not_say_how_it_ended_was_killed(client: mlflow.MlflowClient, folder: Path) -> None:
    assert send(client, folder) == ("KILLED", 3)
    run = client.get_run(folder.name)
    assert (run.info.status, run.data.tags[Tags.NOTE]) == ("KILLED", DIED)
    assert send(client, folder) == ("KILLED", 0)


def test_a_status_that_somebody_else_has_set_is_put_right(client: mlflow.MlflowClient, folder: Path) -> None:
    end(folder, "KILLED")
    send(client, folder)
    client.set_terminated(folder.name, "FAILED")  # as the launcher does
    send(client, folder)
    assert client.get_run(folder.name).info.status == "KILLED"


def test_a_store_that_fails_is_named_and_what_it_lacks_stays(
    client: mlflow.MlflowClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end(folder, "FINISHED")

    def locked(*_: object, **__: object) -> None:
        raise MlflowException("database is locked")

    with monkeypatch.context() as patched:
        patched.setattr(mlflow.MlflowClient, "log_batch", locked)
        with pytest.raises(TrainingError, match=r"3 of 4 events .* are still not in .*: database is locked"):
            send(client, folder)
    assert count_unsent(folder) == 3
    assert send(client, folder) == ("FINISHED", 3)


def test_an_event_that_the_store_never_takes_is_named_and_the_rest_is_sent(
    client: mlflow.MlflowClient, folder: Path
) -> None:
    journal = Journal(folder)
    journal.append({"kind": "metrics", "step": 0, "metrics": {"no?name": 1.0}})
    journal.close()
    end(folder, "FINISHED")
    with pytest.raises(TrainingError, match=r"refuses 1 of 5 events .*Invalid value.* It has the rest"):
        send(client, folder)
    assert (client.get_run(folder.name).data.metrics, count_unsent(folder)) == ({"a": 1.0}, 1)
    with pytest.raises(TrainingError, match=r"refuses 1 of 1 events"):  # it is never called whole
        send(client, folder)


def test_files_that_the_store_does_not_take_are_named_and_sent_another_time(
    client: mlflow.MlflowClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end(folder, "FINISHED")

    def full(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(mlflow.MlflowClient, "log_artifacts", full)
        with pytest.raises(TrainingError, match=r"does not take 1 of 4 events .*Permission denied"):
            send(client, folder)
    assert (client.get_run(folder.name).info.status, count_unsent(folder)) == ("FINISHED", 1)
    assert send(client, folder) == ("FINISHED", 1)
    assert mlflow.artifacts.load_text(f"runs:/{folder.name}/a.txt") == "kept"


def test_a_child_that_was_made_twice_is_left_once(client: mlflow.MlflowClient, folder: Path) -> None:
    journal = Journal(folder)
    journal.append({"kind": "child", "key": KEY, "name": "fold 1", "seconds": 1.0, "tags": {}, "params": {},
                    "series": [], "final": {}})  # fmt: skip
    journal.close()
    end(folder, "FINISHED")
    tags = {Tags.PARENT: folder.name, Tags.EVENT: KEY}
    for _ in range(2):  # MLflow has repeated a request whose answer was lost
        client.create_run("0", tags=tags)
    send(client, folder)
    assert len(client.search_runs(["0"], f"tags.`{Tags.EVENT}` = '{KEY}'")) == 1
