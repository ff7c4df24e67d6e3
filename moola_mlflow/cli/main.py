"""``moola NAME --key value``: run one command and turn its outcome into an exit code.

0 done; 1 failed while running; 2 bad input or configuration; 3 a gate not met; 130 and 143 interrupted and terminated.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from moola_mlflow import __version__
from moola_mlflow.cli.entry_points import ENTRY_POINTS, overview
from moola_mlflow.core import (
    CommandKeys,
    GateError,
    Interrupted,
    Interrupts,
    TrainingError,
    UserError,
    is_launched,
    num_processes,
    prepare_environment,
    printable,
    process_rank,
)

FIRST_PROCESS_S = 60
"""Seconds that the other processes of a training give the first one to record what is wrong."""
SHARED = ("pretrain",)
"""Commands that several processes started by torchrun work on together."""

READERS = ("promote", "report", "compare")
"""Commands about what the store holds."""
IN_STORE = ("models:/", "runs:/")
"""Beginnings of the names of what a store holds."""


def run_cli(argv: Sequence[str] | None = None, interrupts: Interrupts | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["help"]:
        words = [*words[1:2], "--help"]
    if not words or words[0] in ("-h", "--help"):
        return _show(overview())
    if words[0] == "completion":
        from moola_mlflow.cli.completion import completion_script

        return _show(completion_script().rstrip())
    if words[0] in ("-V", "--version"):
        return _show(f"moola_mlflow {__version__}")
    if words[0] == "presets" and {"-h", "--help"} & set(words[1:]):
        from moola_mlflow.cli.presets import USAGE

        return _show(USAGE)
    if {"-h", "--help"} & set(words[1:]) and words[0] in ENTRY_POINTS:
        from moola_mlflow.cli.help import help_text  # late: the list of commands needs no configuration

        return _show(help_text(words[0]))
    try:
        return _run(words, interrupts or Interrupts())
    except Interrupted as e:
        _print_error(f"interrupted by {e}")
        _record(words[0], e)  # if the launcher's run was not adopted yet, nobody else sets it to KILLED
        return e.exit_code
    except UserError as e:
        if process_rank():  # the first process has the same error and must record it before torchrun ends all
            time.sleep(FIRST_PROCESS_S)
        _print_error(str(e))
        return 2
    except TrainingError as e:
        _print_error(str(e))
        return 1
    except GateError as e:
        _print_error(str(e))
        return 3
    except ModuleNotFoundError as e:
        _print_error(f"this Python ({sys.executable}) lacks the package '{e.name}'; {_install_hint(e.name)}")
        return 1
    except Exception as e:
        # A store that fails during a run is no bug of ours: its own message says enough.
        if not _from_a_store(e):
            print(printable(traceback.format_exc()), file=sys.stderr, end="")
        _print_error(f"{type(e).__name__}: {str(e).strip().splitlines()[0] if str(e).strip() else ''}")
        return 1


def _show(text: str) -> int:
    """Print a text. Its reader may close the pipe early, as in ``moola pretrain --help | head``."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # otherwise Python prints an error at its exit
    return 0


def _print_error(message: str) -> None:
    print(f"moola: {printable(message)}", file=sys.stderr, flush=True)


def _install_hint(package: str | None) -> str:
    if package and package.startswith("psycopg"):
        return "a PostgreSQL store needs it: pip install -e '.[postgresql]'"
    if (Path(__file__).resolve().parents[2] / "Makefile").is_file():
        return (
            "activate the project's environment (. .venv/bin/activate), make it with 'make setup', or pip install -e ."
        )
    return "`pip check` lists what the installation lacks"


def _from_a_store(error: Exception) -> bool:
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in ("mlflow", "sqlalchemy")


def _run(words: list[str], interrupts: Interrupts) -> int:
    if words[0] == "presets":
        from moola_mlflow.cli.presets import presets_text

        return _show(presets_text(words[1:]))
    from moola_mlflow.cli.calling import run_parsed
    from moola_mlflow.cli.inputs import check_inputs
    from moola_mlflow.cli.parser import check_command, parse

    name = words[0]
    check_command(name)
    with _recorded(name):
        parsed = parse(name, words[1:])
        _check_single_process(name)

    def check() -> None:
        with _recorded(name):
            _check_store(name, parsed.config)
            check_inputs(name, parsed.config)

    run_parsed(name, parsed, interrupts, check)
    return 0


@contextmanager
def _recorded(name: str) -> Iterator[None]:
    """Record a refusal in the launcher's run."""
    try:
        yield
    except UserError as e:
        _record(name, e)
        raise


def _check_single_process(name: str) -> None:
    """Refuse several processes for a command that runs in one process. Raises: UserError."""
    if name not in SHARED and (count := num_processes()) > 1:
        raise UserError(
            f"'{name}' was started as {count} processes (WORLD_SIZE={count}), and each would do all of it; allowed as "
            f"several: {', '.join(SHARED)}; start moola {name} once, without torchrun"
        )


def _check_store(name: str, config: CommandKeys) -> None:
    """If there is no store, refuse a command that looks up what one holds. Raises: UserError."""
    named = [f"{key}='{value}'" for key, value in config.flat().items() if str(value).startswith(IN_STORE)]
    if not is_launched() and (named or name in READERS):
        from moola_mlflow.tracking import need_store  # mlflow takes seconds to import

        need_store(named[0] if named else f"what '{name}' reads")


def _record(command: str, error: BaseException) -> None:
    """Record in the launcher's run why a command ended before it adopted that run. Without a launcher there is none."""
    if process_rank() or not is_launched():  # the first process records it
        return
    prepare_environment()
    from moola_mlflow.tracking import record_failure  # mlflow takes seconds to import

    try:
        record_failure(command, error)
    except UserError as e:  # print this first, so that the message about the user's key stays the last one
        _print_error(f"this could not be recorded: {e}")
