"""Turn ``--key value`` words into a command's configuration and its own arguments.

Order of precedence: preset < dotted key < short parameter. An empty value is unset.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from moola_mlflow.cli.entry_points import ALSO_CALLED, ENTRY_POINTS, FLAGS, SHORT, EntryPoint
from moola_mlflow.core import (
    COMMANDS,
    CommandKeys,
    UserError,
    dotted_keys,
    every_key,
    find_preset,
    make_config,
    merge_presets,
    model_name,
    nearest_name,
    project_names,
    read_preset,
    readers_of,
)

SWEEP = "sweep of "
"""Beginning of the names of a sweep's configurations, before the command that its trials run."""


class Parsed(NamedTuple):
    """The configuration and the arguments of a command."""

    config: Any
    """The configuration of the command: its class in ``COMMANDS``."""
    preset: str
    """The preset's name, for the name of the run."""
    arguments: dict[str, str]
    """Arguments of the command that are no keys of the configuration."""


def check_command(name: str) -> None:
    """Refuse an unknown command. Raises: UserError naming the nearest one."""
    if name not in ENTRY_POINTS:
        raise UserError(
            f"unknown command '{name}'{nearest_name(name, ENTRY_POINTS)} Commands: {', '.join(ENTRY_POINTS)}"
        )


def parse(name: str, words: Sequence[str]) -> Parsed:
    """Return the configuration, the preset's name and the command's own arguments.

    Raises: UserError with the key, the value, what is allowed and the nearest valid key.
    """
    entry = ENTRY_POINTS[name]
    if entry.lone and words and not words[0].startswith("--"):
        words = [f"--{entry.lone}", *words]
    return settle(name, _pairs(words))


def settle(name: str, values: Mapping[str, Any]) -> Parsed:
    """Return what a command runs with, from short parameters, dotted keys and its own arguments.

    An empty text and None are unset. Raises: UserError as ``parse`` does.
    """
    entry = ENTRY_POINTS[name]
    given = {ALSO_CALLED.get(key, key): value for key, value in values.items() if value not in ("", None)}
    # Names are checked before any file is read. A sweep's keys depend on its presets, and are checked again below.
    dotted = [key for keys in configurations_of(name) for key in dotted_keys(keys)]
    _check_parameters(name, given, [*entry.parameters, *dotted])
    preset, path = _presets(entry, given)
    overrides: dict[str, Any] = {key: value for key, value in given.items() if "." in key}
    overrides |= {SHORT[key]: value for key, value in given.items() if key in SHORT}
    keys = _configuration(name, preset, overrides)
    flat = {f"{section}.{key}": value for section, one in preset.items() for key, value in one.items()}
    project = str(overrides.get("project.name") or flat.get("project.name") or entry.project)
    overrides = {**project_names(project, dotted_keys(keys), flat), **overrides}
    if project and "project.name" in dotted_keys(keys):
        overrides.setdefault("project.name", project)
    if project and "model" in entry.own:
        given.setdefault("model", model_name(project, "detector"))
    _check_parameters(name, overrides, dotted_keys(keys))
    arguments = {key: given[key] for key in entry.own if key in given}
    if entry.base:
        arguments["base"] = path
    return Parsed(make_config(keys, preset, overrides), Path(path).stem if path else "default", arguments)


def configurations_of(name: str) -> list[type[CommandKeys]]:
    """Return the configurations of a command. ``sweep`` has one for each command that its trials may run."""
    return [keys for command, keys in COMMANDS.items() if command == name or command.startswith(f"{name} of ")]


def _check_parameters(name: str, given: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse a parameter that the command does not read. Raises: UserError naming the commands that do."""
    for key, value in given.items():
        if key in known:
            continue
        hint = f"{nearest_name(key, known)} Every key of this command: moola {name} --help"
        if readers := _readers(name, key):
            raise UserError(f"{name} does not read {key}={value}, a key of {readers}{hint}")
        raise UserError(f"unknown parameter '{key}' (value '{value}'){hint}")


def _readers(name: str, key: str) -> str:
    """Return the commands that read a key or short parameter, in words; empty if there are none."""
    short = [command for command, entry in ENTRY_POINTS.items() if key in entry.parameters]
    found = short or (readers_of(key) if key in every_key() else [])
    if name == "sweep" and (trials := [command for command in found if command.startswith(SWEEP)]):
        found = [f"a {command} (sweep.stage={command.removeprefix(SWEEP)})" for command in trials]
    names = list(dict.fromkeys("sweep" if command.startswith(SWEEP) else command for command in found))
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _presets(entry: EntryPoint, given: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the keys of a command's presets, merged, and the file that the run is named after."""
    named = str(given.get("config") or entry.config)
    path = str(find_preset(named)) if named else ""
    preset = read_preset(path) if path else {}
    if entry.underlay and path:
        preset = merge_presets(read_preset(find_preset(entry.config)), preset)
    if entry.base:
        path = str(find_preset(given.get("base") or entry.base))
        preset = merge_presets(read_preset(path), preset)
    return preset, path


def _configuration(name: str, preset: Mapping[str, Mapping[str, Any]], overrides: Mapping[str, Any]) -> Any:
    """Return the class of a command's configuration. For a sweep, ``sweep.stage`` decides it."""
    if name in COMMANDS:
        return COMMANDS[name]
    stage = overrides.get("sweep.stage") or preset.get("sweep", {}).get("stage")
    return COMMANDS.get(f"{SWEEP}{stage}", configurations_of(name)[0])  # refuses an unknown stage by its name


def _pairs(words: Sequence[str]) -> dict[str, str]:
    """Read ``--key value`` and ``--key=value``. If a key is given twice, the later value wins."""
    pairs: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            raise UserError(f"'{word}' is not a parameter; write --key value, for example --epochs 20")
        key, equals, value = word[2:].partition("=")
        if not equals:
            if rest and (not rest[0].startswith("--") or _is_number(rest[0])):
                value = rest.pop(0)
            elif key.replace("-", "_") in FLAGS:
                value = "true"
            else:
                raise UserError(f"parameter '--{key}' has no value; write --{key} VALUE")
        pairs[key.replace("-", "_")] = value
    return pairs


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
