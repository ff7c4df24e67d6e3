"""The examples in the docstrings of the features, bars and windows rooms give the results that they show."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = ("features.relativity", "bars.reader", "windows.windows")


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_give_what_they_show(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(f"moola_mlflow.{name}"))
    assert tried > 0
    assert failed == 0
