"""What every section of the configuration is made of, and YAML that is safe to read."""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

MAX_YAML_NODES = 20_000
"""Values that a preset may unfold to: a reference to a reference to a reference is a bomb."""
MAX_DIGITS = 300
"""Python does not print whole numbers of more than some thousand digits, not even in a message."""


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False, validate_default=True
    )


def read_yaml(text: str) -> Any:
    """Read YAML without building objects of other types, or references that unfold to more than a preset holds.

    Raises: yaml.YAMLError, ValueError or RecursionError where it is none, or unfolds to too much.
    """
    tree = yaml.safe_load(text)
    waiting, seen = [tree], 0
    while waiting:
        value = waiting.pop()
        seen += 1
        if seen + len(waiting) > MAX_YAML_NODES:
            raise ValueError(f"it unfolds to more than {MAX_YAML_NODES:,} values")
        if isinstance(value, int) and abs(value) >= 10**MAX_DIGITS:
            raise ValueError(f"a whole number of more than {MAX_DIGITS} digits")
        if isinstance(value, dict | list | set | tuple):
            waiting += [*value, *value.values()] if isinstance(value, dict) else value
    return tree


def from_text(value: Any, example: str) -> Any:
    """Return what a value from the command line says as YAML; of a preset, the value itself.

    Raises: ValueError that shows the example.
    """
    if not isinstance(value, str):
        return value
    try:
        return read_yaml(value)
    except (yaml.YAMLError, ValueError, RecursionError) as e:
        raise ValueError(f"write YAML such as {example}") from e
