"""A store that names folders of another place: its paths are rewritten, all or none."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
import pytest

from moola_mlflow.core import UserError
from moola_mlflow.tracking.recovery.relocation import BACKUP, new_root, relocate


def places(database: Path) -> set[str]:
    """Every artifact folder that a store names."""
    with closing(sqlite3.connect(database)) as store:
        found = [row[0] for row in store.execute("SELECT artifact_uri FROM runs")]
        return {*found, *(row[0] for row in store.execute("SELECT artifact_location FROM experiments"))}


@pytest.fixture
def moved(workdir: Path) -> tuple[Path, Path]:
    """A store with two experiments whose folder was renamed from `old` to `new`, with blanks and all: both paths."""
    old, new = workdir / "an old place", workdir / "new"
    old.mkdir()
    (workdir / "mlflow.db").rename(old / "mlflow.db")
    client = mlflow.MlflowClient(f"sqlite:///{old}/mlflow.db")
    by_uri = client.create_experiment("by uri", (old / "mlruns" / "1").as_uri())
    by_path = client.create_experiment("by path", str(old / "mlruns" / "2"))
    client.create_experiment("elsewhere", "s3://bucket/an old place/mlruns/3")
    for experiment in (by_uri, by_path):
        client.log_text(client.create_run(experiment).info.run_id, "kept", "a.txt")
    old.rename(new)
    return old, new


def test_every_path_in_the_old_place_becomes_one_in_the_new_place(moved: tuple[Path, Path]) -> None:
    old, new = moved
    uri, before = f"sqlite:///{new}/mlflow.db", places(new / "mlflow.db")
    client = mlflow.MlflowClient(uri)
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    assert relocate(uri, old / "mlruns", new / "mlruns") == 4
    for run in runs:
        path = client.download_artifacts(run.info.run_id, "a.txt")
        assert Path(path).read_text() == "kept"
    after = places(new / "mlflow.db")
    assert not any(str(old) in place or old.as_uri() in place for place in after)
    assert {place for place in before if place.startswith("s3://")} <= after
    assert places(Path(f"{new}/mlflow.db{BACKUP}")) == before
    assert (new / f"mlflow.db{BACKUP}").stat().st_mode & 0o077 == 0


def test_a_folder_whose_name_only_begins_alike_is_left_alone(moved: tuple[Path, Path]) -> None:
    _, new = moved
    before = places(new / "mlflow.db")
    assert relocate(f"sqlite:///{new}/mlflow.db", new.parent / "an old", new) == 0
    assert places(new / "mlflow.db") == before


def test_a_store_with_other_tables_is_refused_and_unchanged(moved: tuple[Path, Path]) -> None:
    old, new = moved
    with closing(sqlite3.connect(new / "mlflow.db")) as store:
        store.execute("ALTER TABLE model_versions RENAME COLUMN source TO origin")  # the last that is rewritten
    before = places(new / "mlflow.db")
    with pytest.raises(UserError, match="could not be rewritten and is unchanged: no such column: source"):
        relocate(f"sqlite:///{new}/mlflow.db", old / "mlruns", new / "mlruns")
    assert places(new / "mlflow.db") == before


def test_only_a_sqlite_store_is_rewritten() -> None:
    with pytest.raises(UserError, match="only a SQLite store holds paths that can be rewritten"):
        relocate("http://127.0.0.1:5000", Path("/old"), Path("/new"))


def test_the_new_place_is_beside_the_store_if_the_lost_artifacts_are_there(moved: tuple[Path, Path]) -> None:
    old, new = moved
    uri = f"sqlite:///{new}/mlflow.db"
    (run,) = mlflow.MlflowClient(uri).search_runs(["2"])
    lost = old / "mlruns" / "2" / run.info.run_id / "artifacts"
    assert new_root(lost, uri) == new / "mlruns"
    assert new_root(lost.parent / "gone", uri) is None
    assert new_root(new / lost.relative_to(old), uri) is None  # it is not lost
    assert new_root(lost, "http://127.0.0.1:5000") is None
