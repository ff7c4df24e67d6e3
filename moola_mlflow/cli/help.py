"""``moola --help`` and ``moola NAME --help``, made from the table of commands and from the configuration."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from moola_mlflow.cli.entry_points import ENTRY_POINTS, PRESET, SHORT, EntryPoint
from moola_mlflow.cli.parser import find_preset
from moola_mlflow.core import allowed_values, every_key, merge_presets, read_preset, resolve

KEYS = """\
Keys of the configuration, the same for every command (type and range; default).
One that this command does not read changes nothing, or is refused:"""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a command as help and reference show it."""

    name: str
    dotted: str
    """The key that it is short for, if any."""
    default: Any
    meaning: str
    needed: bool = False


def overview() -> str:
    """Return the list of commands, one line each."""
    width = max(map(len, ENTRY_POINTS))
    rows = [f"  {name:<{width}}  {entry.summary}" for name, entry in ENTRY_POINTS.items()]
    return "\n".join(
        ["moola: from one-minute bars to a registered encoder, every number tracked", "", *rows, "",
         "moola NAME --help shows a command's parameters; mlflow run . -e NAME -P key=value does the same.",
         "source <(moola completion) completes commands and keys in bash."]
    )  # fmt: skip


def parameters_of(name: str) -> list[Parameter]:
    """Return a command's short parameters, each with its meaning and the default that the command's presets set."""
    entry, fields = ENTRY_POINTS[name], every_key()
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
    paths = [find_preset(name) for name in (entry.base, entry.config) if name]
    presets = [read_preset(path) for path in paths if path.is_file()]
    return resolve(functools.reduce(merge_presets, presets, {}), {}).flat()


def help_text(name: str) -> str:
    """Return a command's usage, examples and parameters."""
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
        for key, field in every_key().items()
    ]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if value in ("", [], {}, ()):
        return "not set"
    return str(value).lower() if isinstance(value, bool) else str(value)
