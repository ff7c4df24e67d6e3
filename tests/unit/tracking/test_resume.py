"""Resuming: bit-equal to a training that was never interrupted, and refused where it would not be."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from precisions import PRECISIONS
from small_trainings import histories, make_trainer, resumed, small_windows, weights

from moola_mlflow.cli.parser import parse
from moola_mlflow.core import PretrainKeys, make_config
from moola_mlflow.core.errors import UserError
from moola_mlflow.models.files.checkpoint import LATEST_CHECKPOINT, Checkpointer
from moola_mlflow.models.files.manifest import MANIFEST_FILE
from moola_mlflow.tracking import Run, resume, run_folder
from moola_mlflow.tracking.delivery import Sent
from moola_mlflow.tracking.session import RunSession
from moola_mlflow.windows.windows import Windows


@pytest.fixture(scope="module")
def windows() -> Windows:
    return small_windows()


@pytest.mark.parametrize("name", ["masked", "price_path", "price_path+0.5*masked"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_training_that_stops_anywhere_goes_on_bit_equal(
    windows: Windows, tmp_path: Path, name: str, precision: str
) -> None:
    overrides = {"objective.name": name, "objective.uncertainty": name == "masked", "encoder.dropout": 0.3}
    whole = make_trainer(windows, tmp_path / "whole", precision, **overrides)
    whole.fit()
    steps = whole.steps
    folder = tmp_path / "cut"
    # In the middle of the first epoch, at its last step, and in the middle of the third.
    for stop_at in (steps // 2, steps, 2 * steps + 3):
        make = resumed if (folder / LATEST_CHECKPOINT).exists() else make_trainer
        trainer = make(windows, folder, precision, **overrides)
        trainer.should_stop = lambda t=trainer, n=stop_at: (  # type: ignore[misc]
            "SIGTERM" if t.progress.epoch * t.steps + t.progress.step >= n else None
        )
        assert trainer.fit().stopped == "SIGTERM"
    last = resumed(windows, folder, precision, **overrides)
    assert last.fit().stopped is None
    assert histories(last) == histories(whole)
    expected = weights(whole)
    assert all(torch.equal(tensor, expected[key]) for key, tensor in weights(last).items())
    assert last.checkpointer is not None
    assert whole.checkpointer is not None
    assert last.checkpointer.ranking == whole.checkpointer.ranking
    assert last.progress.best_epoch == whole.progress.best_epoch


def test_a_training_that_ran_out_of_patience_does_not_go_on(windows: Windows, tmp_path: Path) -> None:
    trainer = make_trainer(windows, tmp_path, **{"optimizer.lr": 1e-9, "trainer.patience": 1, "trainer.epochs": 9})
    trainer.progress.best_huber = 0.0  # nothing can be better
    trainer.progress.best_epoch = 0
    trainer.fit()
    done = trainer.progress.epoch
    again = resumed(windows, tmp_path, **{"optimizer.lr": 1e-9, "trainer.patience": 1, "trainer.epochs": 9})
    again.fit()
    assert again.progress.epoch == done < 9


def interrupted(root: Path, run_id: str, config: PretrainKeys, status: str = "KILLED", **beat: Any) -> Path:
    """Leave on disk what an interrupted run leaves."""
    folder = root / run_id
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(config.to_yaml())
    state = {"epoch": 1, "model_state_dict": {}, "metrics": {"val_huber": 1.0}}
    Checkpointer(folder / "checkpoints").save_epoch(state, 1.0)
    records = [{"kind": "begin"}, {"kind": "tags", "tags": {"moola.data_sha256": "abc"}}]
    records += [{"kind": "status", "status": status}] if status else []
    (folder / "journal.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records) + '{"kind": "metr')
    (folder / "heartbeat.json").write_text(json.dumps({"pid": 1, "host": os.uname().nodename, **beat}))
    return folder


ONE, OTHER = "1" * 32, "2" * 32


def asked(**overrides: object) -> PretrainKeys:
    return make_config(PretrainKeys, {}, {key.replace("__", "."): value for key, value in overrides.items()})


def test_auto_takes_the_newest_unfinished_run_of_the_same_configuration(tmp_path: Path) -> None:
    assert resume.find_resume_point(asked(tracking__resume="auto"), tmp_path) is None
    interrupted(tmp_path, ONE, asked())
    point = resume.find_resume_point(asked(tracking__resume="auto"), tmp_path)
    assert point is not None
    assert (point.run_id, point.fork, point.data_sha256, point.drift) == (ONE, False, "abc", {})
    later = interrupted(tmp_path, OTHER, asked(), status="")  # kill -9 leaves no status
    os.utime(later / "checkpoints" / MANIFEST_FILE, (time.time() + 9, time.time() + 9))
    point = resume.find_resume_point(asked(tracking__resume="auto"), tmp_path)
    assert point is not None
    assert point.run_id == OTHER


@pytest.mark.parametrize("name", ["path", "path+0.5*masked"])
def test_auto_takes_a_run_of_an_earlier_version_that_calls_the_price_path_path(tmp_path: Path, name: str) -> None:
    config = asked(objective__name=name)
    folder = interrupted(tmp_path, ONE, config)
    saved = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(saved.replace("price_path", "path"))
    for now in (name, config.objective.name):
        point = resume.find_resume_point(asked(tracking__resume="auto", objective__name=now), tmp_path)
        assert point is not None
        assert (point.run_id, point.drift) == (ONE, {})


def test_auto_passes_over_finished_runs(tmp_path: Path) -> None:
    interrupted(tmp_path, ONE, asked(trainer__epochs=7), status="FINISHED")
    assert resume.find_resume_point(asked(tracking__resume="auto"), tmp_path) is None


def test_auto_begins_no_new_run_while_others_wait_and_says_why_each_does_not_fit(tmp_path: Path) -> None:
    interrupted(tmp_path, ONE, asked(trainer__epochs=7, optimizer__lr=0.5))
    damaged = interrupted(tmp_path, OTHER, asked())
    (damaged / "config.yaml").write_text("{")
    with pytest.raises(UserError) as refused:
        resume.find_resume_point(asked(tracking__resume="auto"), tmp_path)
    said = str(refused.value)
    assert f"- run {ONE}: optimizer.lr was 0.5, is 0.001; trainer.epochs was 7, is 20" in said
    assert f"- run {OTHER}: its configuration cannot be read" in said
    assert said.endswith("To begin a new run, leave resume out.")
    for run_id in (ONE, OTHER):
        assert f"  moola pretrain --config {tmp_path / run_id / 'config.yaml'} --resume {run_id}\n" in said
    words = next(line for line in said.splitlines() if line.endswith(f"--resume {ONE}")).split()[2:]
    config = parse("pretrain", words).config  # the command, typed as it is printed
    point = resume.find_resume_point(config, tmp_path)
    assert point is not None
    assert (point.run_id, point.drift) == (ONE, {})


def test_never_looks_at_nothing(tmp_path: Path) -> None:
    interrupted(tmp_path, ONE, asked())
    assert resume.find_resume_point(asked(), tmp_path) is None


def test_a_changed_configuration_is_refused_by_key_unless_allowed(tmp_path: Path) -> None:
    interrupted(tmp_path, ONE, asked())
    with pytest.raises(UserError, match=r"trainer\.epochs was 20, is 40.*allow_drift=trainer\.epochs"):
        resume.find_resume_point(asked(tracking__resume=ONE, trainer__epochs=40), tmp_path)
    point = resume.find_resume_point(
        asked(tracking__resume=ONE, trainer__epochs=40, tracking__allow_drift="trainer.epochs"), tmp_path
    )
    assert point is not None
    assert point.drift_text() == "trainer.epochs: 20 -> 40"


def test_a_fork_may_differ_and_may_come_from_a_finished_run(tmp_path: Path) -> None:
    interrupted(tmp_path, ONE, asked(), status="FINISHED")
    point = resume.find_resume_point(asked(tracking__resume=f"new:{ONE}", optimizer__lr=5e-4), tmp_path)
    assert point is not None
    assert (point.fork, point.drift_text()) == (True, "optimizer.lr: 0.001 -> 0.0005")
    point.check_data("other bars")  # a run of its own may


@pytest.mark.parametrize("kind", ["", "new:"])
def test_a_run_that_began_offline_is_found_by_the_id_of_its_folder_and_by_that_of_its_store(
    tmp_path: Path, kind: str
) -> None:
    offline = f"offline-{ONE}"
    folder = interrupted(tmp_path, offline, asked())
    point = resume.find_resume_point(asked(tracking__resume=f"{kind}{offline}"), tmp_path)
    assert (point and point.run_id) == offline
    with pytest.raises(UserError, match="no checkpoints"):
        resume.find_resume_point(asked(tracking__resume=f"{kind}{OTHER}"), tmp_path)
    Sent(0, OTHER, "here").write(folder)
    point = resume.find_resume_point(asked(tracking__resume=f"{kind}{OTHER}"), tmp_path)
    assert (point and point.run_id) == offline


def test_other_bars_are_refused(tmp_path: Path) -> None:
    interrupted(tmp_path, ONE, asked())
    point = resume.find_resume_point(asked(tracking__resume=ONE), tmp_path)
    assert point is not None
    point.check_data("abc")
    with pytest.raises(UserError, match=f"new:{ONE}"):
        point.check_data("xyz")


def test_a_run_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    interrupted(tmp_path, ONE, asked())
    with pytest.raises(UserError, match=f"Runs with checkpoints: {ONE}"):
        resume.find_resume_point(asked(tracking__resume=OTHER), tmp_path)


def test_a_run_that_a_living_process_holds_is_refused_and_passed_over_by_auto(tmp_path: Path) -> None:
    folder = interrupted(tmp_path, ONE, asked(), status="", pid=os.getpid())
    held = run_folder.hold_run_folder(folder)
    with pytest.raises(UserError, match=f"being trained by process {os.getpid()} on"):
        resume.find_resume_point(asked(tracking__resume=ONE), tmp_path)
    assert resume.find_resume_point(asked(tracking__resume="auto"), tmp_path) is None
    held.close()
    assert resume.find_resume_point(asked(tracking__resume=ONE), tmp_path) is not None


def test_a_run_that_another_machine_beats_for_is_refused_until_its_beat_is_old(tmp_path: Path) -> None:
    folder = interrupted(tmp_path, ONE, asked(), status="", host="elsewhere", beat_at=time.time() - 60)
    with pytest.raises(UserError, match="on elsewhere"):
        resume.find_resume_point(asked(tracking__resume=ONE), tmp_path)
    beat = {"pid": 1, "host": "elsewhere", "beat_at": time.time() - 3600}
    (folder / "heartbeat.json").write_text(json.dumps(beat))
    assert resume.find_resume_point(asked(tracking__resume=ONE), tmp_path) is not None


def test_a_start_killed_as_it_writes_its_configuration_leaves_the_one_by_which_the_run_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    before = PretrainKeys().to_yaml()
    (tmp_path / "config.yaml").write_text(before)
    session = RunSession()
    session.folder = tmp_path
    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        Run(session).config(make_config(PretrainKeys, {}, {"trainer.epochs": 7}))
    assert (tmp_path / "config.yaml").read_text() == before
