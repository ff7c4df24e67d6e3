"""Preset files: YAML that maps sections to keys. Some come with the package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from moola_mlflow.core.config.base import read_yaml
from moola_mlflow.core.errors import UserError, nearest_name

MAX_YAML_BYTES = 2**20
PACKAGE = Path(__file__).resolve().parents[2]
CONFIGS = "configs"
"""Folder of the presets in a checkout."""


def shipped_presets() -> dict[str, Path]:
    """Return the files of the presets that come with the package, by name. A wheel holds them, and so does a checkout.

    >>> shipped_presets()["rules"].name
    'rules.yaml'
    """
    inside = PACKAGE / "presets"
    folder = inside if inside.is_dir() else PACKAGE.parent / CONFIGS
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_preset(named: str) -> Path:
    """Return the file of a preset: one in the current folder, or one that comes with the package.

    A preset of the package goes by its name (``rules``) or by its path in a checkout (``configs/rules.yaml``).

    Raises: UserError for a name without a file.
    """
    here = Path(named)
    if here.is_file():
        return here
    shipped, bare = shipped_presets(), here.name == named and not here.suffix
    if bare and named not in shipped:
        raise UserError(
            f"config='{named}' is neither a file nor a preset{nearest_name(named, shipped)} "
            f"Presets: {', '.join(shipped)}; or give the path of a YAML file"
        )
    if bare or named == f"{CONFIGS}/{here.stem}.yaml":
        return shipped.get(here.stem, here)
    return here


def read_preset(path: str | Path) -> dict[str, Any]:
    """Read a preset file into nested sections.

    Raises: UserError for a file that is missing, is not YAML, or does not map sections to keys.
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
    """Return the keys of two presets. A key in both has the value of ``above``."""
    return {name: {**below.get(name, {}), **above.get(name, {})} for name in {**below, **above}}
