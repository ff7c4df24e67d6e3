"""A sweep's database that restarts is waited for; any other error is said at once, and no trial counts twice."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError, ProgrammingError

from moola_mlflow.sweep import patient_storage
from moola_mlflow.sweep.patient_storage import WAITING, PatientStorage, wait_for_database


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient_storage, "FIRST_PAUSE_S", 0.0)


def lost(text: str = "server closed the connection unexpectedly") -> StorageInternalError:
    error = StorageInternalError("An exception is raised during the commit.")
    error.__cause__ = OperationalError("UPDATE trials", {}, ConnectionError(text))
    return error


def failing(*errors: Exception) -> tuple[list[int], object]:
    """A step that fails with each error in turn, and then returns 3."""
    calls: list[int] = []

    def step() -> int:
        calls.append(len(calls))
        if len(calls) <= len(errors):
            raise errors[len(calls) - 1]
        return 3

    return calls, step


def test_a_lost_connection_is_tried_again_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    calls, step = failing(lost(), lost("the database system is starting up").__cause__, lost())  # type: ignore[arg-type]
    assert wait_for_database(step) == 3  # type: ignore[arg-type]
    assert len(calls) == 4
    assert capsys.readouterr().out.count("The sweep's database does not answer (server closed the connection") >= 1


@pytest.mark.parametrize(
    "error",
    [
        ProgrammingError("SELECT", {}, Exception("no such table")),
        OperationalError("SELECT", {}, sqlite3.OperationalError("disk I/O error")),
        OperationalError("SELECT", {}, Exception('database "x" does not exist')),
    ],
    ids=["another error", "SQLite", "a wrong address"],
)
def test_what_waiting_does_not_correct_is_raised_at_once(error: Exception) -> None:
    calls, step = failing(error, error)
    with pytest.raises(type(error)):
        wait_for_database(step)  # type: ignore[arg-type]
    assert len(calls) == 1


def test_an_outage_without_end_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient_storage, "LIMIT_S", -1.0)
    _, step = failing(lost())
    with pytest.raises(StorageInternalError):
        wait_for_database(step)  # type: ignore[arg-type]


def test_every_call_of_a_study_outlasts_a_lost_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = PatientStorage(f"sqlite:///{tmp_path}/optuna.db", heartbeat_interval=1, grace_period=2)
    names = [*WAITING, "set_trial_state_values"]
    asked: set[str] = set()
    for name in names:
        method = getattr(RDBStorage, name)

        def once(self: object, *given: object, _name: str = name, _method: object = method, **named: object) -> object:
            found = _method(self, *given, **named)  # type: ignore[operator]
            if _name not in asked:  # it was done, and the answer is lost
                asked.add(_name)
                if not _name.startswith(("_create", "get_all")):
                    raise lost()
            return found

        monkeypatch.setattr(RDBStorage, name, once)
    for name in WAITING:
        monkeypatch.setattr(PatientStorage, name, patient_storage._waiting(name))
    study = optuna.create_study(storage=storage, study_name="one", direction="minimize")
    study.set_user_attr("run_id", "a")
    trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    trial.report(0.5, 0)
    trial.set_user_attr("seconds", 1.0)
    study.tell(trial, 0.25)
    assert [(one.state, one.value) for one in study.get_trials()] == [(TrialState.COMPLETE, 0.25)]
    assert study.best_trial.user_attrs == {"seconds": 1.0}
    assert {"set_trial_state_values", "set_trial_intermediate_value", "_set_trial_param", "_get_trials"} <= asked
