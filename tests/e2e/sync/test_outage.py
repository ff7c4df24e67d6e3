"""Runs whose server is killed, stopped or not there yet: nothing is lost, nothing is doubled, nothing waits."""

from __future__ import annotations

import signal
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import mlflow
import pytest
from mlflow.utils import request_utils
from outage import (
    SMALL,
    Impatient,
    Server,
    assert_whole,
    busy_proxy,
    encoder_in,
    epochs_in,
    fill,
    here,
    store_of,
    stored,
    sync,
    text_of,
    wait_for,
)
from postgres import Postgres

from moola_mlflow.core.errors import UserError
from moola_mlflow.tracking import retry_after
from moola_mlflow.tracking.delivery import count_unsent, journal
from moola_mlflow.tracking.run import Run

pytestmark = pytest.mark.slow


def test_a_run_with_a_live_server_is_whole_when_it_ends(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    with Run.start("pretrain", "live") as active:
        fill(active, range(5))
        assert active.register("encoder", "live", encoder_in(active), {"gates": "none"}) == "1"
        assert active.steps("val/huber") == set(range(5))
    assert_whole(active.client, active.folder)
    assert "moola sync" not in capsys.readouterr().out
    table = active.client.load_table(active.client.get_run(active.id).info.experiment_id, "tables/found.json")
    assert table["label"].tolist()[0] == "<b>"


def test_a_server_that_hangs_holds_nothing_up_and_has_everything_once_it_goes_on(server: Server) -> None:
    with Run.start("pretrain", "hung") as active:
        active.metrics({"val/huber": 9.0}, step=0)
        server.signal(signal.SIGSTOP)
        try:
            fill(active, range(1, 200))
            assert journal.logged_steps(active.folder, "val/huber") == set(
                range(200)
            )  # all done, and the server still hangs
            assert count_unsent(active.folder) > 0
            wait_for(lambda: active.delivery.state.problem)
        finally:
            server.signal(signal.SIGCONT)
    if count_unsent(active.folder):  # one try at the end may have met a server that was not awake yet
        assert sync(active.folder) == 0
    assert_whole(active.client, active.folder)


def test_a_child_run_that_a_hung_server_makes_twice_is_left_once(server: Server) -> None:
    with Run.start("finetune", "twice") as active:
        wait_for(lambda: not active.delivery.state.pending)
        server.signal(signal.SIGSTOP)
        try:
            active.child("fold 1", {"moola.fold": 1}, [{"train/loss": 0.5}], {"f1": 0.75})
            wait_for(lambda: active.delivery.state.problem)  # every repetition now waits there
        finally:
            server.signal(signal.SIGCONT)
    assert sync(active.folder) == 0
    assert_whole(active.client, active.folder)


def train_over_an_outage(store: Impatient, server: Server | Postgres) -> None:
    """Train while the store is gone for half of the epochs; in the end it must have every one once."""
    epochs = 80
    given = {**SMALL, "trainer.epochs": str(epochs), "trainer.patience": str(epochs), "register": "half"}
    process = store.start("pretrain", given)
    wait_for(lambda: epochs_in(store) >= epochs // 4, process)
    server.kill()
    wait_for(lambda: epochs_in(store) >= 3 * epochs // 4, process)
    process.send_signal(signal.SIGSTOP)  # a server takes seconds to start: the run waits for it, and not the other way
    server.start()
    process.send_signal(signal.SIGCONT)
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    assert "The tracking store takes what is logged again" in said
    assert "moola sync" not in said
    (folder,) = store.folders()
    run = assert_whole(store.client, folder)
    history = store.client.get_metric_history(run.info.run_id, "val/huber")
    assert [point.step for point in history] == list(range(epochs))
    times = [point.timestamp for point in history]
    assert times == sorted(times)
    assert len(set(times)) > epochs // 2  # their own, and not that of the replay
    assert store.client.get_model_version_by_alias("half", "candidate").run_id == run.info.run_id


def test_killed_for_half_of_a_training_the_server_lacks_no_point_in_the_end(server: Server, workdir: Path) -> None:
    train_over_an_outage(store_of(server, workdir), server)


def test_a_postgresql_store_that_is_stopped_for_half_of_a_training_lacks_no_point_in_the_end(
    postgres: Postgres, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = postgres.create("outage")
    here(monkeypatch, uri)
    train_over_an_outage(Impatient(workdir, uri), postgres)
    mlflow.set_tracking_uri(None)


def test_a_server_that_asks_for_patience_gets_every_event_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry_after, "LONGEST_S", 0.05)  # the proxy asks for a day
    request_utils._cached_get_request_session.cache_clear()
    with busy_proxy(server) as (address, proxy):
        here(monkeypatch, address)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
        with Run.start("pretrain", "busy") as active:
            fill(active, range(5))
            assert active.register("encoder", "busy", encoder_in(active), {"gates": "none"}) == "1"
        assert not active.id.startswith("offline-")
        assert_whole(active.client, active.folder)
        assert proxy.num_refused > 10
    request_utils._cached_get_request_session.cache_clear()


def test_what_a_store_will_never_take_fails_the_run_at_its_next_word_as_it_would_at_once(server: Server) -> None:
    def go() -> None:
        with Run.start("pretrain", "bad") as active:
            runs.append(active)
            active.metrics({"no?name": 1.0})
            wait_for(lambda: active.delivery.state.refused)
            active.metrics({"fine": 1.0})

    runs: list[Run] = []
    with pytest.raises(mlflow.MlflowException, match="Invalid value"):
        go()
    run = stored(runs[0].client, runs[0].folder)
    assert (run.info.status, run.data.metrics) == ("FAILED", {"fine": 1.0})


def test_a_name_that_holds_other_models_is_refused_while_the_server_lives(server: Server) -> None:
    mlflow.MlflowClient().create_registered_model("taken")
    with Run.start("pretrain", "other") as active:
        source = f"{active.client.get_run(active.id).info.artifact_uri}/detector"
        active.client.create_model_version("taken", source, run_id=active.id, tags={"moola.kind": "detector"})
        with pytest.raises(UserError, match="holds detectors"):
            active.register("encoder", "taken", encoder_in(active), {})
    assert active.client.get_run(active.id).info.status == "FINISHED"


def test_a_training_interrupted_in_an_outage_is_resumed_without_gap_or_double_point(
    server: Server, workdir: Path
) -> None:
    store = store_of(server, workdir)
    given = {**SMALL, "trainer.epochs": "40", "trainer.patience": "40", "register": "none"}
    process = store.start("pretrain", given)
    wait_for(lambda: epochs_in(store) >= 5, process)
    server.kill()
    wait_for(lambda: epochs_in(store) >= 12, process)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 130, said
    away = store.start("pretrain", {**given, "resume": "auto"})  # and goes on while the server is still down
    wait_for(lambda: epochs_in(store) >= 20, away)
    away.send_signal(signal.SIGTERM)
    said = away.communicate(timeout=120)[0]
    assert away.returncode == 143, said
    server.start()
    done = store.run("pretrain", {**given, "resume": "auto"})
    assert done.returncode == 0, done.stderr[-2000:]
    (folder,) = store.folders()
    run = stored(store.client, folder)
    assert run.info.status == "FINISHED"
    history = store.client.get_metric_history(run.info.run_id, "val/huber")
    assert [point.step for point in history] == list(range(40))
    assert_whole(store.client, folder)


def test_the_launchers_run_goes_on_under_its_id_when_the_server_is_gone(server: Server, workdir: Path) -> None:
    client = mlflow.MlflowClient()
    made = client.create_run("0")
    client.log_param(made.info.run_id, "epochs", "'2'")
    server.kill()
    store = store_of(server, workdir)
    done = subprocess.run(
        store.command("pretrain", {**SMALL, "epochs": "2", "register": "none"}, launcher=False),
        cwd=workdir, env={**store.environment, "MLFLOW_RUN_ID": made.info.run_id}, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    folder = workdir / ".moola" / "runs" / made.info.run_id
    assert f"moola sync {folder.relative_to(workdir)}" in done.stdout
    server.start()
    assert sync(folder) == 0
    run = assert_whole(client, folder)
    assert (run.info.run_id, run.data.params["epochs"]) == (made.info.run_id, "'2'")


def test_passwords_in_the_address_are_in_no_file_and_not_on_the_console(server: Server, workdir: Path) -> None:
    for alive in (True, False):
        if not alive:
            server.kill()
        store = Impatient(workdir, server.uri.replace("://", "://me:s3cr3t@"))
        done = store.run("pretrain", {**SMALL, "epochs": "1", "register": "secret"})
        assert done.returncode == 0, done.stderr[-2000:]
        assert "s3cr3t" not in done.stdout + done.stderr
    for command in ("doctor", "promote"):
        refused = store.run(command, {})
        assert refused.returncode != 0
        assert "s3cr3t" not in refused.stdout + refused.stderr
    assert len(store.folders()) == 2
    offline = next(folder for folder in store.folders() if folder.name.startswith("offline-"))
    server.start()
    synced = store.run("sync", {"run_dir": str(offline)})
    assert synced.returncode == 0, synced.stderr
    assert "s3cr3t" not in synced.stdout + synced.stderr
    assert "s3cr3t" not in text_of(workdir)
    assert "s3cr3t" not in text_of(server.folder)


class Answers(BaseHTTPRequestHandler):
    """An http server that is no tracking store."""

    status = 404

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(b"no")

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(("status", "away"), [(404, False), (401, False), (403, False), (502, True), (503, True)])
def test_what_is_wrong_with_an_address_is_refused_and_only_an_outage_is_waited_out(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, status: int, away: bool
) -> None:
    handler = type("Answering", (Answers,), {"status": status})
    why = "answers, but not as an MLflow server" if status == 404 else "does not work"
    with HTTPServer(("127.0.0.1", 0), handler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        here(monkeypatch, f"http://127.0.0.1:{other.server_port}")
        if away:
            with Run.start("pretrain", "away") as active:
                active.metrics({"a": 1.0})
            assert active.id.startswith("offline-")
        else:
            with pytest.raises(UserError, match=why):
                Run.start("pretrain", "refused")
            assert not Path(".moola").exists()
        with pytest.raises(UserError, match=why):
            Run.start("promote", "needs the store")
        other.shutdown()
    mlflow.set_tracking_uri(None)
