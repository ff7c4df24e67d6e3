"""Maps are exactly the sums of a belief that they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moola_mlflow.models.events.belief import (
    END,
    MASS,
    START,
    best_spans,
    centre_maps,
    class_logits,
    span_logits,
)
from moola_mlflow.models.heads import pooling

STEPS = 30


def random_belief(lengths: tuple[int, int], num_classes: int, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    logits = span_logits(torch.randn(4, num_classes, STEPS), torch.randn(4, num_classes, STEPS), lengths)
    return logits.flatten(1).softmax(1).view(logits.shape)


@pytest.mark.parametrize("lengths", [(1, 1), (3, 3), (2, 7), (5, 30)])
def test_a_span_has_the_sum_of_its_two_logits_and_one_that_leaves_the_window_has_no_mass(
    lengths: tuple[int, int],
) -> None:
    start, end = torch.randn(1, 2, STEPS), torch.randn(1, 2, STEPS)
    logits = span_logits(start, end, lengths)
    assert logits.shape == (1, 2, lengths[1] - lengths[0] + 1, STEPS)
    for length in range(lengths[0], lengths[1] + 1):
        for s in range(STEPS):
            found = logits[0, 1, length - lengths[0], s]
            if s + length <= STEPS:
                torch.testing.assert_close(found, start[0, 1, s] + end[0, 1, s + length - 1])
            else:
                assert found < -9000


@pytest.mark.parametrize("lengths", [(1, 1), (4, 4), (2, 7), (5, 12), (1, STEPS)])
@pytest.mark.parametrize("num_classes", [1, 3])
def test_maps_are_sums_over_the_spans_centred_within_three_bars(lengths: tuple[int, int], num_classes: int) -> None:
    belief = random_belief(lengths, num_classes)
    wanted = np.zeros((4, 3, num_classes, STEPS))
    for row, length in enumerate(range(lengths[0], lengths[1] + 1)):
        for s in range(STEPS - length + 1):
            e = s + length - 1
            for t in range(STEPS):
                if abs(s + e - 2 * t) <= 6:
                    mass = belief[:, :, row, s].numpy()
                    wanted[:, MASS, :, t] += mass
                    wanted[:, START, :, t] += mass * (s - t)
                    wanted[:, END, :, t] += mass * (e - t)
    np.testing.assert_allclose(centre_maps(belief, lengths).numpy(), wanted, atol=2e-5)


def test_the_best_span_of_a_class_is_where_its_belief_is_largest() -> None:
    belief = torch.zeros(2, 2, 3, STEPS)
    belief[0, 1, 2, 8] = 0.3
    belief[0, 0, 1, 4] = 0.6
    belief[1, 0, 0, 20] = 0.1
    start, end = best_spans(belief, torch.tensor([1, 0]), (5, 7))
    assert (start.tolist(), end.tolist()) == ([8, 20], [14, 24])


@pytest.mark.parametrize("lengths", [(1, 1), (3, 6), (25, 30)])
def test_the_class_of_every_span_is_what_the_layer_reads_there(lengths: tuple[int, int]) -> None:
    torch.manual_seed(0)
    g, layer = torch.randn(2, STEPS, 6), torch.nn.Linear(18, 4)
    found = class_logits(g, layer, lengths)
    for length in range(lengths[0], lengths[1] + 1):
        for s in range(STEPS - length + 1):
            at = torch.tensor([s, s])
            wanted = layer((pooling(at, at + length - 1, STEPS) @ g).flatten(1))
            torch.testing.assert_close(found[:, :, length - lengths[0], s], wanted, atol=1e-5, rtol=1e-4)
