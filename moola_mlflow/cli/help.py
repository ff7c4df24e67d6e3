"""``moola --help`` and ``moola NAME --help``, made from the table of commands and from the configuration."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from moola_mlflow.cli.entry_points import ENTRY_POINTS, PRESET, SHORT
from moola_mlflow.cli.parser import configurations_of
from moola_mlflow.core import (
    Section,
    allowed_values,
    every_key,
    find_preset,
    make_config,
    merge_presets,
    read_preset,
    sections_of,
)


@dataclass(frozen=True)
class Parameter:
    """A parameter of a command as help and reference show it."""

    name: str
    dotted: str
    """The key that it is short for, if any."""
    default: Any
    meaning: str
    needed: bool = False


def parameters_of(name: str) -> list[Parameter]:
    """Return a command's short parameters, each with its meaning and the default that the command's presets set."""
    entry, fields = ENTRY_POINTS[name], every_key()
    defaults, found = default_values(name), []
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


def default_values(name: str) -> dict[str, Any]:
    """Return every key that a command reads with the value that its default presets leave it."""
    entry = ENTRY_POINTS[name]
    paths = [find_preset(preset) for preset in (entry.base, entry.config) if preset]
    presets = [read_preset(path) for path in paths if path.is_file()]
    preset: dict[str, Any] = functools.reduce(merge_presets, presets, {})
    # The default presets of a sweep are those of its first configuration, whose values win.
    found = [make_config(keys, preset, {}).flat() for keys in reversed(configurations_of(name))]
    return {key: value for flat in found for key, value in flat.items()}


def listed_sections(name: str) -> dict[str, type[Section]]:
    """Return the sections whose keys a command's help lists; of a sweep only its own."""
    entry = ENTRY_POINTS[name]
    found = {section: one for keys in configurations_of(name) for section, one in sections_of(keys).items()}
    return {section: found[section] for section in entry.own_sections or found}


def help_text(name: str) -> str:
    """Return a command's usage, examples and parameters: the short ones first, then other keys by section."""
    entry = ENTRY_POINTS[name]
    lone = f" [{entry.lone.upper()}]" if entry.lone else ""
    lines = [f"moola {name}: {entry.summary}", "", f"Usage: moola {name}{lone} [--key value ...]"]
    if entry.launched:
        lines.append(f"       mlflow run . -e {name} [-P key=value ...]")
    lines += ["", "Examples:", *(f"  {example}" for example in entry.examples)]
    lines += [*_parameter_lines(name), *_section_lines(name)]
    return "\n".join([*lines, entry.trials] if entry.trials else lines)


def _parameter_lines(name: str) -> Iterator[str]:
    parameters = parameters_of(name)
    width = max(len(parameter.name) for parameter in parameters)
    yield "\nParameters [the key that one is short for; its default]:"
    for parameter in parameters:
        short = f"{parameter.dotted}; " if parameter.dotted else ""
        default = "needed" if parameter.needed else _shown(parameter.default)
        yield f"  --{parameter.name:<{width}}  {parameter.meaning} [{short}{default}]"


def _section_lines(name: str) -> Iterator[str]:
    """Yield the keys that no short parameter stands for, section by section."""
    short = {SHORT[key] for key in ENTRY_POINTS[name].parameters if key in SHORT}
    sections = listed_sections(name)
    keys = {section: [key for key in _dotted(section, one) if key not in short] for section, one in sections.items()}
    width, defaults = max((len(key) for found in keys.values() for key in found), default=0), default_values(name)
    if width:
        yield "\nOther keys, by section (type and range; default):"
    for section, one in sections.items():
        if keys[section]:
            yield f"\n{section}: {title_of(one)}"
        for key in keys[section]:
            field = one.model_fields[key.partition(".")[2]]
            meaning = " ".join((field.description or "").split())
            yield f"  --{key:<{width}}  {meaning} ({allowed_values(field)}; {_shown(defaults[key])})"


def _dotted(section: str, one: type[Section]) -> list[str]:
    return [f"{section}.{name}" for name in one.model_fields]


def title_of(section: type[Section]) -> str:
    """Return what a section is about: the first line of its docstring."""
    return (section.__doc__ or "").split("\n")[0].rstrip(".")


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if value in ("", [], {}, ()):
        return "not set"
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_shown(one)}" for key, one in value.items() if one not in (None, False, {}))
    return str(value).lower() if isinstance(value, bool) else str(value)
