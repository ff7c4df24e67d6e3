"""The shape of the package: one name for one class, short argument lists and files, faces that say what they export."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections import defaultdict
from pathlib import Path
from types import ModuleType

import pytest
from paths import ROOT

PACKAGE = ROOT / "moola_mlflow"
FILES = sorted(PACKAGE.rglob("*.py"))
FACES = [path for path in FILES if path.name == "__init__.py"]
LAZY = [path for path in FACES if "lazy_face(" in path.read_text(encoding="utf-8")]
MAX_PARAMETERS = 8
MAX_LINES, MAX_COMMAND_LINES = 400, 150


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def module_of(path: Path) -> ModuleType:
    return importlib.import_module(".".join(path.parent.relative_to(ROOT).parts))


def num_parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Parameters that a caller fills in: neither ``self`` nor ``cls``."""
    arguments = function.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    names += [a.arg for a in (arguments.vararg, arguments.kwarg) if a is not None]
    return sum(name not in ("self", "cls") for name in names)


def test_no_two_public_classes_share_a_name() -> None:
    homes = defaultdict(list)
    for path in FILES:
        for node in parse(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(name_of(path))
    assert len(homes) > 50
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


def test_no_function_has_more_than_eight_parameters() -> None:
    found = {
        f"{name_of(path)}:{node.name}"
        for path in FILES
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and num_parameters(node) > MAX_PARAMETERS
    }
    assert found == set()


def test_no_file_is_longer_than_a_reader_holds() -> None:
    found = {
        name_of(path)
        for path in FILES
        if len(path.read_text(encoding="utf-8").splitlines())
        > (MAX_COMMAND_LINES if path.parent.name == "commands" else MAX_LINES)
    }
    assert found == set()


@pytest.mark.parametrize("face", FACES, ids=name_of)
def test_every_name_that_a_face_exports_is_there(face: Path) -> None:
    module = module_of(face)
    missing = [name for name in getattr(module, "__all__", []) if not hasattr(module, name)]
    assert missing == []


@pytest.mark.parametrize("face", FACES, ids=name_of)
def test_a_name_that_a_face_exports_means_one_thing(face: Path) -> None:
    """Importing a submodule sets its name on the package: an export of that name would then change its meaning."""
    module = module_of(face)
    submodules = {info.name for info in pkgutil.iter_modules([str(face.parent)])}
    shadowed = [
        name
        for name in getattr(module, "__all__", [])
        if name in submodules and getattr(module, name) is not importlib.import_module(f"{module.__name__}.{name}")
    ]
    assert shadowed == []


@pytest.mark.parametrize("face", LAZY, ids=name_of)
def test_a_lazy_face_shows_type_checkers_what_it_loads(face: Path) -> None:
    """Type checkers read the imports under TYPE_CHECKING, Python the dictionary: both name the same homes."""
    tree, package = parse(face), module_of(face).__name__
    checked = {
        (node.module, alias.name)
        for block in tree.body
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    (call,) = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "lazy_face"
    ]
    homes = ast.literal_eval(call.args[1])
    loaded = {(f"{package}.{module}", name) for module, names in homes.items() for name in names}
    assert checked == loaded
    assert len(loaded) == sum(len(names) for names in homes.values())
