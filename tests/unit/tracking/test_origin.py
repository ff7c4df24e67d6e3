"""Whose a run's folder is: a mark that only this user can make, and a tag that ties the run to it."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest

from moola_mlflow.core import UserError
from moola_mlflow.tracking import RUNS, Run, Tags, origin
from moola_mlflow.tracking.delivery import JOURNAL_FILE


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of this user's key, in a home of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return origin.key_file()


def test_a_folder_that_this_user_made_is_known_and_one_of_another_key_or_name_is_not(key: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    assert not origin.is_ours(folder)
    origin.mark_folder(folder)
    assert origin.is_ours(folder)
    assert key.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in key.parent.iterdir()] == [key.name]
    renamed = folder.rename(tmp_path / "other")
    assert not origin.is_ours(renamed)
    renamed.rename(folder)
    key.unlink()
    assert not origin.is_ours(folder)
    (tmp_path / "second").mkdir()
    origin.mark_folder(tmp_path / "second")  # makes another key
    assert origin.is_ours(tmp_path / "second")
    assert not origin.is_ours(folder)


def test_without_a_home_that_can_be_written_a_folder_stays_unmarked(key: Path, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no folder")
    origin.mark_folder(tmp_path)
    assert not (tmp_path / origin.MARK_FILE).exists()
    assert (origin.is_ours(tmp_path), origin.tag_of(tmp_path)) == (False, "")


def test_a_run_carries_the_tag_of_its_folder_and_belongs_to_it_wherever_it_is_copied(
    key: Path, workdir: Path, tmp_path: Path
) -> None:
    with Run.start("pretrain", "marked") as active:
        pass
    run = mlflow.MlflowClient().get_run(active.id)
    assert run.data.tags[Tags.FOLDER] == origin.tag_of(active.folder)
    assert origin.is_ours(active.folder)
    moved = active.folder.rename(tmp_path / "moved")
    assert origin.belongs(run, moved)
    (moved / origin.MARK_FILE).write_text("another")
    with pytest.raises(UserError, match="is not the folder of run"):
        origin.check_belongs(run, moved)


def test_a_run_of_an_early_version_belongs_to_the_folder_of_its_name_in_this_project(workdir: Path) -> None:
    run = mlflow.MlflowClient().create_run("0")
    inside, outside = RUNS / run.info.run_id, Path("elsewhere") / run.info.run_id
    assert origin.belongs(run, inside)
    assert not origin.belongs(run, outside)
    assert not origin.belongs(run, RUNS / "another")


def test_a_folder_that_has_a_journal_already_gets_no_mark(key: Path, workdir: Path) -> None:
    with Run.start("pretrain", "first") as active:
        pass
    (active.folder / origin.MARK_FILE).unlink()
    mlflow.MlflowClient().delete_tag(active.id, Tags.FOLDER)
    assert (active.folder / JOURNAL_FILE).exists()
    with Run.resume(active.id, "pretrain", "again"):
        pass
    assert not (active.folder / origin.MARK_FILE).exists()
