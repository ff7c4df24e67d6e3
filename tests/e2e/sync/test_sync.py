"""What a store missed of a run is brought to it by `moola sync`, once, from the run's folder."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import mlflow
import pytest
from harness import Store, kill
from mlflow.entities import Metric
from outage import (
    Server,
    assert_whole,
    encoder_in,
    everything,
    fill,
    free_port,
    here,
    stored,
    sync,
    wait_for,
)

from moola_mlflow.cli import main
from moola_mlflow.core.errors import TrainingError
from moola_mlflow.core.signals import Interrupted
from moola_mlflow.tracking import Tags
from moola_mlflow.tracking.delivery import Sent
from moola_mlflow.tracking.run import Run

pytestmark = pytest.mark.slow


def test_a_server_that_is_down_at_the_start_gets_the_run_by_sync(
    server: Server, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.kill()
    with Run.start("pretrain", "offline", "away") as active:
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
    assert run.data.tags[Tags.NOTE] == f"Look at runs:/{run.info.run_id}/encoder"
    assert (run.info.run_name, run.info.status) == ("offline", "FINISHED")
    assert active.client.get_experiment_by_name("away").experiment_id == run.info.experiment_id
    assert active.client.get_model_version_by_alias("offline", "candidate").run_id == run.info.run_id
    assert sync(active.folder) == 0  # and again
    assert_whole(active.client, active.folder)
    assert len(active.client.search_runs([run.info.experiment_id], f"tags.`moola.offline` = '{active.id}'")) == 1


def test_events_that_are_all_sent_again_double_nothing(server: Server) -> None:
    with Run.start("pretrain", "again") as active:
        fill(active, range(3))
        active.register("encoder", "again", encoder_in(active), {"gates": "none"})
    for _ in range(2):
        sent = Sent.read(active.folder)
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


def test_killed_after_training_the_model_is_registered_by_sync_with_its_evidence(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    with Run.start("pretrain", "late") as active:
        fill(active, range(2))
        wait_for(lambda: not active.delivery.state.pending)
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
        with Run.start("pretrain", status) as active:
            wait_for(lambda: not active.delivery.state.pending)
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
    assert (run.info.status, word in run.data.tags[Tags.NOTE]) == (status, True)


def test_a_run_that_died_without_a_word_is_killed_by_sync_and_a_cut_line_is_passed_over(server: Server) -> None:
    active = Run.start("pretrain", "dead")
    fill(active, range(3))
    kill(active)
    with open(active.folder / "journal.jsonl", "a") as f:
        f.write('{"at": 1.0, "kind": "metrics", "step": 3, "metr')
    assert sync(active.folder) == 0
    run = assert_whole(active.client, active.folder)
    assert run.info.status == "KILLED"
    assert [p.step for p in active.client.get_metric_history(run.info.run_id, "val/huber")] == [0, 1, 2]


def test_a_server_that_has_lost_its_database_gets_the_run_again_once(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (workdir / "server").mkdir()
    server = Server(workdir / "server")
    server.start()
    try:
        here(monkeypatch, server.uri)
        with Run.start("pretrain", "lost", "away") as active:
            fill(active, range(3))
            active.artifact(encoder_in(active), "encoder")
            active.register("encoder", "lost", active.folder / "encoder", {"gates": "passed: all"})
        server.kill()
        shutil.rmtree(server.folder)
        server.folder.mkdir()
        server.start()
        assert sync(active.folder) == 2
        assert "moola sync RUN_DIR --as-new" in capsys.readouterr().err
        for _ in range(2):
            assert main.run_cli(["sync", str(active.folder), "--as-new"]) == 0
        run = stored(active.client, active.folder)
        assert run.data.tags[Tags.REMADE_FROM] == active.id != run.info.run_id
        assert [p.step for p in active.client.get_metric_history(run.info.run_id, "val/huber")] == [0, 1, 2]
        assert active.client.get_model_version_by_alias("lost", "candidate").run_id == run.info.run_id
        assert "encoder/encoder.json" in everything(active.client, run.info.run_id)
        assert len(active.client.search_runs([run.info.experiment_id])) == 2  # with its fold
    finally:
        server.kill()
        mlflow.set_tracking_uri(None)


@pytest.mark.parametrize("where", ["server", "SQLite"])
def test_a_run_deleted_while_it_trains_goes_on_and_ends_with_what_to_do(
    server: Server, workdir: Path, where: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if where == "SQLite":
        here(monkeypatch, f"sqlite:///{workdir}/mlflow.db")
    runs: list[Run] = []

    def go() -> None:
        with Run.start("pretrain", "deleted") as active:
            runs.append(active)
            wait_for(lambda: not active.delivery.state.pending)
            active.client.delete_run(active.id)
            fill(active, range(3))  # nothing of it raises
            wait_for(lambda: active.delivery.state.problem)

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
    with Run.start("pretrain", "busy") as active:
        assert sync(active.folder) == 2
        assert "is being trained by process" in capsys.readouterr().err
    for words in (["sync", str(workdir)], ["sync", "--run_dir", "no/such"], ["sync"]):
        assert main.run_cli(words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "the folder of a run" in line


def test_sync_under_the_launcher_completes_a_run_in_another_store_than_it_began(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(monkeypatch, f"http://127.0.0.1:{free_port()}")
    with Run.start("pretrain", "moved") as active:
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
