"""Maps of windows that may hold several events: a second event is as probable as if it were alone."""

from __future__ import annotations

import pytest
import torch

from moola_mlflow.models.events.counting import several_events

STEPS = 60


def maps(*spots: tuple[int, int, float]) -> torch.Tensor:
    """Return the maps of one window with masses at (class, step)."""
    out = torch.zeros(1, 3, 2, STEPS)
    for label, step, mass in spots:
        out[0, :, label, step] = torch.tensor([mass, -3 * mass, 4 * mass])
    return out


def found(none: float, events: float, *spots: tuple[int, int, float]) -> list[float]:
    made = several_events(maps(*spots), torch.tensor([none]), torch.tensor([events]))
    return [float(made[0, 0, label, step]) for label, step, _ in spots]


@pytest.mark.parametrize("share", [0.5, 0.7, 0.95])
def test_both_of_two_events_are_certain_however_they_share_the_mass(share: float) -> None:
    assert found(0.0, 2.0, (0, 15, share), (1, 40, 1 - share)) == pytest.approx([1, 1], abs=0.01)


def test_two_events_are_as_probable_as_the_window_is_to_hold_any() -> None:
    assert found(0.3, 2.0, (0, 15, 0.6), (0, 40, 0.1)) == pytest.approx([0.7, 0.7], abs=0.01)


@pytest.mark.parametrize("none", [0.0, 0.4])
def test_one_event_keeps_its_mass(none: float) -> None:
    spots = ((0, 15, 0.7 * (1 - none)), (1, 40, 0.3 * (1 - none)))
    assert found(none, 1.0, *spots) == pytest.approx([mass for _, _, mass in spots])


def test_scattered_mass_about_doubles_with_two_events() -> None:
    spots = [(0, step, 0.1) for step in range(2, 60, 10)]
    assert found(0.0, 2.0, *spots) == pytest.approx([0.19] * 6, abs=0.01)


def test_mass_close_to_the_first_event_is_no_second_one() -> None:
    first, close = found(0.0, 2.0, (0, 15, 0.9), (0, 18, 0.1))
    assert (first, close) == pytest.approx((0.99, 0.19), abs=0.02)


def test_the_expected_ends_of_events_stay() -> None:
    made = several_events(maps((0, 15, 0.6), (1, 40, 0.2)), torch.tensor([0.1]), torch.tensor([1.8]))
    for label, step in ((0, 15), (1, 40)):
        mass, start, end = made[0, :, label, step].tolist()
        assert (start / mass, end / mass) == pytest.approx((-3, 4))
    assert made.isfinite().all()


def test_a_window_without_any_mass_stays_empty() -> None:
    assert (several_events(torch.zeros(1, 3, 2, STEPS), torch.ones(1), torch.tensor([2.0])) == 0).all()
