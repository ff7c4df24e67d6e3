"""Find the files of a registry's folder: a new file is a new row of the registry."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from typing import Any


def find_plugins(package: str, path: Iterable[str], attribute: str) -> dict[str, Any]:
    """Return an attribute of each module of a package that has it, by the module's name, in alphabetical order."""
    modules = {row.name: importlib.import_module(f"{package}.{row.name}") for row in pkgutil.iter_modules(path)}
    return {name: getattr(module, attribute) for name, module in modules.items() if hasattr(module, attribute)}
