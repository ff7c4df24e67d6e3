"""A run from its start to its end: which run it is, what the store then holds, and how it ends."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import mlflow
import numpy as np
import pytest
from matplotlib.figure import Figure
from mlflow.entities import Run as StoredRun
from mlflow.entities import ViewType

from moola_mlflow.core import GateError, Interrupted, PretrainKeys, TrainingError, UserError, make_config
from moola_mlflow.tracking import Artifacts, Metrics, Run, Tags, with_failure_recorded
from moola_mlflow.tracking.delivery import JOURNAL_FILE, read_history
from moola_mlflow.tracking.run_folder import RUNS

LAUNCHER_NOTE = "This command resumed run"


@pytest.fixture
def client(workdir: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient()


def launched(client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch, name: str) -> str:
    """Make a run as the launcher does before it starts the command; return its id."""
    made = client.create_run("0", run_name=name).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", made)
    return str(made)


def all_runs(client: mlflow.MlflowClient, view: int = ViewType.ACTIVE_ONLY) -> list[StoredRun]:
    return list(client.search_runs([one.experiment_id for one in client.search_experiments()], "", view))


def interrupt(run: Run) -> None:
    """Leave a run as Ctrl-C does."""
    with pytest.raises(Interrupted), run:
        raise Interrupted(signal.SIGINT)


def test_a_new_run_has_its_command_its_experiment_and_its_configuration(client: mlflow.MlflowClient) -> None:
    config = make_config(PretrainKeys, {}, {"trainer.epochs": 7})
    with Run.start("features", "a-name", "an-experiment") as run:
        run.config(config)
        assert client.get_run(run.id).info.status == "RUNNING"
    stored = client.get_run(run.id)
    assert (stored.info.run_name, stored.info.status) == ("a-name", "FINISHED")
    assert client.get_experiment(stored.info.experiment_id).name == "an-experiment"
    assert stored.data.tags[Tags.STAGE] == "features"
    assert stored.data.tags[Tags.CONFIG_SHA256] == config.sha256()
    assert stored.data.params["trainer.epochs"] == "7"
    assert not any(key.startswith("labels.") for key in stored.data.params)
    written = (RUNS / run.id / Artifacts.CONFIG).read_text()
    assert written == config.to_yaml() == mlflow.artifacts.load_text(f"runs:/{run.id}/{Artifacts.CONFIG}")
    assert {Artifacts.CONFIG, Artifacts.ENVIRONMENT} <= {file.path for file in client.list_artifacts(run.id)}


@pytest.mark.parametrize(("name", "expected"), [("gifted-fox-12", "our-name"), ("my own", "my own")])
def test_the_launchers_run_is_adopted_and_renamed_if_nobody_has_named_it(
    client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch, name: str, expected: str
) -> None:
    made = launched(client, monkeypatch, name)
    with Run.start("data", "our-name", "elsewhere") as run:
        assert run.id == made
    (stored,) = all_runs(client)
    assert (stored.info.experiment_id, stored.info.run_name, stored.info.status) == ("0", expected, "FINISHED")


def test_a_parameter_that_the_launcher_has_logged_stays_as_it_is(
    client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.log_param(launched(client, monkeypatch, "a"), "epochs", "'2'")
    with Run.start("data", "a") as run:
        run.params({"epochs": 2, "seed": 17})
        run.params({"seed": 18})
    assert client.get_run(run.id).data.params == {"epochs": "'2'", "seed": "17"}


@pytest.mark.parametrize(
    ("error", "status", "note"),
    [
        (Interrupted(signal.SIGTERM), "KILLED", "Interrupted (SIGTERM)."),
        (KeyboardInterrupt(), "KILLED", "Interrupted (SIGINT)."),
        (GateError("skill <low>"), "FAILED", "**Failed:** skill &lt;low&gt;\n\nso far"),
        (TrainingError("loss is *nan*"), "FAILED", "**Failed:** loss is \\*nan\\*\n\nso far"),
        (ZeroDivisionError("by zero"), "FAILED", "**Failed:** ZeroDivisionError: by zero"),
    ],
)
def test_how_a_command_ends_is_the_runs_status_and_its_reason_is_the_note(
    client: mlflow.MlflowClient, error: BaseException, status: str, note: str
) -> None:
    run = Run.start("data", "a")
    run.note("so far")
    with pytest.raises(type(error)), run:
        raise error
    stored = client.get_run(run.id)
    assert (stored.info.status, stored.data.tags[Tags.NOTE]) == (status, note)
    assert read_history(RUNS / run.id).status == status


def test_an_interrupted_run_is_resumed_and_the_launchers_run_names_it(
    client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Run.start("pretrain", "first")
    first.metrics({Metrics.VAL_HUBER: 0.5}, step=0)
    interrupt(first)
    made = launched(client, monkeypatch, "second")
    with Run.resume(first.id, "pretrain", "second") as again:
        assert again.id == first.id
        assert client.get_run(first.id).info.status == "RUNNING"
        again.metrics({Metrics.VAL_HUBER: 0.25}, step=1)
        client.log_metric(first.id, Metrics.VAL_HUBER, 0.125, step=2)  # which the journal does not know
        assert again.steps(Metrics.VAL_HUBER) == {0, 1, 2}
    stored, launcher = client.get_run(first.id), client.get_run(made)
    assert (stored.info.run_name, stored.info.status) == ("first", "FINISHED")
    assert (launcher.info.status, launcher.data.tags[Tags.RESUMED]) == ("FINISHED", first.id)
    assert launcher.data.tags[Tags.NOTE].startswith(f"{LAUNCHER_NOTE} `{first.id}`")


def test_a_run_that_another_process_holds_is_not_resumed_and_stays_as_it_is(client: mlflow.MlflowClient) -> None:
    with Run.start("pretrain", "first") as run:
        before = (run.folder / JOURNAL_FILE).read_bytes()
        with pytest.raises(UserError, match="is being trained by process"):
            Run.resume(run.id, "pretrain", "second")
        assert (run.folder / JOURNAL_FILE).read_bytes() == before
        assert client.get_run(run.id).info.status == "RUNNING"
    assert client.get_run(run.id).info.status == "FINISHED"


def test_a_run_that_the_store_does_not_have_is_not_resumed(client: mlflow.MlflowClient) -> None:
    with pytest.raises(UserError, match=r"is on disk, but the store .* does not have it"):
        Run.resume("0123456789abcdef0123456789abcdef", "pretrain", "second")
    assert all_runs(client) == []


def test_a_run_of_another_process_gets_everything_at_once_and_keeps_no_journal(
    client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("a")
    theirs = client.create_run("0", tags={"kept": "yes"}).info.run_id
    client.set_terminated(theirs, "FAILED")
    with Run.join(theirs) as run:
        assert client.get_run(theirs).info.status == "RUNNING"
        run.metrics({"a": 1.0}, step=3)
        run.params({"seed": 17})
        run.artifact(tmp_path / "a.txt", "files")
        assert client.get_run(theirs).data.metrics == {"a": 1.0}
        run.note("done")
        with Run.join(theirs) as other:  # at the same time
            other.metrics({"b": 2.0})
    stored = client.get_run(theirs)
    assert (stored.info.status, stored.data.metrics) == ("FINISHED", {"a": 1.0, "b": 2.0})
    assert (stored.data.params, stored.data.tags[Tags.NOTE]) == ({"seed": "17"}, "done")
    assert [file.path for file in client.list_artifacts(theirs, "files")] == ["files/a.txt"]
    assert not (RUNS / theirs / JOURNAL_FILE).exists()


def test_a_run_that_is_not_there_cannot_be_joined(client: mlflow.MlflowClient) -> None:
    with pytest.raises(UserError, match="the sweep's run 'nowhere' cannot be reached"):
        Run.join("nowhere")


def test_a_child_run_has_curves_and_final_figures_and_began_when_its_part_began(client: mlflow.MlflowClient) -> None:
    with Run.start("finetune", "parent") as run:
        series = [{"train/loss": 0.5}, {"train/loss": float("nan"), "val/loss": 0.25}]
        run.child("fold 1", {Tags.FOLD: 1}, series, {"f1": 0.75, "bad": float("inf")}, {"lr": 0.1}, seconds=90.0)
    parent = client.get_run(run.id)
    (child,) = client.search_runs([parent.info.experiment_id], f"tags.`{Tags.PARENT}` = '{run.id}'")
    assert (child.info.run_name, child.info.status) == ("fold 1", "FINISHED")
    assert child.data.metrics == {"train/loss": 0.5, "val/loss": 0.25, "f1": 0.75}
    assert [point.step for point in client.get_metric_history(child.info.run_id, "val/loss")] == [1]
    assert (child.data.params, child.data.tags[Tags.FOLD]) == ({"lr": "0.1"}, "1")
    assert child.info.end_time - child.info.start_time == 90_000


def test_a_table_is_named_to_the_ui_once_and_replaced_by_a_later_one(client: mlflow.MlflowClient) -> None:
    with Run.start("data", "a") as run:
        run.table([{"label": "<b>", "share": np.float64(0.5)}], "found.json")
        run.table([{"label": "<b>", "share": float("nan")}], "found.json")
    stored = client.get_run(run.id)
    assert json.loads(stored.data.tags[Tags.TABLES]) == [{"path": "found.json", "type": "table"}]
    text = mlflow.artifacts.load_text(f"runs:/{run.id}/found.json")
    assert json.loads(text) == {"columns": ["label", "share"], "data": [["<b>", None]]}


def test_a_picture_for_later_is_drawn_when_there_is_time(client: mlflow.MlflowClient) -> None:
    drawn: list[str] = []

    def draw() -> Figure:
        drawn.append("drawn")
        return Figure()

    with Run.start("data", "a") as run:
        run.figure_later(draw, "figures/late.png")
        assert drawn == []
        run.draw_waiting()
        run.draw_waiting()
    assert drawn == ["drawn"]
    assert [file.path for file in client.list_artifacts(run.id, "figures")] == ["figures/late.png"]


def test_what_is_logged_together_reaches_the_store_at_the_end_of_the_block(client: mlflow.MlflowClient) -> None:
    with Run.start("data", "a") as run:
        with run.together():
            run.metrics({Metrics.BARS: 5.0})
            with run.together():
                run.note("five bars")
            run.png(lambda: b"a picture", "figures/a.png")
            assert Metrics.BARS not in client.get_run(run.id).data.metrics
        stored = client.get_run(run.id).data
        assert stored.metrics[Metrics.BARS] == 5.0
        assert stored.tags[Tags.NOTE] == "five bars"
        assert [file.path for file in client.list_artifacts(run.id, "figures")] == ["figures/a.png"]
        run.metrics({Metrics.BARS: 6.0})
        assert client.get_run(run.id).data.metrics[Metrics.BARS] == 6.0


def test_a_block_that_fails_loses_nothing_that_was_logged_in_it(client: mlflow.MlflowClient) -> None:
    run = Run.start("data", "a")

    def work() -> None:
        with run, run.together():
            run.metrics({Metrics.BARS: 5.0})
            raise TrainingError("no memory")

    with pytest.raises(TrainingError, match="no memory"):
        work()
    assert client.get_run(run.id).data.metrics[Metrics.BARS] == 5.0


def test_a_failure_before_the_run_begins_is_the_launchers_note_and_makes_no_run_without_a_launcher(
    client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise UserError("resume=x: no such run")

    with pytest.raises(UserError, match="no such run"):
        with_failure_recorded("pretrain", refuse)
    assert all_runs(client, ViewType.ALL) == []
    launched(client, monkeypatch, "a")
    with pytest.raises(UserError, match="no such run"):
        with_failure_recorded("pretrain", refuse)
    (stored,) = all_runs(client)
    assert (stored.info.status, stored.data.tags[Tags.NOTE]) == ("FAILED", "**Failed:** resume=x: no such run")
    assert stored.data.tags[Tags.STAGE] == "pretrain"
    assert with_failure_recorded("pretrain", lambda: 3) == 3


def test_a_run_that_is_deleted_during_the_command_ends_with_what_to_do(
    client: mlflow.MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run.start("pretrain", "deleted")
    client.delete_run(run.id)
    for step in range(3):
        run.metrics({"a": 1.0}, step)  # nothing of it raises
    with pytest.raises(TrainingError, match=r"mlflow runs restore --run-id \w+\), then moola sync"), run:
        pass
    assert capsys.readouterr().out.count("Warning: the tracking store") == 1
    assert sum('"metrics": {"a"' in line for line in (run.folder / JOURNAL_FILE).read_text().splitlines()) == 3


def test_a_command_that_cannot_work_without_its_store_gets_the_stores_error(
    client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(mlflow.MlflowException, match="Invalid value"), Run.start("promote", "strict") as run:
        run.metrics({"no?name": 1.0})
    assert client.get_run(run.id).info.status == "FAILED"


def test_a_run_whose_input_is_refused_goes_to_the_bin_and_one_with_results_stays(
    client: mlflow.MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = Run.start("data", "refused")
    refused.metrics({Metrics.LABELS_USED: 8})
    with pytest.raises(UserError), refused:
        raise UserError("labels: too few")
    assert all_runs(client) == []
    stored = client.get_run(refused.id)
    assert (stored.info.lifecycle_stage, stored.info.status) == ("deleted", "FAILED")
    assert (stored.data.tags[Tags.REFUSED], stored.data.tags[Tags.NOTE]) == ("true", "**Failed:** labels: too few")
    assert not refused.folder.exists()
    assert f"Run {refused.id} is removed, because its input was refused" in capsys.readouterr().out
    shown = Run.start("data", "shown")
    shown.json({"zero": 1.0}, Artifacts.QUALITY)
    with pytest.raises(UserError), shown:
        raise UserError("feature quality: all are zero")
    (stored,) = all_runs(client)
    assert (stored.info.run_id, stored.info.status, Tags.REFUSED in stored.data.tags) == (shown.id, "FAILED", False)


def test_a_run_that_others_work_for_stays_when_input_is_refused_later(client: mlflow.MlflowClient) -> None:
    run = Run.start("sweep", "kept")
    run.keep()
    with pytest.raises(UserError), run:
        raise UserError("the storage does not work")
    (stored,) = all_runs(client)
    assert (stored.info.run_id, stored.info.status) == (run.id, "FAILED")
    assert run.folder.exists()


def test_a_run_of_the_launcher_or_one_that_goes_on_stays_if_the_input_is_refused(
    client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = launched(client, monkeypatch, "a")
    with pytest.raises(UserError), Run.start("data", "a"):
        raise UserError("no such file")
    assert client.get_run(made).info.lifecycle_stage == "active"
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    first = Run.start("pretrain", "first")
    interrupt(first)
    with pytest.raises(UserError), Run.resume(first.id, "pretrain", "first") as again:
        raise UserError("other bars")
    stored = client.get_run(again.id)
    assert (stored.info.lifecycle_stage, stored.info.status) == ("active", "FAILED")
    assert Tags.REFUSED not in stored.data.tags
    assert again.folder.exists()
