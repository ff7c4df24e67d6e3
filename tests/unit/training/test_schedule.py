"""The learning rate over a training: warm-up and cosine, or one cycle."""

from __future__ import annotations

import numpy as np
import pytest

from moola_mlflow.core import ScheduleConfig
from moola_mlflow.training.schedule import lr_factor, one_cycle_factor, scheduled


def test_the_rate_grows_in_a_line_to_its_peak_and_falls_by_a_cosine_to_its_final_share() -> None:
    rates = [lr_factor(step, 200, 50, 0.1) for step in range(200)]
    np.testing.assert_allclose(rates[:50], np.arange(1, 51) / 50)
    assert rates[50] == 1.0
    assert np.all(np.diff(rates[50:]) < 0)
    assert rates[125] == pytest.approx(0.55)  # half of the way down
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)
    assert lr_factor(0, 100, 0, 0.1) == 1.0


def test_one_cycle_rises_from_a_25th_and_ends_near_nothing() -> None:
    rates = [one_cycle_factor(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.04)
    assert int(np.argmax(rates)) == 30
    assert rates[30] == pytest.approx(1.0, abs=1e-4)
    assert 0 < rates[-1] < 1e-5
    assert np.all(np.diff(rates[:31]) > 0)
    assert np.all(np.diff(rates[30:]) < 0)


def test_the_configuration_chooses_the_shape_and_warm_up_takes_at_most_half() -> None:
    cosine, cycle = ScheduleConfig(warmup_epochs=5), ScheduleConfig(shape="one_cycle")
    assert scheduled(cycle, 7, 100, 10) == one_cycle_factor(7, 100)
    assert scheduled(cosine, 7, 100, 10) == lr_factor(7, 100, 50, 0.1)
    assert scheduled(cosine, 7, 60, 30) == lr_factor(7, 60, 30, 0.1)  # not 150 of 60 steps
