"""From ``--key value`` words to a command's configuration and its own arguments.

Order of precedence: preset < dotted key < short parameter. An empty value is unset.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from moola_mlflow.cli.entry_points import ENTRY_POINTS, SHORT
from moola_mlflow.core import Config, UserError, every_key, merge_presets, nearest_name, read_preset, resolve


class Parsed(NamedTuple):
    """What a command is run with."""

    config: Config
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

    Raises: UserError naming the key, the value, what is allowed and the nearest valid key.
    """
    entry = ENTRY_POINTS[name]
    if entry.lone and words and not words[0].startswith("--"):
        words = [f"--{entry.lone}", *words]
    given = {key: value for key, value in _pairs(words).items() if value != ""}
    known = {*entry.parameters, *every_key()}
    for key, value in given.items():
        if key not in known:
            raise UserError(
                f"unknown parameter '{key}' (value '{value}'){nearest_name(key, known)} "
                f"Every key of this command: moola {name} --help"
            )
    named = given.get("config") or entry.config
    path = str(find_preset(named)) if named else ""
    overrides: dict[str, Any] = {key: value for key, value in given.items() if "." in key}
    overrides |= {SHORT[key]: value for key, value in given.items() if key in SHORT}
    preset = read_preset(path) if path else {}
    arguments = {key: given[key] for key in entry.own if key in given}
    if entry.underlay and path:
        preset = merge_presets(read_preset(find_preset(entry.config)), preset)
    if entry.base:
        path = arguments["base"] = str(find_preset(given.get("base") or entry.base))
        preset = merge_presets(read_preset(path), preset)
    return Parsed(resolve(preset, overrides), Path(path).stem if path else "default", arguments)


def find_preset(preset: str) -> Path:
    """Return a preset's file in the current folder or, if there is none, in the checkout that holds this package."""
    here, shipped = Path(preset), Path(__file__).resolve().parents[2] / preset
    return shipped if shipped.is_file() and not here.is_file() else here


def _pairs(words: Sequence[str]) -> dict[str, str]:
    """Read ``--key value`` and ``--key=value``; of a key given twice the later value wins."""
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
