"""A run that the store has lost is made again from its folder: once, with what the folder holds, by the same rules."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import pytest
from empty_store import copy_empty_store
from mlflow.exceptions import MlflowException
from small_models import small_encoder

from moola_mlflow.cli import main
from moola_mlflow.core import UserError
from moola_mlflow.models import save_encoder
from moola_mlflow.tracking import Run, Tags, origin, run_folder
from moola_mlflow.tracking.delivery import JOURNAL_FILE, Sent, is_forgotten, journal, remake_run
from moola_mlflow.tracking.delivery.replay import Replayer
from moola_mlflow.tracking.recovery.doctor import examine_store


@pytest.fixture
def workdir(workdir: Path) -> Path:
    """The shared fixture, and MLflow told so: what an earlier test told it counts more than the environment."""
    mlflow.set_tracking_uri(f"sqlite:///{workdir}/mlflow.db")
    return workdir


def train(name: str = "lost", experiment: str = "away", registered: str = "again") -> Run:
    """A run with everything that a training logs."""
    with Run.start("pretrain", name, experiment) as active:
        active.params({"optimizer.lr": 1e-3})
        for epoch in range(3):
            active.metrics({"val/huber": 1 / (epoch + 1)}, step=epoch)
        active._inputs([["bars.csv", "a" * 64, 7]], "training")
        active.tags({Tags.GATES: "passed: all"})
        active.child("fold 1", {Tags.FOLD: 1}, [{"train/loss": 0.5}], {"f1": 0.75}, seconds=2.5)
        active.text("a picture", "figures/curve.txt")
        encoder = small_encoder()
        save_encoder(encoder, {**encoder.card, "run_id": active.id}, active.folder / "encoder")
        active.artifact(active.folder / "encoder", "encoder")
        active.register("encoder", registered, active.folder / "encoder", {"gates": "passed: all"})
        active.note(f"Look at runs:/{active.id}/encoder")
    return active


def lose(*runs: Run) -> None:
    """Have the store lose runs, as `mlflow gc` does."""
    store = mlflow.tracking._tracking_service.utils._get_store()
    for run in runs:
        mlflow.MlflowClient().delete_run(run.id)
        store._hard_delete_run(run.id)


def new_store(workdir: Path, monkeypatch: pytest.MonkeyPatch, name: str = "new") -> mlflow.MlflowClient:
    (workdir / name).mkdir()
    copy_empty_store(workdir / name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workdir}/{name}/mlflow.db")
    mlflow.set_tracking_uri(f"sqlite:///{workdir}/{name}/mlflow.db")
    return mlflow.MlflowClient()


def as_new(folder: Path) -> int:
    return main.run_cli(["sync", str(folder), "--as-new"])


def made_from(client: mlflow.MlflowClient, folder: Path) -> list[mlflow.entities.Run]:
    experiments = [one.experiment_id for one in client.search_experiments()]
    return list(client.search_runs(experiments, f"tags.`{Tags.REMADE_FROM}` = '{folder.name}'"))


def test_a_new_store_gets_all_of_a_run_that_its_folder_still_holds(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = train()
    before = mlflow.MlflowClient().get_run(lost.id)
    client = new_store(workdir, monkeypatch)
    assert main.run_cli(["sync", str(lost.folder)]) == 2
    assert "--as-new" in capsys.readouterr().err
    assert as_new(lost.folder) == 0
    (run,) = made_from(client, lost.folder)
    said = capsys.readouterr().out
    assert f"Run {run.info.run_id} is in" in said
    assert "no longer in the folder: config" not in said
    assert "figures/curve.txt" in said
    assert run.info.run_id != lost.id
    assert (run.info.run_name, run.info.status) == ("lost", "FINISHED")
    assert (run.info.start_time, run.info.end_time) == (before.info.start_time, before.info.end_time)
    assert client.get_experiment(run.info.experiment_id).name == "away"
    assert run.data.params == before.data.params
    history = client.get_metric_history(run.info.run_id, "val/huber")
    assert [(p.step, p.value) for p in history] == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    kept = {key: value for key, value in before.data.tags.items() if key not in (Tags.NOTE, Tags.TABLES)}
    assert kept.items() <= run.data.tags.items()
    assert run.data.tags[Tags.NOTE] == f"Look at runs:/{run.info.run_id}/encoder"
    assert [given.dataset.digest for given in run.inputs.dataset_inputs] == ["a" * 36]
    (child,) = client.search_runs([run.info.experiment_id], f"tags.`{Tags.PARENT}` = '{run.info.run_id}'")
    assert child.data.metrics["f1"] == 0.75
    assert "encoder/encoder.json" in [file.path for file in client.list_artifacts(run.info.run_id, "encoder")]
    version = client.get_model_version_by_alias("again", "candidate")
    assert (version.run_id, version.tags["gates"]) == (run.info.run_id, "passed: all")


def test_a_second_time_makes_no_second_run(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = train()
    client = new_store(workdir, monkeypatch)
    assert [as_new(lost.folder), as_new(lost.folder), main.run_cli(["sync", str(lost.folder)])] == [0, 0, 0]
    (run,) = made_from(client, lost.folder)
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"Run {run.info.run_id} is whole")
    assert len(client.search_model_versions("name = 'again'")) == 1
    assert len(client.search_runs([run.info.experiment_id], f"tags.`{Tags.PARENT}` = '{run.info.run_id}'")) == 1
    (lost.folder / "sent.json").unlink()  # with it goes the new id
    assert as_new(lost.folder) == 0
    assert len(made_from(client, lost.folder)) == 1
    assert len(client.get_metric_history(run.info.run_id, "val/huber")) == 3


def test_a_death_right_after_the_run_was_made_makes_no_second_one(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = train()
    client = new_store(workdir, monkeypatch)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    sent = Sent.read(lost.folder)
    assert sent is not None
    with monkeypatch.context() as patched:
        patched.setattr(Sent, "write", die)
        with pytest.raises(KeyboardInterrupt):
            remake_run(lost.folder, sent)
    assert len(made_from(client, lost.folder)) == 1
    assert as_new(lost.folder) == 0
    (run,) = made_from(client, lost.folder)
    assert run.info.status == "FINISHED"


def test_a_run_that_the_store_knows_is_not_made_again(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = train()
    assert as_new(known.folder) == 2
    assert f"knows run {known.id}, so it is not made again; leave out --as-new" in capsys.readouterr().err
    client = mlflow.MlflowClient()
    client.delete_run(known.id)
    assert as_new(known.folder) == 2
    assert f"mlflow runs restore --run-id {known.id}" in capsys.readouterr().err
    assert made_from(client, known.folder) == []


def test_a_run_that_no_store_has_had_yet_is_sent_without_the_key(workdir: Path) -> None:
    folder = run_folder.RUNS / f"{origin.OFFLINE}{'a' * 32}"
    folder.mkdir(parents=True)
    with pytest.raises(UserError, match="no store has had the run"):
        remake_run(folder, Sent())


def test_only_the_stores_own_word_counts_as_a_loss(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_forgotten("0" * 32)

    def proxy(*_: object) -> None:
        raise MlflowException("API request to endpoint /runs/get failed with error code 404 != 200: not found")

    monkeypatch.setattr(mlflow.MlflowClient, "get_run", proxy)
    with pytest.raises(MlflowException, match="404"):
        is_forgotten("0" * 32)


def test_doctor_names_a_run_that_the_store_has_lost_with_its_cure(workdir: Path) -> None:
    lost, kept = train("lost"), train("kept")
    lose(lost)
    (found,) = [check for check in examine_store() if "has lost" in check.what]
    assert found.what == f"the store has lost run {lost.id}, whose folder is {lost.folder}"
    assert f"moola sync {lost.folder} --as-new" in found.cure
    assert as_new(lost.folder) == 0
    assert [check.what for check in examine_store() if check.cure] == []
    (workdir / "mlflow.db").unlink()
    found = [check for check in examine_store() if check.cure]
    assert len(found) == 2
    assert str(kept.folder) in " ".join(check.what for check in found)


def test_an_older_run_that_is_made_again_takes_candidate_from_no_later_one(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, later = train("older"), train("later")
    client = new_store(workdir, monkeypatch)
    for run in (older, later):
        assert as_new(run.folder) == 0
    assert client.get_model_version_by_alias("again", "candidate").run_id == id_of(client, later)
    client = new_store(workdir, monkeypatch, "another")
    for run in (later, older):
        assert as_new(run.folder) == 0
    assert client.get_model_version_by_alias("again", "candidate").run_id == id_of(client, later)


def id_of(client: mlflow.MlflowClient, run: Run) -> str:
    (made,) = made_from(client, run.folder)
    return str(made.info.run_id)


def test_a_folder_from_elsewhere_brings_no_gates_and_no_candidate(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = train()
    (lost.folder / origin.MARK_FILE).write_text("of somebody else")
    client = new_store(workdir, monkeypatch)
    assert as_new(lost.folder) == 0
    said = capsys.readouterr().out
    for left_out in ("tag gates", f"tag {Tags.GATES}", "alias candidate of again"):
        assert left_out in said
    (run,) = made_from(client, lost.folder)
    assert Tags.GATES not in run.data.tags
    (version,) = client.search_model_versions("name = 'again'")
    assert "gates" not in version.tags
    assert client.get_registered_model("again").aliases == {}


@pytest.mark.parametrize("name", ["../letter", "/etc/hostname", "mark", "sent.json", "journal.jsonl", "..", "."])
def test_a_journal_brings_no_file_from_outside_of_its_folder_and_not_the_folders_own(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with Run.start("pretrain", "lost") as lost:
        lost.text("kept", "kept.txt")
    (lost.folder / "kept.txt").write_text("kept")
    (lost.folder.parent / "letter").write_text("mine")
    book = journal.Journal(lost.folder)
    book.append({"kind": "artifacts", "key": "a" * 32, "names": [name]})
    book.append({"kind": "status", "status": "FINISHED"})
    book.close()
    client = new_store(workdir, monkeypatch)
    assert as_new(lost.folder) == 0
    (run,) = made_from(client, lost.folder)
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["kept.txt"]


def test_a_run_that_is_made_again_can_be_resumed_and_ends_under_its_new_id(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = train()
    client = new_store(workdir, monkeypatch)
    assert as_new(lost.folder) == 0
    run_id = id_of(client, lost)
    with Run.resume(lost.id, "pretrain", "lost") as again:
        again.metrics({"val/huber": 0.1}, step=3)
        again.tags({"mine": f"runs:/{lost.id}"})
        assert client.get_run(run_id).info.status == "RUNNING"
    assert mlflow.active_run() is None
    run = client.get_run(run_id)
    assert (run.info.status, run.data.metrics["val/huber"]) == ("FINISHED", 0.1)
    assert run.data.tags["mine"] == f"runs:/{run_id}"


def test_a_journal_that_does_not_describe_its_run_gives_what_it_has(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = train()
    lines = [json.loads(line) for line in (lost.folder / JOURNAL_FILE).read_text().splitlines()]
    for line in lines:
        line.pop("make", None)
    (lost.folder / JOURNAL_FILE).unlink()
    book = journal.Journal(lost.folder)
    for line in lines:
        book.append({key: value for key, value in line.items() if key not in ("sum",)})
    book.close()
    (lost.folder / "config.yaml").write_text("tracking:\n  experiment: named\n")
    client = new_store(workdir, monkeypatch)
    assert as_new(lost.folder) == 0
    (run,) = made_from(client, lost.folder)
    assert run.info.run_name == f"pretrain-{lost.id[:8]}"
    assert client.get_experiment(run.info.experiment_id).name == "named"
    assert run.info.start_time == int(lines[0]["at"] * 1000)


def test_what_the_launcher_has_logged_is_made_again_too(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = mlflow.MlflowClient()
    given = client.create_run(client.create_experiment("launched"), run_name="theirs", tags={"mlflow.project.env": "x"})
    client.log_param(given.info.run_id, "bars", "https://me:secret@host/bars.csv")
    with monkeypatch.context() as patched:
        patched.setenv("MLFLOW_RUN_ID", given.info.run_id)
        with Run.start("pretrain", "ours") as lost:
            lost.params({"seed": 1})
    assert "secret" not in (lost.folder / JOURNAL_FILE).read_text()
    client = new_store(workdir, monkeypatch)
    assert as_new(lost.folder) == 0
    (run,) = made_from(client, lost.folder)
    assert run.data.params == {"bars": "https://host/bars.csv", "seed": "1"}
    assert (run.info.run_name, run.data.tags["mlflow.project.env"]) == ("theirs", "x")
    assert client.get_experiment(run.info.experiment_id).name == "launched"


def test_the_end_of_a_launchers_run_that_is_lost_too_stops_nothing(workdir: Path) -> None:
    lost = train()
    replayer = Replayer(mlflow.MlflowClient(), lost.folder, lost.id)
    replayer.apply([journal.Event({"kind": "handover", "run_id": "0" * 32}, 0, 0)], fresh=True)


def test_another_runs_folder_resumes_nothing(workdir: Path) -> None:
    client = mlflow.MlflowClient()
    theirs = client.create_run("0", tags={Tags.FOLDER: "0" * 32}).info.run_id
    client.set_terminated(theirs)
    lost = train()
    Sent(0, theirs, "here").write(lost.folder)
    with pytest.raises(UserError, match="is not the folder of run"):
        Run.resume(lost.id, "pretrain", "lost")
    assert client.get_run(theirs).info.status == "FINISHED"
