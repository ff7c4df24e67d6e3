"""Where workers coordinate: which database, whose it is, and how its address is shown."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import mlflow
import pytest
from small_studies import configured

from moola_mlflow.core import UserError
from moola_mlflow.sweep.storage import (
    Coordination,
    check_storage_secret,
    locate_storage,
    shown_url,
    without_password,
)
from moola_mlflow.tracking import Run


def test_new_databases_and_folders_are_their_owners_alone(workdir: Path) -> None:
    def modes(*paths: Path) -> list[str]:
        return [oct(stat.S_IMODE(path.stat().st_mode)) for path in paths]

    url, _ = locate_storage("", "http://127.0.0.1:9")
    Coordination(url, 1, 2)
    assert modes(workdir / "mlruns" / "optuna.db", workdir / "mlruns") == ["0o600", "0o700"]
    run_id = mlflow.MlflowClient().create_run("0").info.run_id
    Run.join(run_id)
    assert modes(workdir / ".moola") == ["0o700"]


def test_an_address_is_shown_without_its_passwords() -> None:
    url, _ = locate_storage("postgresql://me:pa%2Fss@db/moola?password=other&sslpassword=third&sslmode=require", "")
    assert "pa/ss" in str(url.password)
    shown = shown_url(url)
    assert "sslmode=require" in shown
    assert not any(secret in shown for secret in ("pa%2Fss", "pa/ss", "other", "third"))


def test_a_configuration_is_logged_without_the_password_of_its_storage() -> None:
    config = configured(storage="postgresql://me:secret@db/moola")
    assert "secret" not in str(without_password(config).model_dump())
    assert "me:***@db/moola" in without_password(config).sweep.storage
    assert config.sweep.storage == "postgresql://me:secret@db/moola"
    assert without_password(configured()) == configured()


@pytest.mark.parametrize(
    ("given", "tracking", "expected", "warned"),
    [
        ("", "sqlite:////data/mlflow.db", "sqlite:////data/mlruns/optuna.db", False),
        ("", "http://127.0.0.1:5000", "sqlite:///{here}/mlruns/optuna.db", True),
        ("", "postgresql://me@db/moola",
         "postgresql+psycopg://me@db/moola?options=-csearch_path%3Doptuna", False),
        ("sqlite:////other/o.db", "http://127.0.0.1:5000", "sqlite:////other/o.db", False),
        ("postgresql://me@db/moola?options=-csearch_path%3Dmine", "sqlite:///mlflow.db",
         "postgresql+psycopg://me@db/moola?options=-csearch_path%3Dmine", False),
        ("postgresql+psycopg2://me@db/moola", "", "postgresql+psycopg2://me@db/moola?options=-csearch_path%3Doptuna",
         False),
    ],
)  # fmt: skip
def test_workers_coordinate_beside_the_store_or_where_the_user_says(
    workdir: Path, given: str, tracking: str, expected: str, warned: bool
) -> None:
    url, warning = locate_storage(given, tracking)
    assert url.render_as_string(hide_password=False) == expected.format(here=workdir)
    assert bool(warning) == warned


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("mysql://root@localhost/x", "is neither SQLite nor PostgreSQL; start it or correct sweep.storage"),
        ("sqlite://", "is neither SQLite nor PostgreSQL"),
        ("no address", "is no database URL"),
    ],
)
def test_a_database_of_another_kind_is_refused(given: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        locate_storage(given, "")


def test_a_database_that_cannot_be_opened_is_refused_with_the_cure(workdir: Path) -> None:
    (workdir / "damaged.db").write_bytes(b"not a database" * 100)
    with pytest.raises(UserError, match=r"damaged.db' does not work: file is not a database; start it or correct"):
        Coordination(locate_storage(f"sqlite:///{workdir}/damaged.db", "")[0], 1, 2)


def test_one_process_at_a_time_holds_a_name(workdir: Path) -> None:
    url, _ = locate_storage("", "http://127.0.0.1:9")
    one, other = Coordination(url, 1, 2), Coordination(url, 1, 2)
    order: list[str] = []

    def second() -> None:
        with other.exclusive("study"):
            order.append("second")

    with one.exclusive("study"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        order.append("first")
    thread.join(60)
    assert order == ["first", "second"]


@pytest.mark.parametrize(
    ("storage", "refused"),
    [
        ("postgresql://me:secret@db/moola", True),
        ("postgresql://me@db/moola?password=secret", True),
        ("postgresql://me@db/moola", False),
        ("sqlite:///optuna.db", False),
        ("", False),
    ],
)
def test_a_password_in_storage_is_refused_if_the_launcher_has_logged_it(storage: str, refused: bool) -> None:
    config = configured(storage=storage)
    if not refused:
        check_storage_secret(config)
        return
    with pytest.raises(UserError, match="has a password, and `mlflow run` has logged it") as caught:
        check_storage_secret(config)
    assert "secret" not in str(caught.value)
