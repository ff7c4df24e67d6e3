"""Folders of runs as somebody might send them: `sync` gives nothing away and takes nothing from outside of them."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import mlflow
import pytest
from small_models import small_encoder

from moola_mlflow.cli import main
from moola_mlflow.core import UserError
from moola_mlflow.models import save_encoder
from moola_mlflow.tracking import Run, Tags, load_encoder, no_local_artifacts, origin, read_run
from moola_mlflow.tracking.delivery import count_unsent
from moola_mlflow.tracking.delivery.files import waiting_folder

MARK = "of somebody else"


@pytest.fixture
def journal_of(workdir: Path) -> Callable[..., Path]:
    """Make the folder of a run as somebody might send it, whose journal holds given events; return it."""
    mlflow.set_tracking_uri(None)

    def make(*events: dict[str, object]) -> Path:
        tag = hashlib.sha256(MARK.encode()).hexdigest()[:32]
        run_id = mlflow.MlflowClient().create_run("0", tags={Tags.FOLDER: tag}).info.run_id
        folder = workdir / "foreign" / run_id
        (folder / "outbox").mkdir(parents=True)
        (folder / origin.MARK_FILE).write_text(MARK)
        lines = [{"kind": "begin"}, *events, {"kind": "status", "status": "FINISHED", "note": "whole"}]
        (folder / "journal.jsonl").write_text("".join(json.dumps({"at": 1.0, **line}) + "\n" for line in lines))
        (folder / "sent.json").write_text(json.dumps({"offset": 0, "run_id": run_id, "uri": "sqlite"}))
        return folder

    return make


@pytest.mark.parametrize("key", ["{home}", "../../home", "../../../home", ".", "", "A" * 32, None, 3, [], {"a": 1}])
def test_sync_of_a_foreign_folder_sends_and_removes_nothing_outside_of_it(
    workdir: Path, journal_of: Callable[..., Path], key: object
) -> None:
    home = workdir / "home"
    home.mkdir()
    (home / "letter.txt").write_text("mine")
    place = str(home) if key == "{home}" else key
    folder = journal_of(
        {"kind": "artifacts", "key": place, "names": ["x"]},
        {"kind": "register", "key": place, "model": "encoder", "name": "x", "tags": {}},
        {"kind": "register", "key": "0" * 32, "model": "home", "name": "x", "tags": {}},
        {"kind": "metrics", "step": 0},
    )
    assert main.run_cli(["sync", str(folder)]) == 1  # lines of another shape are damage
    assert (home / "letter.txt").read_text() == "mine"
    client = mlflow.MlflowClient()
    assert client.list_artifacts(folder.name) == []
    assert client.get_run(folder.name).info.status == "FINISHED"
    with pytest.raises(ValueError, match="no key"):
        waiting_folder(folder, str(place))


def test_sync_of_a_foreign_folder_follows_no_link(
    workdir: Path, journal_of: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    home = workdir / "home"
    home.mkdir()
    (home / "letter.txt").write_text("mine")
    keys = [name * 32 for name in "abc"]
    folder = journal_of(*({"kind": "artifacts", "key": key, "names": ["x"]} for key in keys))
    (folder / "outbox" / keys[0]).symlink_to(home)
    for key, name in ((keys[1], "folder"), (keys[2], "letter.txt")):
        (folder / "outbox" / key).mkdir()
        (folder / "outbox" / key / name).symlink_to(home if name == "folder" else home / name)
    assert main.run_cli(["sync", str(folder)]) == 2
    assert "is a link, and this program never makes one there" in capsys.readouterr().err
    assert mlflow.MlflowClient().list_artifacts(folder.name) == []
    assert (home / "letter.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "name", ["journal.jsonl", "lock", "sent.json", "sent.json.tmp", "heartbeat.json", "outbox", "."]
)
def test_no_file_of_a_run_folder_is_reached_through_a_link(
    workdir: Path, journal_of: Callable[..., Path], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder = journal_of({"kind": "tags", "tags": {"a": "b"}})
    place, letter = folder / name, workdir / "letter"
    kind = Path.rename if place.exists() else None
    if kind:
        kind(place, letter)
    else:
        letter.write_text("mine")
    before = letter.read_bytes() if letter.is_file() else sorted(path.name for path in letter.iterdir())
    (folder if name == "." else place).symlink_to(letter)
    assert main.run_cli(["sync", str(folder)]) == 2
    assert "is a link" in capsys.readouterr().err
    assert (letter.read_bytes() if letter.is_file() else sorted(path.name for path in letter.iterdir())) == before
    assert mlflow.MlflowClient().get_run(folder.name).info.status == "RUNNING"


def test_a_folder_cannot_write_to_the_run_of_another(
    workdir: Path, journal_of: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    client = mlflow.MlflowClient()
    with Run.start("pretrain", "theirs") as theirs:
        pass
    plain = client.create_run("0").info.run_id  # of another program: it has no mark
    for number, run_id in enumerate((theirs.id, plain)):
        folder = journal_of({"kind": "begin", "name": "mine now"}, {"kind": "tags", "tags": {"a": "b"}})
        (folder / "sent.json").write_text(json.dumps({"offset": 0, "run_id": run_id, "uri": "sqlite"}))
        folder = (
            folder.rename(workdir / f"copy{number}" / run_id) if (workdir / f"copy{number}").mkdir() is None else folder
        )
        assert main.run_cli(["sync", str(folder)]) == 2
        assert "is not the folder of run" in capsys.readouterr().err
        assert "a" not in client.get_run(run_id).data.tags
        assert client.get_run(run_id).info.run_name != "mine now"


def test_a_folder_from_elsewhere_ends_no_other_run_and_decides_no_promotion(
    workdir: Path, journal_of: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    client = mlflow.MlflowClient()
    other, key = client.create_run("0").info.run_id, "a" * 32
    client.create_registered_model("shared")
    folder = journal_of(
        {"kind": "handover", "run_id": other},
        {"kind": "tags", "tags": {Tags.GATES: "passed: all", "kept": "yes"}},
        {"kind": "register", "key": key, "model": "encoder", "name": "shared",
         "tags": {"gates": "passed: all", "promoted_by": "me", "moola.kind": "detector", "preset": "rules"}},
        {"kind": "child", "key": "b" * 32, "name": "fold", "seconds": 1.0, "tags": {Tags.PARENT: other}, "params": {},
         "series": [], "final": {}},
    )  # fmt: skip
    encoder = small_encoder()
    save_encoder(encoder, encoder.card, folder / "outbox" / key / "encoder")
    assert main.run_cli(["sync", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "whole" not in said
    for left_out in (f"the end of run {other}", "tag gates", "tag promoted_by", "tag moola.gates", "alias candidate"):
        assert left_out in said
    assert client.get_run(other).info.status == "RUNNING"
    assert client.get_run(folder.name).data.tags["kept"] == "yes"
    (version,) = client.search_model_versions("name = 'shared'")
    assert version.tags.keys() & {"gates", "promoted_by"} == set()
    assert (version.tags["moola.kind"], version.tags["preset"]) == ("encoder", "rules")
    assert client.get_registered_model("shared").aliases == {}
    assert client.search_runs(["0"], f"tags.`{Tags.PARENT}` = '{other}'") == []


class Listening(BaseHTTPRequestHandler):
    """A server that keeps what it was asked, and knows no run."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_error(404)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        mlflow.set_tracking_uri(None)
        server.shutdown()


@pytest.mark.parametrize(
    ("how", "reached"),
    [("", False), ("variable", True), ("key", True), ("y", True), ("n", False)],
)
def test_sync_takes_no_server_from_a_folder_unless_the_user_names_or_confirms_it(
    workdir: Path, journal_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], how: str, reached: bool,
) -> None:  # fmt: skip
    folder = journal_of()
    handler = type("Handler", (Listening,), {"asked": []})
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with serving(handler) as uri:
        (folder / "sent.json").write_text(json.dumps({"offset": 0, "run_id": folder.name, "uri": uri}))
        mlflow.set_tracking_uri(None)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri) if how == "variable" else monkeypatch.delenv(
            "MLFLOW_TRACKING_URI"
        )
        words = ["sync", str(folder), *(["--server", uri] if how == "key" else [])]
        with monkeypatch.context() as patched:
            if how in ("y", "n"):
                typed, terminal = os.openpty()
                os.write(typed, f"{how}\n".encode())
                patched.setattr("sys.stdin", os.fdopen(terminal))
                patched.setattr("sys.stdout", os.fdopen(os.dup(terminal), "w"))
            assert main.run_cli(words) == 2
    assert bool(handler.asked) == reached
    assert ("--server" in capsys.readouterr().err) == (not reached)


class Choosing(Listening):
    """A server that keeps artifacts in a place of its choice."""

    place = ""

    def do_GET(self) -> None:
        self.asked.append(self.path)
        info = {"run_id": "1" * 32, "run_uuid": "1" * 32, "experiment_id": "0", "status": "RUNNING", "start_time": 1,
                "artifact_uri": self.place, "lifecycle_stage": "active"}  # fmt: skip
        tags = [{"key": Tags.FOLDER, "value": hashlib.sha256(MARK.encode()).hexdigest()[:32]}]
        body = {"run": {"info": info, "data": {"tags": tags}}, "artifact_uri": self.place, "experiments": []}
        answer = json.dumps(
            {**body, "experiment": {"experiment_id": "0", "name": "Default", "lifecycle_stage": "active"}}
        )
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer.encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()


@pytest.mark.parametrize("form", ["file://{}", "{}", "FILE:{}", "file:{}"])
def test_a_server_chooses_no_file_of_this_machine(
    workdir: Path, journal_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], form: str,
) -> None:  # fmt: skip
    home, key = workdir / "home", "a" * 32
    (home / "encoder").mkdir(parents=True)
    (home / "encoder" / "encoder.json").write_text("{}")
    folder = journal_of({"kind": "artifacts", "key": key, "names": ["planted.txt"]})
    (folder / "outbox" / key).mkdir()
    (folder / "outbox" / key / "planted.txt").write_text("theirs")
    handler = type("Handler", (Choosing,), {"asked": [], "place": form.format(home)})
    with serving(handler) as uri:
        (folder / "sent.json").write_text(json.dumps({"offset": 0, "run_id": "1" * 32, "uri": uri}))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        assert main.run_cli(["sync", str(folder)]) == 1
        assert "a server must not choose files here" in capsys.readouterr().err
        assert count_unsent(folder) == 1
        for read in (
            lambda: load_encoder("runs:/" + "1" * 32 + "/encoder"),
            lambda: load_encoder("models:/moola-encoder/1"),
            lambda: read_run("1" * 32, "run_id").files,
            lambda: read_run("1" * 32, "run_id").bytes("encoder/encoder.json"),
        ):
            with pytest.raises(UserError, match="a server must not choose files here"):
                read()
    assert sorted(path.name for path in home.rglob("*")) == ["encoder", "encoder.json"]
    with no_local_artifacts():  # a database's paths are this user's own
        mlflow.set_tracking_uri(f"sqlite:///{workdir}/mlflow.db")
        assert Path(mlflow.artifacts.download_artifacts(str(home / "encoder"))).is_dir()
