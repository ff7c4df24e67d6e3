"""``moola NAME --key value``: arguments to a configuration, and outcomes to exit codes.

0 done; 1 failed while running; 2 bad input or configuration; 3 a gate not met; 130 and 143 interrupted and terminated.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moola_mlflow import __version__
from moola_mlflow.cli import completion
from moola_mlflow.cli.entry_points import ENTRY_POINTS, PRESET, SHORT, EntryPoint
from moola_mlflow.core import (
    Config,
    GateError,
    Interrupted,
    Interrupts,
    TrainingError,
    UserError,
    allowed_values,
    dotted_keys,
    is_launched,
    is_tuned,
    merge_presets,
    nearest_name,
    num_processes,
    prepare_environment,
    printable,
    process_rank,
    read_preset,
    resolve,
)

# How long other processes of a training wait for the first one to say what is wrong.
SPEAK_S = 60
SHARED = ("pretrain",)
"""Commands whose work the processes that torchrun starts share out among them; any other is done whole by each."""
KEYS = """\
Keys of the configuration, the same for every command (type and range; default).
One that this command does not read changes nothing, or is refused:"""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a command as help and reference show it; ``dotted`` is the key that it is short for, if any."""

    name: str
    dotted: str
    default: Any
    meaning: str
    needed: bool = False


def run_cli(argv: Sequence[str] | None = None, interrupts: Interrupts | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["help"]:
        words = [*words[1:2], "--help"]
    if not words or words[0] in ("-h", "--help"):
        return _show(overview())
    if words[0] == "completion":
        parameters = {name: entry.parameters for name, entry in ENTRY_POINTS.items()}
        return _show(completion.bash(parameters, dotted_keys()).rstrip())
    if words[0] in ("-V", "--version"):
        return _show(f"moola_mlflow {__version__}")
    if {"-h", "--help"} & set(words[1:]) and words[0] in ENTRY_POINTS:
        return _show(help_text(words[0]))
    try:
        return _run(words, interrupts or Interrupts())
    except Interrupted as e:
        _say(f"interrupted by {e}")
        if is_launched():  # before its run was adopted, which nobody else will mark as killed
            _record(words[0], e)
        return e.exit_code
    except UserError as e:
        if process_rank():  # the first process has the same mistake before it, and is to record it before all are ended
            time.sleep(SPEAK_S)
        _say(str(e))
        return 2
    except TrainingError as e:
        _say(str(e))
        return 1
    except GateError as e:
        _say(str(e))
        return 3
    except ModuleNotFoundError as e:
        _say(f"this Python ({sys.executable}) lacks the package '{e.name}'; {_cure(e.name)}")
        return 1
    except Exception as e:
        # A store that fails in the middle of a run is no bug of ours; its words come from deep inside and suffice.
        if not _is_a_stores(e):
            print(printable(traceback.format_exc()), file=sys.stderr, end="")
        _say(f"{type(e).__name__}: {str(e).strip().splitlines()[0] if str(e).strip() else ''}")
        return 1


def _show(text: str) -> int:
    """Print what was asked for; whoever reads it may have seen enough: ``moola pretrain --help | head``."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter complains as it ends
    return 0


def _say(message: str) -> None:
    print(f"moola: {printable(message)}", file=sys.stderr, flush=True)


def _cure(package: str | None) -> str:
    if package and package.startswith("psycopg"):
        return "a PostgreSQL store needs it: pip install -e '.[postgresql]'"
    return "activate the project's environment (. .venv/bin/activate), make it with 'make setup', or pip install -e ."


def _is_a_stores(error: Exception) -> bool:
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in ("mlflow", "sqlalchemy")


def _run(words: list[str], interrupts: Interrupts) -> int:
    name = words[0]
    if name not in ENTRY_POINTS:
        raise UserError(
            f"unknown command '{name}'{nearest_name(name, ENTRY_POINTS)} Commands: {', '.join(ENTRY_POINTS)}"
        )
    try:
        config, preset, arguments = parse(name, words[1:])
        _check_alone(name)
    except UserError as e:
        _record(name, e)
        raise
    prepare_environment(config.runtime.threads, is_tuned(config.runtime))
    command = importlib.import_module(f"moola_mlflow.cli.commands.{name}")
    command.run(config, preset, interrupts, **arguments)
    return 0


def _check_alone(name: str) -> None:
    """Refuse several processes to a command that does not share its work out among them. Raises: UserError."""
    if name not in SHARED and (count := num_processes()) > 1:
        raise UserError(
            f"'{name}' was started as {count} processes (WORLD_SIZE={count}), and each would do all of it; allowed as "
            f"several: {', '.join(SHARED)}; start moola {name} once, without torchrun"
        )


def _record(stage: str, error: BaseException) -> None:
    """A command that ends before its run begins leaves one that says why, as the launcher's does."""
    if process_rank():  # of several processes the first one tells
        return
    prepare_environment()
    from moola_mlflow.tracking import record_failure  # imported late: mlflow takes seconds

    try:
        record_failure(stage, error)
    except UserError as e:  # the message about the user's key stays the last one
        _say(f"this could not be recorded: {e}")


def parse(name: str, words: Sequence[str]) -> tuple[Config, str, dict[str, str]]:
    """Return the configuration, the preset's name and the command's own arguments.

    Order: preset < dotted key < short parameter; an empty value is unset.

    Raises: UserError naming the key, the value, what is allowed and the nearest valid key.
    """
    entry = ENTRY_POINTS[name]
    if entry.lone and words and not words[0].startswith("--"):
        words = [f"--{entry.lone}", *words]
    given = {key: value for key, value in _pairs(words).items() if value != ""}
    known = {*entry.parameters, *dotted_keys()}
    for key, value in given.items():
        if key not in known:
            raise UserError(
                f"unknown parameter '{key}' (value '{value}'){nearest_name(key, known)} "
                f"Every key of this command: moola {name} --help"
            )
    named = given.get("config") or entry.config
    path = str(shipped(named)) if named else ""
    overrides: dict[str, Any] = {key: value for key, value in given.items() if "." in key}
    overrides |= {SHORT[key]: value for key, value in given.items() if key in SHORT}
    preset = read_preset(path) if path else {}
    arguments = {key: given[key] for key in entry.own if key in given}
    if entry.underlay and path:
        preset = merge_presets(read_preset(shipped(entry.config)), preset)
    if entry.base:
        path = arguments["base"] = str(shipped(given.get("base") or entry.base))
        preset = merge_presets(read_preset(path), preset)
    return resolve(preset, overrides), Path(path).stem if path else "default", arguments


def shipped(preset: str) -> Path:
    """Return a preset in the working folder, or else in the checkout that holds this package."""
    here, there = Path(preset), Path(__file__).resolve().parent.parent.parent / preset
    return there if there.is_file() and not here.is_file() else here


def _pairs(words: Sequence[str]) -> dict[str, str]:
    """Read ``--key value`` and ``--key=value``; the later of two equal keys wins."""
    pairs: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            raise UserError(f"'{word}' is not a parameter; write --key value, for example --epochs 20")
        key, equals, value = word[2:].partition("=")
        if not equals:
            if not rest or (rest[0].startswith("--") and not _is_number(rest[0])):
                raise UserError(f"parameter '--{key}' has no value; write --{key} VALUE")
            value = rest.pop(0)
        pairs[key.replace("-", "_")] = value
    return pairs


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def overview() -> str:
    """Return the map of commands."""
    width = max(map(len, ENTRY_POINTS))
    rows = [f"  {name:<{width}}  {entry.summary}" for name, entry in ENTRY_POINTS.items()]
    return "\n".join(
        ["moola: from one-minute bars to a registered encoder, every number tracked", "", *rows, "",
         "moola NAME --help shows a command's parameters; mlflow run . -e NAME -P key=value does the same.",
         "source <(moola completion) completes commands and keys in bash."]
    )  # fmt: skip


def parameters_of(name: str) -> list[Parameter]:
    """Return a command's short parameters with meaning and default: those that its default presets leave it."""
    entry, fields = ENTRY_POINTS[name], dotted_keys()
    defaults, found = _defaults(entry), []
    for key in entry.parameters:
        if key in SHORT:
            dotted = SHORT[key]
            meaning = entry.meanings.get(key, fields[dotted].description)
            found.append(Parameter(key, dotted, defaults[dotted], " ".join(meaning.split())))
        elif key == "config":
            found.append(Parameter(key, "", entry.config, entry.meanings.get(key, PRESET)))
        else:
            argument = entry.own[key]
            found.append(Parameter(key, "", argument.default or entry.base, argument.meaning, argument.needed))
    return found


def _defaults(entry: EntryPoint) -> dict[str, Any]:
    presets = [read_preset(path) for name in (entry.base, entry.config) if name and (path := shipped(name)).is_file()]
    return resolve(functools.reduce(merge_presets, presets, {}), {}).flat()


def help_text(name: str) -> str:
    """Return a command's usage, examples and parameters, made from the table and from the configuration itself."""
    entry, parameters = ENTRY_POINTS[name], parameters_of(name)
    defaults, lone = _defaults(entry), f" [{entry.lone.upper()}]" if entry.lone else ""
    width = max(len(parameter.name) for parameter in parameters)
    lines = [f"moola {name}: {entry.summary}", "", f"Usage: moola {name}{lone} [--key value ...]"]
    lines += [f"       mlflow run . -e {name} [-P key=value ...]", "", "Examples:"]
    lines += [f"  {example}" for example in entry.examples]
    lines += ["", "Parameters [the key that one is short for; its default]:"]
    for one in parameters:
        short = f"{one.dotted}; " if one.dotted else ""
        default = "needed" if one.needed else _shown(one.default)
        lines.append(f"  --{one.name:<{width}}  {one.meaning} [{short}{default}]")
    lines += ["", KEYS]
    lines += [
        f"  --{key:<28} {' '.join(field.description.split())} ({allowed_values(field)}; {_shown(defaults[key])})"
        for key, field in dotted_keys().items()
    ]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if value in ("", [], {}, ()):
        return "not set"
    return str(value).lower() if isinstance(value, bool) else str(value)
