"""Make a command's configuration from a preset and the user's overrides, or explain what is wrong with them.

Order of precedence: preset < dotted key < short parameter.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from moola_mlflow.core.config.base import CommandKeys, Section
from moola_mlflow.core.config.commands import COMMANDS
from moola_mlflow.core.errors import UserError, nearest_name

Keys = TypeVar("Keys", bound=CommandKeys)


def sections_of(keys: type[CommandKeys]) -> dict[str, type[Section]]:
    """Return the class of every section of a command's configuration."""
    return {name: typing.cast(type[Section], field.annotation) for name, field in keys.model_fields.items()}


def dotted_keys(keys: type[CommandKeys]) -> dict[str, Any]:
    """Return every dotted key of a command's configuration with its pydantic field, section by section."""
    return {
        f"{section}.{name}": field
        for section, one in sections_of(keys).items()
        for name, field in one.model_fields.items()
    }


def every_key() -> dict[str, Any]:
    """Return the dotted keys of all commands, each with its pydantic field."""
    return {key: field for keys in COMMANDS.values() for key, field in dotted_keys(keys).items()}


def readers_of(key: str) -> list[str]:
    """Return the names in ``COMMANDS`` whose configuration holds a key."""
    return [command for command, keys in COMMANDS.items() if key in dotted_keys(keys)]


def make_config(keys: type[Keys], preset: Mapping[str, Mapping[str, Any]], overrides: Mapping[str, Any]) -> Keys:
    """Return the configuration of a command: a preset, and dotted overrides over it.

    A preset may hold keys of other commands, which are ignored; overrides may not. An override of ``None`` or ``""``
    is unset; the text ``none`` sets an optional key to null.

    Raises: UserError with the key, the value, what is allowed and the nearest valid key.
    """
    valid, everywhere = dotted_keys(keys), every_key()
    flat = {f"{section}.{key}": value for section, given in preset.items() for key, value in given.items()}
    check_known(flat, everywhere)
    given = {key: value for key, value in overrides.items() if value not in (None, "")}
    check_known(given, valid)
    if given.get("objective.mask_strategy"):
        flat.pop("objective.mask_ratio", None)  # the preset's ratio belongs to the preset's strategy
    tree: dict[str, dict[str, Any]] = {}
    for key, value in {**flat, **given}.items():
        if key not in valid:
            continue
        section, name = key.split(".")
        optional = type(None) in typing.get_args(valid[key].annotation)
        tree.setdefault(section, {})[name] = None if optional and value in ("none", "null") else value
    try:
        return keys.model_validate(tree)
    except ValidationError as e:
        raise UserError("\n".join(_explain(error, valid) for error in e.errors())) from None


def check_known(given: Mapping[str, Any], valid: Iterable[str]) -> None:
    """Refuse a key that is not valid. Raises: UserError with the nearest one."""
    for key, value in given.items():
        if key not in valid:
            raise UserError(
                f"unknown key {_shown(key)} (value {_shown(value)}){nearest_name(key[:200], valid)} "
                "moola NAME --help lists the keys of a command"
            )


def _explain(error: Any, valid: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in error["loc"][:2])
    if not key:  # a rule over the whole tree names its keys itself
        return str(error["msg"]).removeprefix("Value error, ")
    if key not in valid:  # a rule over a whole section
        return f"{key}: {error['msg'].removeprefix('Value error, ')}"
    field = valid[key]
    if len(error["loc"]) > 2:  # inside a mapping or a list: pydantic's message says what is expected
        inner = ".".join(str(part) for part in error["loc"][2:])
        return f"{key}, {inner}: {error['msg'].removeprefix('Value error, ')} (given {_shown(error['input'])})"
    text = f"{key}={_shown(error['input'])}: {error['msg']}; allowed: {allowed_values(field)}"
    return f"{text}. {' '.join((field.description or '').split())}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def allowed_values(field: Any) -> str:
    """Return a short text of a field's type and range, for messages and help."""
    annotation = field.annotation
    if typing.get_origin(annotation) is Literal:
        return " | ".join(map(str, typing.get_args(annotation)))
    if isinstance(annotation, types.UnionType):
        names = ["none" if t is type(None) else t.__name__ for t in typing.get_args(annotation)]
    else:
        names = [annotation.__name__]
    pattern = next((m.pattern for m in field.metadata if getattr(m, "pattern", None)), None)
    if pattern:
        return f"text that matches {pattern}"
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    bounds = [f"{s} {getattr(m, k)}" for m in field.metadata for k, s in signs.items() if hasattr(m, k)]
    return " ".join([" or ".join(names), *bounds])
