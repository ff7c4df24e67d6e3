"""A store's address: what is wrong is said before MLflow tries it, and looking something up makes no store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

import moola_mlflow
from moola_mlflow.cli import main
from moola_mlflow.core import UserError
from moola_mlflow.tracking.addresses import check_address, need_store, store_file


@pytest.mark.parametrize(
    "uri",
    ["sqlite:///mlflow.db", "http://host:5000", "https://u:p@host/x", "postgresql+psycopg://u:p@h/d", "databricks"],
)
def test_an_address_that_a_store_can_have_passes(uri: str) -> None:
    check_address(uri)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("127.0.0.1:5000", "has no scheme; write http://127.0.0.1:5000"),
        ("localhost:5000/mlflow", "has no scheme; write http://localhost:5000/mlflow"),
        ("tracking.example.com", "has no scheme; write http://tracking.example.com"),
        ("myserver/mlflow", "has no scheme; write http://myserver/mlflow"),
        ("./mlruns", "is a folder of files, which MLflow no longer writes"),
        ("file:///tmp/mlruns", "is a folder of files, which MLflow no longer writes"),
        ("ftp://host/x", "the scheme 'ftp' is unknown; allowed: http, https, sqlite"),
        ("oracle://me:secret@h/d", "the scheme 'oracle' is unknown"),
        ("postgresql+psycopg2://me:secret@h/d", "needs the driver 'psycopg2', which this Python lacks; pip install"),
        ("mysql://me:secret@h/d", "needs the driver 'MySQLdb', which this Python lacks; pip install pymysql"),
        ("postgresql://me:secret@h:port/d", "is no address of a database"),
    ],
)
def test_what_is_wrong_with_an_address_is_said_with_its_cure(
    uri: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    with pytest.raises(UserError) as caught:
        check_address(uri)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_store_of_files_is_for_whoever_allows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    check_address("file:///tmp/mlruns")


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is no project, without any setting of MLflow."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    mlflow.set_tracking_uri(None)
    return tmp_path


@pytest.mark.parametrize(
    "look_up",
    [
        lambda: moola_mlflow.load_encoder("models:/moola-encoder@champion"),
        lambda: moola_mlflow.load_detector("runs:/abc/detector"),
        lambda: moola_mlflow.load_study("abc"),
    ],
    ids=["encoder", "detector", "study"],
)
def test_a_script_outside_the_project_gets_one_message_and_makes_no_store(
    outside: Path, look_up: Callable[[], object]
) -> None:
    with pytest.raises(UserError, match=r"there is none at .*mlflow.db: this is not the project's folder. Run there"):
        look_up()
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [["promote", "--model", "x"], ["report", "--run_id", "a"], ["detect", "--bars", "sample"],
     ["finetune", "--encoder", "models:/x/1"]],
    ids=lambda words: words[0],
)  # fmt: skip
def test_a_command_outside_the_project_gets_one_message_and_makes_no_store(
    outside: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run_cli(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "there is none at" in line
    assert list(outside.iterdir()) == []


def test_doctor_outside_the_project_makes_no_store(outside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main.run_cli(["doctor"])
    assert "no store at" in capsys.readouterr().out
    assert list(outside.iterdir()) == []


def test_a_store_that_is_there_is_enough(workdir: Path) -> None:
    path = store_file(mlflow.get_tracking_uri())
    assert path is not None
    path.touch()
    need_store("anything")
    assert store_file("http://host") is None
