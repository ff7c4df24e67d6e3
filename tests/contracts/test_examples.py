"""What the package exports explains itself: numpydoc sections that fit the signature, and examples that run."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from paths import ROOT
from pydantic import BaseModel

import moola_mlflow

FACE: dict[str, Any] = {
    name: value for name in moola_mlflow.__all__ if not isinstance(value := getattr(moola_mlflow, name), ModuleType)
}
CLASSES = [name for name, value in FACE.items() if inspect.isclass(value)]
FUNCTIONS = [name for name in FACE if name not in CLASSES]
WITH_EXAMPLES = sorted(
    path for path in (ROOT / "moola_mlflow").rglob("*.py") if ">>> " in path.read_text(encoding="utf-8")
)
NEEDS_A_MODEL = {"load_detector", "load_encoder"}
"""Their example of a success is skipped: it loads a model that a store must have. That of a refusal runs."""
TITLE = re.compile(r"^(\w+)\n-+\n", re.M)


def sections(name: str) -> dict[str, str]:
    """Return the text of each section of a docstring, by its title."""
    parts = TITLE.split(inspect.getdoc(FACE[name]) or "")
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def entries(text: str) -> list[str]:
    """Return the names that a section explains: its lines that are not indented."""
    return re.findall(r"^\w+(?=$| :)", text, re.M)


def parameters(value: Callable[..., Any]) -> list[str]:
    """Return the names that a call takes. pydantic shows those of a class only once its validator is built."""
    if inspect.isclass(value) and issubclass(value, BaseModel):
        return list(value.model_fields)
    return list(inspect.signature(value).parameters)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def test_the_face_has_the_names_that_the_readme_shows() -> None:
    assert {"BarsConfig", "read_bars", "make_windows", "embed", "detect"} <= FACE.keys()
    assert {"Bars", "Windows"} <= set(CLASSES)


@pytest.mark.parametrize("name", FACE)
def test_an_exported_name_has_an_example_that_runs(name: str) -> None:
    text = sections(name).get("Examples", "")
    found = doctest.DocTestParser().get_examples(text)
    assert [one for one in found if not one.options.get(doctest.SKIP)]
    assert (name in NEEDS_A_MODEL) == any(one.options.get(doctest.SKIP) for one in found)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_exported_function_explains_its_parameters_its_result_and_its_errors(name: str) -> None:
    found = sections(name)
    assert entries(found["Parameters"]) == parameters(FACE[name])
    assert found["Returns"].strip()
    assert found["Raises"].strip()


@pytest.mark.parametrize("name", CLASSES)
def test_an_exported_class_explains_its_fields(name: str) -> None:
    found = sections(name)
    assert entries(found.get("Attributes") or found["Parameters"]) == parameters(FACE[name])


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=module_of)
def test_the_examples_of_a_module_give_what_they_show(workdir: Path, path: Path) -> None:
    failed, tried = doctest.testmod(importlib.import_module(module_of(path)))
    assert tried > 0
    assert failed == 0
