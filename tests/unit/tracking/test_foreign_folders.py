"""Folders of runs as somebody might send them: `sync` gives nothing away and takes nothing from outside of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import mlflow
import pytest

from moola_mlflow.cli import main
from moola_mlflow.tracking.delivery.files import waiting_folder


@pytest.fixture
def journal_of(workdir: Path) -> Callable[..., Path]:
    """Make the folder of a run as somebody might send it, whose journal holds given events; return it."""
    mlflow.set_tracking_uri(None)

    def make(*events: dict[str, object]) -> Path:
        run_id = mlflow.MlflowClient().create_run("0").info.run_id
        folder = workdir / "foreign" / run_id
        (folder / "outbox").mkdir(parents=True)
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
    assert main.run_cli(["sync", str(folder)]) == 0
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
    assert main.run_cli(["sync", str(folder)]) == 1
    assert "refuses 3 of" in capsys.readouterr().err
    assert mlflow.MlflowClient().list_artifacts(folder.name) == []
    assert (home / "letter.txt").read_text() == "mine"


class Listening(BaseHTTPRequestHandler):
    """A server that keeps the logins it is given, and knows no run."""

    logins: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        self.logins.append(self.headers.get("Authorization"))
        self.send_error(404)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("address", "login", "named", "given"),
    [
        ("http://0.0.0.0:{}", "environment", False, set()),  # as good as any other machine's
        ("http://0.0.0.0:{}", "token", False, set()),
        ("http://0.0.0.0:{}", "file", False, set()),
        ("http://0.0.0.0:{}\\@127.0.0.1", "environment", False, set()),  # which urllib3 and urllib read differently
        ("http://0.0.0.0:{}", "", False, {None}),
        ("http://0.0.0.0:{}", "environment", True, {"Basic bWU6c2VjcmV0"}),
        ("http://127.0.0.1:{}", "environment", False, {"Basic bWU6c2VjcmV0"}),
        ("http://localhost:{}", "file", False, {"Basic bWU6c2VjcmV0"}),
    ],
)
def test_sync_sends_a_login_only_to_a_server_that_the_user_has_named_or_to_this_machine(
    workdir: Path, journal_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], address: str, login: str, named: bool, given: set[str | None],
) -> None:  # fmt: skip
    folder = journal_of()
    handler = type("Handler", (Listening,), {"logins": []})
    monkeypatch.setenv("HOME", str(workdir))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    if login == "environment":
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    elif login == "token":
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
    elif login == "file":
        (workdir / ".mlflow").mkdir()
        kept = "[mlflow]\nmlflow_tracking_username = me\nmlflow_tracking_password = secret\n"
        (workdir / ".mlflow" / "credentials").write_text(kept)
    with HTTPServer(("0.0.0.0", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = address.format(server.server_port)
        (folder / "sent.json").write_text(json.dumps({"offset": 0, "run_id": folder.name, "uri": uri}))
        mlflow.set_tracking_uri(None)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri) if named else monkeypatch.delenv("MLFLOW_TRACKING_URI", False)
        assert main.run_cli(["sync", str(folder)]) == 2
        mlflow.set_tracking_uri(None)
        server.shutdown()
    assert set(handler.logins) == given
    said = capsys.readouterr().err
    assert ("set MLFLOW_TRACKING_URI to it" in said) == (not given)
    assert "secret" not in said
