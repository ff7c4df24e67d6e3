"""A run that no store knows keeps what it logs in its folder, and writes nothing elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from moola_mlflow.core import UserError
from moola_mlflow.tracking import Run, untracked


def test_what_is_logged_lies_in_the_folder_under_the_names_of_artifacts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with untracked(tmp_path / "mine"), Run.start("data", "a run") as run:
        (run.folder / "kept").mkdir()
        (run.folder / "kept" / "a.txt").write_text("a")
        run.artifact(run.folder / "kept", "kept")  # already where it belongs
        run.text("hello", "notes/hello.txt")
        run.json({"a": 1}, "a.json")
        run.metrics({"loss": 2.0}, step=0)
        run.metrics({"loss": 1.0}, step=1)
        run.tags({"any": "tag"})
        run.child("fold", {}, [], {})
        run.beat()
        run.note("**Good.**")
    assert not run.tracked
    assert run.id == ""
    assert run.last_metrics == {"loss": 1.0}
    assert run.noted == "**Good.**"
    assert sorted(run.paths()) == ["a.json", "kept", "notes/hello.txt"]
    assert run.uri("kept") == str(tmp_path / "mine" / "kept")
    assert run.steps("loss") == set()
    there = sorted(path.name for path in tmp_path.rglob("*"))
    assert there == ["a.json", "a.txt", "hello.txt", "kept", "mine", "notes"]


def test_runs_after_the_block_know_the_store_again(workdir: Path) -> None:
    with untracked(workdir / "mine"):
        pass
    with Run.start("data", "a run") as run:
        assert run.tracked
        assert run.uri("encoder") == f"runs:/{run.id}/encoder"
    assert run.paths() == {}


def test_a_run_of_a_store_cannot_be_resumed_or_joined_without_it(tmp_path: Path) -> None:
    with untracked(tmp_path):
        with pytest.raises(UserError, match="track=False"):
            Run.resume("0" * 32, "pretrain", "a run")
        with pytest.raises(UserError, match="track=False"):
            Run.join("0" * 32)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with untracked(tmp_path / "file" / "folder"), pytest.raises(UserError, match="cannot be written"):
        Run.start("data", "a run")


def test_refused_input_does_not_remove_the_folder_of_the_caller(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError), untracked(tmp_path), Run.start("data", "a run"):
        raise UserError("refused")
    assert (tmp_path / "mine.txt").read_text() == "mine"
