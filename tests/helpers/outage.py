"""What the tests of outages share: a real `mlflow server` that can be killed and stopped, and what it must hold."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlflow
import pytest
from empty_store import copy_served_store
from harness import QUICK, SMOKE, Served, Store, free_port, wait_for_server
from mlflow.entities import Run as StoredRun
from small_models import small_encoder
from warm_process import start_python

from moola_mlflow.cli import main
from moola_mlflow.models.files.encoder import save_encoder
from moola_mlflow.tracking.delivery import JOURNAL_FILE, Sent, count_unsent, journal
from moola_mlflow.tracking.delivery.files import OUTBOX
from moola_mlflow.tracking.run import Run

SMALL = {**QUICK, "config": SMOKE}
IMPATIENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
}


@dataclass
class Server:
    """An `mlflow server` over http on this machine; its database outlives it."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, if it does not run, and wait until it answers."""
        if self.process is None:
            copy_served_store(self.folder, "server.db")
            words = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port),
                     "--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder}/server.db",
                     "--artifacts-destination", str(self.folder / "artifacts")]  # fmt: skip
            environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
            environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # jobs of GenAI: four more processes
            with open(self.folder / "server.log", "a") as log:
                self.process = start_python(words, self.folder, environment, log)
        wait_for_server(self.uri, self.folder / "server.log")

    def signal(self, signum: int) -> None:
        """Send a signal to the server and its workers."""
        assert self.process is not None
        os.killpg(self.process.pid, signum)

    def kill(self) -> None:
        """Kill it, as a power cut does."""
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait(60)
            self.process = None


LENGTHS = ("content-length", "transfer-encoding", "host", "connection")
"""Headers of one connection, which a proxy does not pass on."""


class Busy(BaseHTTPRequestHandler):
    """A proxy that passes requests on to a server. Of every three requests, it asks to come again after the first."""

    port, num_asked, num_refused = 0, 0, 0
    codes = (429, 500, 503)

    def do_GET(self) -> None:
        kind = type(self)
        body = self._body()
        kind.num_asked += 1
        if kind.num_asked % 3 == 1:
            kind.num_refused += 1
            self._answer(self.codes[kind.num_refused % 3], {"Retry-After": "86400"}, b"<html>slow down</html>")
            return
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        given = {key: value for key, value in self.headers.items() if key.lower() not in LENGTHS}
        link.request(self.command, self.path, body, given)
        answer = link.getresponse()
        kept = {
            key: value for key, value in answer.getheaders() if key.lower() in ("content-type", "x-next-page-token")
        }
        self._answer(answer.status, kept, answer.read())
        link.close()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def _body(self) -> bytes:
        """Read what was sent, with a length or in chunks, as MLflow sends files."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, code: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(code)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def busy_proxy(server: Server) -> Iterator[tuple[str, type[Busy]]]:
    """Serve the address of a busy proxy in front of a server."""
    handler = type("BusyProxy", (Busy,), {"port": server.port})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{proxy.server_port}", handler
        proxy.shutdown()


@dataclass
class Impatient(Served):
    """Its commands give a server up soon."""

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, **IMPATIENT}

    def folders(self) -> list[Path]:
        """The folders of the runs that were at work here."""
        return sorted(path.parent for path in self.folder.glob(f".moola/runs/*/{JOURNAL_FILE}"))


def epochs_in(store: Store) -> int:
    """Count the epochs in the journals of a store's folder."""
    return sum(path.read_text().count('"val/huber"') for path in store.folder.glob(".moola/runs/*/journal.jsonl"))


def wait_for(condition, process: subprocess.Popen[str] | None = None, seconds: float = 180) -> None:
    """Wait until something is so, or a process has ended."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        if process is not None and process.poll() is not None:
            return
        time.sleep(0.02)


def stored(client: mlflow.MlflowClient, folder: Path) -> StoredRun:
    """Return the run of a folder as the store has it."""
    sent = Sent.read(folder)
    assert sent is not None
    return client.get_run(sent.run_id)


def assert_whole(client: mlflow.MlflowClient, folder: Path) -> StoredRun:
    """Assert that the store has every event of a run's journal once, at its own time; return the run."""
    run, events = stored(client, folder), list(journal.read_events(folder))
    assert count_unsent(folder) == 0
    assert not (folder / OUTBOX).exists()
    points: dict[str, set[tuple[int, int, float]]] = {}
    params: set[str] = set()
    tags: dict[str, str] = {}
    names: set[str] = set()
    for event in events:
        record = event.record
        for key, value in record.get("metrics", {}).items():
            points.setdefault(key, set()).add((event.at_ms, record["step"], value))
        if event.kind == "params":
            params |= set(record["params"])
        if event.kind == "tags":
            tags |= record["tags"]
        if event.kind == "artifacts":
            names |= set(record["names"])
    assert {key for key in run.data.metrics if "/fold" not in key} == set(points)
    for key, expected in points.items():
        there = [(p.timestamp, p.step, p.value) for p in client.get_metric_history(run.info.run_id, key)]
        assert sorted(there) == sorted(expected), key  # a list against a set: nothing twice
    assert params <= set(run.data.params)
    note = "mlflow.note.content"
    assert {key: run.data.tags.get(key) for key in tags if key != note} == {k: v for k, v in tags.items() if k != note}
    assert names <= everything(client, run.info.run_id)
    digests = [file[1][:36] for event in events if event.kind == "inputs" for file in event.record["files"]]
    assert sorted(given.dataset.digest for given in run.inputs.dataset_inputs) == sorted(set(digests))
    ends = [event for event in events if event.kind == "status"]
    assert (run.info.status, run.info.end_time) == (ends[-1].record["status"], ends[-1].at_ms)
    wanted = [event for event in events if event.kind == "child"]
    there = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
    children = [child for child in there if "moola.event" in child.data.tags]
    assert sorted(child.data.tags["moola.event"] for child in children) == sorted(e.record["key"] for e in wanted)
    for child in children:
        (event,) = [event for event in wanted if event.record["key"] == child.data.tags["moola.event"]]
        assert (child.info.status, child.info.end_time) == ("FINISHED", event.at_ms)
        rows = [(key, step, value) for step, row in enumerate(event.record["series"]) for key, value in row.items()]
        for wanted_key in {key for key, _, _ in rows}:
            series = [(p.step, p.value) for p in client.get_metric_history(child.info.run_id, wanted_key)]
            assert series == [(step, value) for key, step, value in rows if key == wanted_key and value is not None]
    for event in events:
        if event.kind == "register":
            record = event.record
            found = client.search_model_versions(f"name = '{record['name']}'")
            mine = [version for version in found if version.tags.get("moola.event") == record["key"]]
            assert [version.run_id for version in mine] == [run.info.run_id]
            assert record["tags"].items() <= mine[0].tags.items()
            logged = client.search_logged_models([run.info.experiment_id], f"tags.`moola.event` = '{record['key']}'")
            assert len(logged) == 1
    return run


def everything(client: mlflow.MlflowClient, run_id: str, folder: str | None = None) -> set[str]:
    """Return the paths of a run's artifacts, folders too."""
    found = set()
    for item in client.list_artifacts(run_id, folder):
        found |= {item.path} | (everything(client, run_id, item.path) if item.is_dir else set())
    return found


def text_of(folder: Path) -> str:
    """Return all that is in the files of a folder, as text."""
    return json.dumps([path.read_bytes().decode(errors="replace") for path in folder.rglob("*") if path.is_file()])


def here(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    """Have this process use a store, impatiently."""
    for key, value in {**IMPATIENT, "MLFLOW_TRACKING_URI": uri}.items():
        monkeypatch.setenv(key, value)
    mlflow.set_tracking_uri(uri)


def store_of(server: Server, folder: Path) -> Impatient:
    return Impatient(folder, server.uri)


def fill(active: Run, epochs: range) -> None:
    """Log what a training logs: parameters once, figures, a child run, a table, text."""
    active.params({"optimizer.lr": 1e-3, "seed": 17})
    for epoch in epochs:
        active.metrics({"val/huber": 1 / (epoch + 1), "train/loss": 2.0}, step=epoch)
        active.beat()
    active.table([{"window": 1, "label": "<b>"}, {"window": 2, "label": None}], "tables/found.json")
    active.text("hello", "notes/hello.txt")
    series = [{"train/loss": 0.5}, {"train/loss": 0.25, "bad": float("nan")}]
    active.child("fold 1", {"moola.fold": 1}, series, {"f1": 0.75}, {"lr": 0.1}, seconds=2.5)


def encoder_in(active: Run) -> Path:
    encoder = small_encoder()
    save_encoder(encoder, {**encoder.card, "run_id": active.id}, active.folder / "encoder")
    return active.folder / "encoder"


def sync(folder: Path) -> int:
    return main.run_cli(["sync", str(folder)])
