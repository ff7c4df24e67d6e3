"""The garbage collector rests while modules are imported, and works as before once the run is open."""

from __future__ import annotations

import gc

import pytest

from moola_mlflow.core import rest_collector, wake_collector


@pytest.fixture(autouse=True)
def _as_before() -> object:
    before = gc.get_threshold()
    yield
    wake_collector()
    gc.unfreeze()
    gc.set_threshold(*before)


def test_the_collector_has_its_thresholds_back_after_the_rest() -> None:
    before = gc.get_threshold()
    rest_collector()
    rest_collector()  # a second time changes nothing
    assert gc.get_threshold()[0] > before[0]
    wake_collector()
    assert gc.get_threshold() == before


def test_waking_a_collector_that_does_not_rest_freezes_nothing() -> None:
    frozen = gc.get_freeze_count()
    wake_collector()
    assert gc.get_freeze_count() == frozen
