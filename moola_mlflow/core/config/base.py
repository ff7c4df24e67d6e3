"""The base class of every section and every command's configuration, and YAML that is safe to read."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

MAX_YAML_NODES = 20_000
"""Values that a preset may hold once its references are followed: nested references can grow without limit."""
MAX_DEPTH = 40
"""Sections, lists and mappings of a preset inside each other."""
MAX_DIGITS = 300
"""Python refuses to print integers of more than some thousand digits, even in an error message."""


def current_name(text: str) -> str:
    """Return today's name of an objective or of a head's inputs. Up to version 0.1 `price_path` was `path`.

    >>> current_name("price_path+0.5*masked")
    'price_path+0.5*masked'
    """
    return re.sub(r"\bpath\b", "price_path", text)


class Section(BaseModel):
    """A group of keys. Docstrings below the fields are the help texts of ``moola NAME --help``."""

    # Validators are built at the first use: building all of them would add 0.1 s to every --help.
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        validate_default=True,
        defer_build=True,
    )


class CommandKeys(Section):
    """The sections that one command reads."""

    model_config = ConfigDict(use_attribute_docstrings=False)  # there are none: looking for them takes 5 ms a class

    def flat(self) -> dict[str, Any]:
        """Return every value under its dotted name, section by section."""
        return {f"{s}.{k}": v for s, section in self.model_dump(mode="json").items() for k, v in section.items()}

    def logged(self) -> dict[str, Any]:
        """Return the values that a run logs as parameters: those that can have an effect."""
        return self.flat()

    def given(self) -> dict[str, Any]:
        """Return the keys that a preset or the command line has set to another value than the default."""
        default = type(self)().flat()
        named = {f"{name}.{key}" for name in type(self).model_fields for key in getattr(self, name).model_fields_set}
        return {key: value for key, value in self.flat().items() if key in named and value != default[key]}

    def to_yaml(self) -> str:
        """Return every key as YAML that can be read back as a preset."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def sha256(self) -> str:
        """Return the SHA-256 of every key and its value."""
        return hashlib.sha256(self.to_yaml().encode()).hexdigest()


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads plain YAML: no merge keys, no numbers to the base of 60, no numbers of hundreds of digits."""


def _number(loader: Any, node: yaml.ScalarNode) -> Any:
    """Return a number. YAML 1.1 reads 12:30 as 750; here it stays text, which a key that wants a number refuses."""
    if ":" in node.value:
        return node.value
    if len(node.value) > MAX_DIGITS:
        raise ValueError(f"a number of more than {MAX_DIGITS} digits")
    if node.tag == INTEGER:
        return yaml.SafeLoader.construct_yaml_int(loader, node)
    return yaml.SafeLoader.construct_yaml_float(loader, node)


INTEGER, FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
for _tag in (INTEGER, FLOAT):
    _Loader.add_constructor(_tag, _number)


def _check_events(text: str) -> None:
    """Refuse text that is too deep or too large, before any of it is built. Raises: yaml.YAMLError, ValueError."""
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=_Loader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
        if number > 2 * MAX_YAML_NODES:
            raise ValueError(f"it holds more than {MAX_YAML_NODES:,} values")
        if isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]:
            raise ValueError("it holds a merge key (<<), which is not read; write the keys out")


def read_yaml(text: str) -> Any:
    """Read YAML that builds no objects of other types and whose references stay within ``MAX_YAML_NODES``.

    Raises: yaml.YAMLError, ValueError or RecursionError for text that is not YAML, or that grows too large.
    """
    _check_events(text)
    tree = yaml.load(text, Loader=_Loader)  # noqa: S506
    waiting, seen = [tree], 0
    while waiting:
        value = waiting.pop()
        seen += 1
        if seen + len(waiting) > MAX_YAML_NODES:
            raise ValueError(f"it holds more than {MAX_YAML_NODES:,} values once its references are followed")
        if isinstance(value, dict | list | set | tuple):
            waiting += [*value, *value.values()] if isinstance(value, dict) else value
    return tree


def from_text(value: Any, example: str) -> Any:
    """Parse a value from the command line as YAML; return a value from a preset unchanged.

    Raises: ValueError that shows the example.
    """
    if not isinstance(value, str):
        return value
    try:
        return read_yaml(value)
    except (yaml.YAMLError, ValueError, RecursionError) as e:
        raise ValueError(f"write YAML such as {example}") from e
