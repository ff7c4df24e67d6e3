"""Writes docs/reference/commands.md from what the program itself reads: entry points, configuration, presets.

python tools/reference.py
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from moola_mlflow.cli import help, main
from moola_mlflow.cli.entry_points import ENTRY_POINTS, SHORT
from moola_mlflow.core import (
    COMMANDS,
    Section,
    allowed_values,
    every_key,
    make_config,
    read_preset,
    readers_of,
    sections_of,
)

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference" / "commands.md"
HEAD = """\
# Reference: every command, every key, every preset

Made by `python tools/reference.py` from the program itself; a test fails where the two differ. `moola NAME --help`
prints the same.

`mlflow run . -e NAME -P key=value` and `moola NAME --key value` do the same, which a test tries for every command of
the table. Only `moola` has `rules` and `presets`.

Every dotted key of the tables below is a parameter of the commands that read it; any other command refuses it. Order:
preset < dotted key < short parameter; an empty value is unset; `none` empties a key that may be empty."""
KEYS = """\
## Keys

Defaults without a preset; [presets](#presets) set others. In brackets: the short parameter. A preset may hold keys of
several commands: each command takes those that it reads. `sweep` reads the keys of the command that its trials run."""
LAUNCHER = """\
They hold for `moola`. Under the launcher every failure is 1, because `mlflow run` hides the program's own code; the
run's status and note carry the reason."""


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a Markdown table of cells that are Markdown already."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def text(words: str) -> str:
    """Return a docstring as it may stand in a cell: its backticks are Markdown, its bars and angles are not."""
    return " ".join(words.split()).replace("|", "\\|").replace("<", "&lt;")


def code(value: Any) -> str:
    """Return a value as code in a cell; nothing for an empty one."""
    if value in (None, "", [], {}, ()) and value is not False:
        return ""
    return f"`{_flow(value)}`".replace("|", "\\|")


def _flow(value: Any) -> str:
    if not isinstance(value, dict | list):
        return str(value).lower() if isinstance(value, bool) else str(value)
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6).strip()


def entry_points() -> Iterator[str]:
    """Yield the table of commands, then each command with its parameters and examples."""
    rows = []
    for name, entry in ENTRY_POINTS.items():
        given = (
            f"`{one.name}`" + (f" ({told})" if (told := _default(one)) else "") for one in help.parameters_of(name)
        )
        rows.append((f"[{name}](#{name})", text(entry.summary), ", ".join(given)))
    yield "## Entry points\n\n" + table(("command", "what it does", "parameters (defaults)"), rows)
    for name, entry in ENTRY_POINTS.items():
        parameters = table(
            ("parameter", "short for", "default", "meaning"),
            ((f"`{one.name}`", code(one.dotted), _default(one), text(one.meaning)) for one in help.parameters_of(name)),
        )
        examples = "\n".join(f"    {line}" for line in entry.examples)
        yield f"### {name}\n\n{text(entry.summary)[0].upper()}{text(entry.summary)[1:]}.\n\n{parameters}\n\n{examples}"


def _default(parameter: help.Parameter) -> str:
    return "needed" if parameter.needed else code(parameter.default)


def keys() -> Iterator[str]:
    """Yield a table for each section of the configuration."""
    short, fields, defaults = {dotted: key for key, dotted in SHORT.items()}, every_key(), default_values()
    yield KEYS
    for section, title in sections().items():
        rows = []
        for key in (key for key in defaults if key.split(".")[0] == section):
            shown = f"`{key}`" + (f" (`{short[key]}`)" if key in short else "")
            readers = dict.fromkeys("sweep" if " of " in reader else reader for reader in readers_of(key))
            allowed, meaning = _range(allowed_values(fields[key])), text(fields[key].description or "")
            rows.append((shown, allowed, code(defaults[key]), ", ".join(readers), meaning))
        heads = ("key", "type and range", "default", "read by", "meaning")
        yield f"### Section {section}\n\n{title}.\n\n" + table(heads, rows)


def _range(allowed: str) -> str:
    """Return what a key takes as it may stand in a cell; a pattern is code, for its brackets would be a link."""
    words, matches, pattern = allowed.partition("matches ")
    return f"{words}{matches}{code(pattern)}" if matches else text(allowed)


CONFIGURATIONS = [COMMANDS["pretrain"], COMMANDS["finetune"], *COMMANDS.values()]
"""The configuration of every command, those with most sections first: their order is the page's."""


def sections() -> dict[str, str]:
    """Return every section and its title, in the words of the command that reads most of it."""
    found: dict[str, type[Section]] = {}
    for name, one in ((name, one) for keys in CONFIGURATIONS for name, one in sections_of(keys).items()):
        if name not in found or len(one.model_fields) > len(found[name].model_fields):
            found[name] = one
    return {name: help.title_of(one) for name, one in found.items()}


def default_values() -> dict[str, Any]:
    """Return the value of every key without a preset."""
    return {key: value for keys in reversed(CONFIGURATIONS) for key, value in keys().flat().items()}


def presets() -> str:
    """Return the table of presets: what each is for, and the keys it sets to other values than their defaults."""
    rows, defaults = [], default_values()
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        comment = " ".join(line[1:].strip() for line in itertools.takewhile(lambda line: line[:1] == "#", lines))
        preset = read_preset(path)
        given = {key: value for one in COMMANDS.values() for key, value in make_config(one, preset, {}).flat().items()}
        named = [(f"{section}.{key}", value) for section, keys in preset.items() for key, value in keys.items()]
        changed = ", ".join(f"`{key}={_flow(value)}`" for key, value in named if given[key] != defaults[key])
        rows.append((f"[{path.name}](../../configs/{path.name})", text(comment), changed.replace("|", "\\|")))
    return "## Presets\n\n" + table(("preset", "what it is for", "keys that differ from their defaults"), rows)


def exit_codes() -> str:
    """Return the exit codes, as the command line's own documentation has them."""
    line = (main.__doc__ or "").split("\n\n")[1].strip().rstrip(".")
    rows: list[tuple[str, ...]] = []
    for part in line.split("; "):
        numbers, words = re.findall(r"\d+", part), re.sub(r"[\d ]+(and [\d ]+)?", "", part, count=1)
        rows += zip(numbers, words.split(" and ") if len(numbers) > 1 else [words], strict=True)
    return "## Exit codes\n\n" + table(("code", "meaning"), rows) + f"\n\n{LAUNCHER}"


def page() -> str:
    """Return the whole page."""
    return "\n\n".join([HEAD, *entry_points(), *keys(), presets(), exit_codes()]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
