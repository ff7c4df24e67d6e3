"""The base class of every section and every command's configuration, and YAML that is safe to read."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

MAX_YAML_NODES = 20_000
"""Values that a preset may hold once its references are followed: nested references can grow without limit."""
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


def read_yaml(text: str) -> Any:
    """Read YAML that builds no objects of other types and whose references stay within ``MAX_YAML_NODES``.

    Raises: yaml.YAMLError, ValueError or RecursionError for text that is not YAML, or that grows too large.
    """
    tree = yaml.safe_load(text)
    waiting, seen = [tree], 0
    while waiting:
        value = waiting.pop()
        seen += 1
        if seen + len(waiting) > MAX_YAML_NODES:
            raise ValueError(f"it holds more than {MAX_YAML_NODES:,} values once its references are followed")
        if isinstance(value, int) and abs(value) >= 10**MAX_DIGITS:
            raise ValueError(f"a whole number of more than {MAX_DIGITS} digits")
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
