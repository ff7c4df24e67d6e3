"""The examples in the docstrings of the models room give the results that they show."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["embedding", "scanning"])
def test_the_examples_of_a_module_give_what_they_show(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(f"moola_mlflow.models.{name}"))
    assert tried > 0
    assert failed == 0
