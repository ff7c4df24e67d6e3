"""Peaks of averaged maps are events; each is known when the last window that can change it has been read."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moola_mlflow.models.events.belief import centre_maps
from moola_mlflow.models.events.peaks import (
    MARGIN,
    RADIUS,
    MeanMaps,
    events_of,
    known_rows,
    on_axis,
    window_events,
)

STEPS = 105


def maps_of(events: list[tuple[int, int, int, float]], num_classes: int = 2) -> np.ndarray:
    """Return the maps of one window whose belief lies on a few spans (class, first, last bar, mass). [1, 3, C, T]."""
    belief = torch.zeros(1, num_classes, 12, STEPS)
    for label, start, end, mass in events:
        belief[0, label, end - start, start] += mass
    return centre_maps(belief, (1, 12)).numpy()


def random_maps(num: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    belief = torch.as_tensor(rng.random((num, 2, 8, STEPS)) ** 40, dtype=torch.float32) / 12
    return centre_maps(belief, (5, 12)).numpy()


def test_an_event_is_found_at_its_bars_with_its_mass() -> None:
    found, window = window_events(maps_of([(1, 40, 47, 0.7), (0, 60, 64, 0.2)]))
    assert window.tolist() == [0, 0]
    assert (found.label.tolist(), found.start.tolist(), found.end.tolist()) == ([1, 0], [40, 60], [47, 64])
    assert found.score == pytest.approx([0.7, 0.2])


def test_a_second_event_of_a_class_within_eight_bars_is_dropped_and_one_of_another_class_stays() -> None:
    near = [(0, 40, 44, 0.6), (0, 40 + RADIUS, 44 + RADIUS, 0.3), (1, 40 + RADIUS, 44 + RADIUS, 0.1)]
    found, _ = window_events(maps_of(near))
    assert found.label.tolist() == [0, 1]
    further = [(0, 40, 44, 0.6), (0, 50, 54, 0.3)]
    assert window_events(maps_of(further))[0].start.tolist() == [40, 50]


def test_what_is_centred_in_a_margin_is_left_to_another_window() -> None:
    found, _ = window_events(maps_of([(0, MARGIN - 10, MARGIN - 5, 0.9), (1, 99, 103, 0.9)]))
    assert len(found) == 0


def test_events_of_a_window_lie_on_the_axis_where_labels_lie() -> None:
    both = np.concatenate([maps_of([(0, 30, 35, 0.5)]), maps_of([(0, 50, 57, 0.4)])])
    found, window = window_events(both)
    assert window.tolist() == [0, 1]
    assert found.start.tolist() == on_axis(np.array([0, 1]), np.array([30, 50]), STEPS).tolist()


@pytest.mark.parametrize("stride", [7, 21, 40])
def test_the_mean_is_over_the_windows_that_hold_a_bar_outside_of_their_margins(stride: int) -> None:
    maps, starts = random_maps(6), np.arange(6) * stride
    mean = MeanMaps(2, 400)
    mean.add(maps[:2], starts[:2])
    mean.add(maps[2:], starts[2:])
    for bar in range(400):
        own = [i for i in range(6) if MARGIN <= bar - starts[i] < STEPS - MARGIN]
        wanted = np.mean([maps[i, :, :, bar - starts[i]] for i in own], 0) if own else np.zeros((3, 2))
        np.testing.assert_allclose(mean.mean()[:, :, bar], wanted, rtol=1e-5, atol=1e-7)
        assert mean.count[bar] == len(own)
        assert mean.known[bar] == (starts[own[-1]] + STEPS - 1 if own else -1)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("stride", [11, 21])
def test_no_window_after_the_bar_at_which_an_event_is_known_changes_it(seed: int, stride: int) -> None:
    maps, starts = random_maps(20, seed), np.arange(20) * stride
    whole = MeanMaps(2, 900)
    whole.add(maps, starts)
    every, peak = events_of(whole.mean())
    known = known_rows(whole.mean(), whole.known, every, peak)
    assert len(every) > 10
    for i in range(len(every)):
        now = starts + STEPS - 1 <= known[i]
        part = MeanMaps(2, 900)
        part.add(maps[now], starts[now])
        then, _ = events_of(part.mean())
        same = (then.label == every.label[i]) & (then.start == every.start[i]) & (then.end == every.end[i])
        assert same.sum() == 1
        assert then.score[same] == pytest.approx(every.score[i])
        assert known[i] < every.end[i] + 2 * STEPS


def test_a_map_without_a_peak_gives_no_event() -> None:
    found, peak = events_of(np.zeros((3, 2, 50)))
    assert (len(found), len(peak)) == (0, 0)
