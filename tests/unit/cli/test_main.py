"""Every outcome of a command is one exit code and one message."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable
from typing import Any

import mlflow
import pytest

from moola_mlflow import __version__
from moola_mlflow.cli import main
from moola_mlflow.core import GateError, Interrupted, TrainingError, UserError


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    """Put a function in place of what `moola doctor` does."""
    for name in ("MLFLOW_RUN_ID", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)

    def put(run: Callable[..., Any]) -> None:
        name = "moola_mlflow.cli.commands.doctor"
        monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(run=run))  # type: ignore[arg-type]

    return put


def raising(error: BaseException) -> Callable[..., None]:
    def run(*_: object, **__: object) -> None:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("bars: no file 'x'"), 2, "moola: bars: no file 'x'\n"),
        (TrainingError("the loss is NaN"), 1, "moola: the loss is NaN\n"),
        (GateError("2 of 5 gates failed"), 3, "moola: 2 of 5 gates failed\n"),
        (Interrupted(2), 130, "moola: interrupted by SIGINT\n"),
        (Interrupted(15), 143, "moola: interrupted by SIGTERM\n"),
        (mlflow.MlflowException("no such\nexperiment"), 1, "moola: MlflowException: no such\n"),
        (ConnectionError("http://me:pw@host refused"), 1, "moola: ConnectionError: http://host refused\n"),
        (TimeoutError(), 1, "moola: TimeoutError: \n"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_a_known_failure_is_one_line_and_a_code(
    command: Callable[..., None], capsys: pytest.CaptureFixture[str], error: BaseException, code: int, said: str
) -> None:
    command(raising(error))
    assert main.run_cli(["doctor"]) == code
    assert capsys.readouterr().err == said


def test_a_bug_shows_its_traceback_without_logins(
    command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    command(raising(RuntimeError("odd: http://me:pw@host")))
    assert main.run_cli(["doctor"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert said.endswith("moola: RuntimeError: odd: http://host\n")
    assert "pw" not in said.split("Traceback")[1].replace("http://host", "")


@pytest.mark.parametrize(
    ("package", "hint"), [("psycopg2", r"pip install -e '\.\[postgresql\]'"), ("torch", "make it with 'make setup'")]
)
def test_a_package_that_is_missing_is_named_with_what_installs_it(
    command: Callable[..., None], capsys: pytest.CaptureFixture[str], package: str, hint: str
) -> None:
    command(raising(ModuleNotFoundError("no", name=package)))
    assert main.run_cli(["doctor"]) == 1
    said = capsys.readouterr().err
    assert f"lacks the package '{package}'" in said
    assert hint.replace("\\", "") in said


def test_a_command_that_ends_well_is_code_0_and_gets_its_configuration(
    command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[Any, ...]] = []
    command(lambda config, preset, interrupts, **arguments: seen.append((type(config).__name__, preset, arguments)))
    assert main.run_cli(["doctor"]) == 0
    assert len(seen) == 1
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_without_a_command_the_commands_are_listed(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run_cli(words) == 0
    assert "pretrain" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["help", "doctor"], ["doctor", "--help"], ["doctor", "-h"]])
def test_help_of_a_command_is_shown_and_nothing_is_run(
    command: Callable[..., None], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command(raising(AssertionError("it was run")))
    assert main.run_cli(words) == 0
    assert capsys.readouterr().out.startswith("moola doctor: ")


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run_cli(["--version"]) == main.run_cli(["-V"]) == 0
    assert capsys.readouterr().out == f"moola_mlflow {__version__}\n" * 2


def test_a_mistake_on_the_line_is_code_2_and_recorded_once_by_the_first_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded: list[str] = []
    monkeypatch.setattr("moola_mlflow.tracking.record_failure", lambda name, error: recorded.append(name))
    monkeypatch.setattr(main, "FIRST_PROCESS_S", 0)
    monkeypatch.setenv("MLFLOW_RUN_ID", "1" * 32)
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert main.run_cli(["features", "--bars.sample_bars", "many"]) == 2
        assert "bars.sample_bars='many'" in capsys.readouterr().err
    assert recorded == ["features"]


def test_a_failure_that_cannot_be_recorded_is_told_before_the_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("MLFLOW_RUN_ID", "1" * 32)
    monkeypatch.setattr("moola_mlflow.tracking.record_failure", raising(UserError("the store is gone")))
    assert main.run_cli(["features", "--bars.sample_bars", "many"]) == 2
    first, last = capsys.readouterr().err.splitlines()
    assert first == "moola: this could not be recorded: the store is gone"
    assert "bars.sample_bars" in last


def test_an_unknown_command_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run_cli(["pretran"]) == 2
    assert "pretrain" in capsys.readouterr().err


def test_several_processes_are_refused_for_a_command_that_one_does_whole(
    command: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command(raising(AssertionError("it was run")))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("moola_mlflow.tracking.record_failure", lambda name, error: None)
    assert main.run_cli(["doctor"]) == 2
    assert "'doctor' was started as 2 processes" in capsys.readouterr().err


def test_a_reader_that_closes_the_pipe_early_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        assert main.run_cli(["--version"]) == 0
