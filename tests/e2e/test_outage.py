"""Runs whose server is killed, stopped or not there yet: nothing is lost, nothing is doubled, nothing waits."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import mlflow
import pytest
from harness import QUICK, SMOKE, Store
from mlflow.entities import Metric
from outage import (
    IMPATIENT,
    Impatient,
    Server,
    assert_whole,
    epochs_in,
    free_port,
    stored,
    text_of,
    wait_for,
)
from small_models import small_encoder

from moola_mlflow import cli, journal
from moola_mlflow.encoder_files import save_encoder
from moola_mlflow.errors import TrainingError, UserError
from moola_mlflow.signals import Interrupted
from moola_mlflow.store import let_go
from moola_mlflow.tracking import NOTE, Run

pytestmark = pytest.mark.slow
SMALL = {**QUICK, "config": SMOKE}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def server(machine: Server, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server, at work, as the store of this process and of an empty working folder."""
    machine.start()
    here(monkeypatch, machine.uri)
    yield machine
    machine.start()
    mlflow.set_tracking_uri(None)


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
    return cli.main(["sync", str(folder)])


def test_a_run_with_a_live_server_is_whole_when_it_ends(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    with Run("pretrain", "live") as active:
        fill(active, range(5))
        assert active.register("encoder", "live", encoder_in(active), {"gates": "none"}) == "1"
        assert active.steps("val/huber") == set(range(5))
    assert_whole(active.client, active.folder)
    assert "moola sync" not in capsys.readouterr().out
    table = active.client.load_table(active.client.get_run(active.id).info.experiment_id, "tables/found.json")
    assert table["label"].tolist()[0] == "<b>"


def test_a_server_that_is_down_at_the_start_gets_the_run_by_sync(
    server: Server, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.kill()
    with Run("pretrain", "offline", "away") as active:
        fill(active, range(4))
        assert active.register("encoder", "offline", encoder_in(active), {"gates": "none"}) == ""
        active.note(f"Look at runs:/{active.id}/encoder")
    said = capsys.readouterr().out
    assert active.id.startswith("offline-")
    assert said.count("Warning: the tracking store") == 1
    assert said.rstrip().endswith(f"moola sync {active.folder}")
    assert sync(active.folder) == 2  # still down
    server.start()
    assert sync(active.folder) == 0
    run = assert_whole(active.client, active.folder)
    assert run.data.tags["moola.offline"] == active.id
    assert run.data.tags[NOTE] == f"Look at runs:/{run.info.run_id}/encoder"
    assert (run.info.run_name, run.info.status) == ("offline", "FINISHED")
    assert active.client.get_experiment_by_name("away").experiment_id == run.info.experiment_id
    assert active.client.get_model_version_by_alias("offline", "candidate").run_id == run.info.run_id
    assert sync(active.folder) == 0  # and again
    assert_whole(active.client, active.folder)
    assert len(active.client.search_runs([run.info.experiment_id], f"tags.`moola.offline` = '{active.id}'")) == 1


def test_events_that_are_all_sent_again_double_nothing(server: Server) -> None:
    with Run("pretrain", "again") as active:
        fill(active, range(3))
        active.register("encoder", "again", encoder_in(active), {"gates": "none"})
    for _ in range(2):
        sent = journal.Sent.read(active.folder)
        assert sent is not None
        sent.offset = 0  # as if no answer had ever come
        sent.write(active.folder)
        assert sync(active.folder) == 0
        assert_whole(active.client, active.folder)


def test_mlflow_keeps_one_of_two_equal_points(server: Server) -> None:
    client = mlflow.MlflowClient()
    run = client.create_run("0").info.run_id
    points = [Metric("a", value, 1234, step) for step, value in enumerate((0.1, float("nan"), float("inf")))]
    for _ in range(3):
        client.log_batch(run, metrics=[*points, points[0]])
    assert [p.step for p in client.get_metric_history(run, "a")] == [0, 1, 2]


def test_a_server_that_hangs_holds_nothing_up_and_has_everything_once_it_goes_on(server: Server) -> None:
    with Run("pretrain", "hung") as active:
        active.metrics({"val/huber": 9.0}, step=0)
        server.signal(signal.SIGSTOP)
        try:
            fill(active, range(1, 200))
            assert journal.steps(active.folder, "val/huber") == set(range(200))  # all done, and the server still hangs
            assert journal.unsent(active.folder) > 0
            wait_for(lambda: active._outbox is not None and active._outbox.trouble)
        finally:
            server.signal(signal.SIGCONT)
    if journal.unsent(active.folder):  # one try at the end may have met a server that was not awake yet
        assert sync(active.folder) == 0
    assert_whole(active.client, active.folder)


def test_a_child_run_that_a_hung_server_makes_twice_is_left_once(server: Server) -> None:
    with Run("finetune", "twice") as active:
        wait_for(lambda: active._outbox is not None and not active._outbox.pending)
        server.signal(signal.SIGSTOP)
        try:
            active.child("fold 1", {"moola.fold": 1}, [{"train/loss": 0.5}], {"f1": 0.75})
            wait_for(lambda: active._outbox is not None and active._outbox.trouble)  # every repetition now waits there
        finally:
            server.signal(signal.SIGCONT)
    assert sync(active.folder) == 0
    assert_whole(active.client, active.folder)


def test_killed_for_half_of_a_training_the_server_lacks_no_point_in_the_end(server: Server, workdir: Path) -> None:
    store, epochs = store_of(server, workdir), 80
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


def test_killed_after_training_the_model_is_registered_by_sync_with_its_evidence(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    with Run("pretrain", "late") as active:
        fill(active, range(2))
        wait_for(lambda: active._outbox is not None and not active._outbox.pending)
        server.kill()
        assert active.register("encoder", "late", encoder_in(active), {"gates": "passed: all"}) == ""
        (active.folder / "encoder" / "encoder.json").write_text("{}")  # what becomes of it later changes nothing
    assert "late: a version of this encoder will be registered" in capsys.readouterr().out
    server.start()
    assert sync(active.folder) == 0
    assert_whole(active.client, active.folder)
    version = active.client.get_model_version_by_alias("late", "candidate")
    assert version.tags["gates"] == "passed: all"
    loaded = mlflow.artifacts.download_artifacts(f"models:/late/{version.version}")
    assert '"run_id"' in next(Path(loaded).rglob("encoder.json")).read_text()


@pytest.mark.parametrize(
    ("error", "status", "word"),
    [(Interrupted(signal.SIGINT), "KILLED", "Interrupted (SIGINT)"), (TrainingError("NaN"), "FAILED", "NaN")],
    ids=["killed", "failed"],
)
def test_how_a_run_ended_without_its_server_is_what_the_store_says_later(
    server: Server, error: BaseException, status: str, word: str
) -> None:
    def go() -> Run:
        with Run("pretrain", status) as active:
            wait_for(lambda: active._outbox is not None and not active._outbox.pending)
            runs.append(active)
            server.kill()
            raise error

    runs: list[Run] = []
    with pytest.raises(type(error)):
        go()
    server.start()
    assert stored(runs[0].client, runs[0].folder).info.status == "RUNNING"
    assert sync(runs[0].folder) == 0
    run = assert_whole(runs[0].client, runs[0].folder)
    assert (run.info.status, word in run.data.tags[NOTE]) == (status, True)


def test_a_run_that_died_without_a_word_is_killed_by_sync_and_a_cut_line_is_passed_over(server: Server) -> None:
    active = Run("pretrain", "dead")
    fill(active, range(3))
    assert active._outbox is not None
    active._outbox.stop()  # a process that is killed sends no more, says no status and lets go of its lock
    with open(active.folder / "journal.jsonl", "a") as f:
        f.write('{"at": 1.0, "kind": "metrics", "step": 3, "metr')
    assert active._lock is not None
    active._lock.close()
    let_go(active.id)
    assert sync(active.folder) == 0
    run = assert_whole(active.client, active.folder)
    assert run.info.status == "KILLED"
    assert [p.step for p in active.client.get_metric_history(run.info.run_id, "val/huber")] == [0, 1, 2]


@pytest.mark.parametrize("where", ["server", "SQLite"])
def test_a_run_deleted_while_it_trains_goes_on_and_ends_with_what_to_do(
    server: Server, workdir: Path, where: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if where == "SQLite":
        here(monkeypatch, f"sqlite:///{workdir}/mlflow.db")
    runs: list[Run] = []

    def go() -> None:
        with Run("pretrain", "deleted") as active:
            runs.append(active)
            wait_for(lambda: active._outbox is not None and not active._outbox.pending)
            active.client.delete_run(active.id)
            fill(active, range(3))  # nothing of it raises
            wait_for(lambda: active._outbox is not None and active._outbox.trouble)

    with pytest.raises(TrainingError, match="mlflow runs restore --run-id"):
        go()
    (active,) = runs
    assert capsys.readouterr().out.count("Warning: the tracking store") == 1
    assert sync(active.folder) == 2
    assert "restore it first" in capsys.readouterr().err
    active.client.restore_run(active.id)
    assert sync(active.folder) == 0
    assert assert_whole(active.client, active.folder).info.status == "FINISHED"


def test_a_run_that_is_at_work_or_no_run_is_refused_with_one_message(
    server: Server, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Run("pretrain", "busy") as active:
        assert sync(active.folder) == 2
        assert "is being trained by process" in capsys.readouterr().err
    for words in (["sync", str(workdir)], ["sync", "--run_dir", "no/such"], ["sync"]):
        assert cli.main(words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "the folder of a run" in line


def test_what_a_store_will_never_take_fails_the_run_at_its_next_word_as_it_would_at_once(server: Server) -> None:
    def go() -> None:
        with Run("pretrain", "bad") as active:
            runs.append(active)
            active.metrics({"no?name": 1.0})
            wait_for(lambda: active._outbox is not None and active._outbox.refused)
            active.metrics({"fine": 1.0})

    runs: list[Run] = []
    with pytest.raises(mlflow.MlflowException, match="Invalid value"):
        go()
    run = stored(runs[0].client, runs[0].folder)
    assert (run.info.status, run.data.metrics) == ("FAILED", {"fine": 1.0})


def test_a_name_that_holds_other_models_is_refused_while_the_server_lives(server: Server) -> None:
    mlflow.MlflowClient().create_registered_model("taken")
    with Run("pretrain", "other") as active:
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


def test_sync_under_the_launcher_completes_a_run_in_another_store_than_it_began(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(monkeypatch, f"http://127.0.0.1:{free_port()}")
    with Run("pretrain", "moved") as active:
        fill(active, range(2))
        active.register("encoder", "moved", encoder_in(active), {})
    store = Store(workdir)
    done = store.run("sync", {"run_dir": str(workdir / active.folder)}, launcher=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert_whole(store.client, active.folder)
    stages = sorted(
        (run.data.tags["moola.stage"], run.info.status) for run in store.runs() if "moola.stage" in run.data.tags
    )
    assert stages == [("pretrain", "FINISHED"), ("sync", "FINISHED")]
    mlflow.set_tracking_uri(None)


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
    with HTTPServer(("127.0.0.1", 0), handler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        here(monkeypatch, f"http://127.0.0.1:{other.server_port}")
        if away:
            with Run("pretrain", "away") as active:
                active.metrics({"a": 1.0})
            assert active.id.startswith("offline-")
        else:
            with pytest.raises(UserError, match="does not work"):
                Run("pretrain", "refused")
            assert not Path(".moola").exists()
        with pytest.raises(UserError, match="does not work"):
            Run("promote", "needs the store")
        other.shutdown()
    mlflow.set_tracking_uri(None)
