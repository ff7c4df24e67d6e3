"""From a preset file and what the user gave to a configuration, and the words where that fails.

Order of precedence: preset file < dotted key < short parameter. Extra keys are refused with the nearest valid one.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError

from moola_mlflow.core.config.base import Section, read_yaml
from moola_mlflow.core.config.commands import Config
from moola_mlflow.core.errors import UserError, nearest_name

MAX_YAML_BYTES = 2**20


def dotted_keys() -> dict[str, Any]:
    """Return every dotted key with its pydantic field, in the order of the tree."""
    return {
        f"{section}.{name}": field
        for section, top in Config.model_fields.items()
        for name, field in typing.cast(type[Section], top.annotation).model_fields.items()
    }


def read_preset(path: str | Path) -> dict[str, Any]:
    """Read a preset file into nested sections.

    Raises: UserError where the file is absent, is not YAML, or is not a mapping of sections.
    """
    path = Path(path)
    try:
        return _parsed(path)
    except (OSError, RecursionError) as e:  # no permission, a name too long, a thousand brackets
        raise UserError(f"config: '{str(path)[:200]}' cannot be read: {e}; correct the path or the file") from None


def _parsed(path: Path) -> dict[str, Any]:
    if not path.is_file():
        there = sorted(str(p) for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise UserError(
            f"config: no file '{path}'{nearest_name(str(path), there)}"
            + (f" There are: {', '.join(there)}" if there else "")
        )
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise ValueError(f"{path.stat().st_size:,} bytes; a preset has at most {MAX_YAML_BYTES:,}")
        tree = read_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as e:  # ValueError: no UTF-8, or a date that does not exist
        first = str(e).replace("\n", " ")
        raise UserError(
            f"config: '{path}' is not YAML ({first}); expected sections such as 'trainer:' with keys below"
        ) from e
    if tree is None:
        return {}
    wrong = (
        [str(name) for name, keys in tree.items() if not isinstance(keys, dict | None)]
        if isinstance(tree, dict)
        else []
    )
    if wrong or not isinstance(tree, dict):
        held = f"section '{wrong[0]}' holds none" if wrong else f"it holds a {type(tree).__name__}"
        raise UserError(f"config: '{path}' must map sections to keys, for example 'trainer: {{epochs: 20}}'; {held}")
    return {name: keys or {} for name, keys in tree.items()}


def merge_presets(below: Mapping[str, Mapping[str, Any]], above: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the keys of two presets; where both have one, that of the second."""
    return {name: {**below.get(name, {}), **above.get(name, {})} for name in {**below, **above}}


def resolve(preset: Mapping[str, Mapping[str, Any]], overrides: Mapping[str, Any]) -> Config:
    """Lay dotted overrides over a preset and validate the whole tree.

    An override of ``None`` or ``""`` is unset; the text ``none`` sets an optional key to null.

    Raises: UserError naming the key, the value, what is allowed and the nearest valid key.
    """
    valid = dotted_keys()
    flat = {f"{section}.{key}": value for section, keys in preset.items() for key, value in keys.items()}
    if overrides.get("objective.mask_strategy"):
        flat.pop("objective.mask_ratio", None)  # the preset's ratio belongs to the preset's strategy
    flat.update({key: value for key, value in overrides.items() if value not in (None, "")})
    tree: dict[str, dict[str, Any]] = {}
    for key, value in flat.items():
        if key not in valid:
            raise UserError(
                f"unknown key {_shown(key)} (value {_shown(value)}){nearest_name(key[:200], valid)} "
                "Every key: moola pretrain --help"
            )
        section, name = key.split(".")
        optional = type(None) in typing.get_args(valid[key].annotation)
        tree.setdefault(section, {})[name] = None if optional and value in ("none", "null") else value
    try:
        return Config.model_validate(tree)
    except ValidationError as e:
        raise UserError("\n".join(_explain(error, valid) for error in e.errors())) from None


def _explain(error: Any, valid: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in error["loc"][:2])
    if not key:  # a rule over the whole tree names its keys itself
        return str(error["msg"]).removeprefix("Value error, ")
    if key not in valid:  # a rule over a whole section
        return f"{key}: {error['msg'].removeprefix('Value error, ')}"
    field = valid[key]
    if len(error["loc"]) > 2:  # inside a mapping or a list: what was expected there is in pydantic's words
        inner = ".".join(str(part) for part in error["loc"][2:])
        return f"{key}, {inner}: {error['msg'].removeprefix('Value error, ')} (given {_shown(error['input'])})"
    text = f"{key}={_shown(error['input'])}: {error['msg']}; allowed: {allowed_values(field)}"
    return f"{text}. {field.description}"


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
