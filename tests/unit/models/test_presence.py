"""The prior reader for events says whether there is one, of any number of classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_events import labels_of

from moola_mlflow.core.errors import TrainingError
from moola_mlflow.models.events.event_targets import EventTargets
from moola_mlflow.models.events.presence import PresenceReader, fit_presence_reader
from moola_mlflow.models.heads import pooling
from moola_mlflow.models.prior_reader import Prior
from moola_mlflow.models.task_heads import TaskHeads

SIZE, STEPS = 12, 60


def prior() -> Prior:
    torch.manual_seed(0)
    return Prior.of(
        TaskHeads(tuple(f"r{i}" for i in range(20)), torch.randn(20, 2, SIZE), torch.randn(20, 3, 3 * SIZE))
    )


def task(num: int, num_classes: int, seed: int) -> tuple[torch.Tensor, EventTargets]:
    """Encodings in which the mean pointer of the rules marks the events of half of the windows."""
    rng, mean = np.random.default_rng(seed), prior().mean
    torch.manual_seed(seed)
    h, events = torch.randn(num, STEPS, SIZE) * 0.5, list[list[tuple[int, int, int]]]()
    for i in range(num):
        start = int(rng.integers(5, 45))
        events.append([(i % num_classes, start, start + 6)] if rng.random() < 0.5 else [])
        for label, first, last in events[-1]:
            h[i, first] += 4 * mean[0] / mean[0].norm()
            h[i, last] += 4 * mean[1] / mean[1].norm()
            h[i, first : last + 1] += prior().classes[label, :SIZE] / prior().classes[label, :SIZE].norm()
    return h, EventTargets.of(labels_of(events, num_steps=STEPS, num_classes=num_classes))


def share_right(reader: PresenceReader, h: torch.Tensor, targets: EventTargets) -> float:
    with torch.no_grad():
        class_BC = reader.belief(h).sum((2, 3))
    guess = torch.cat([class_BC, 1 - class_BC.sum(1, keepdim=True)], 1).argmax(1)
    return float((guess == torch.where(targets.has_event, targets.label[:, 0], targets.num_classes)).float().mean())


@pytest.mark.parametrize("num_classes", [1, 2, 3])
def test_a_few_windows_teach_presence_and_class(num_classes: int) -> None:
    h, targets = task(80, num_classes, 1)
    reader = fit_presence_reader(prior(), h, targets)
    assert share_right(reader, *task(200, num_classes, 2)) > 0.85


def test_belief_is_presence_times_class_times_pointers() -> None:
    h, targets = task(40, 2, 1)
    reader = fit_presence_reader(prior(), h, targets)
    with torch.no_grad():
        belief, output = reader.belief(h), reader.reader(h)
    present = belief.sum((1, 2, 3))
    assert ((present > 0) & (present < 1)).all()
    start, end = reader.reader.decode(output)
    rows, length = torch.arange(len(h)), end - start + 1 - reader.shape.lengths[0]
    at_best = belief[rows, :, length, start]
    torch.testing.assert_close(at_best / at_best.sum(1, keepdim=True), output.class_logits.softmax(1))
    best = belief.sum(1).flatten(1).argmax(1)
    assert torch.equal(best % STEPS, start)
    assert torch.equal(start + reader.shape.lengths[0] + best // STEPS - 1, end)


def test_two_fits_are_equal_and_windows_upside_down_are_used() -> None:
    h, targets = task(40, 2, 1)
    one, same, turned = (fit_presence_reader(prior(), h, targets, m).state_dict() for m in (None, None, -h))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["presence.weight"], turned["presence.weight"])


def test_windows_that_all_hold_an_event_make_presence_likely() -> None:
    h, targets = task(40, 2, 1)
    index = torch.nonzero(targets.has_event)[:, 0]
    reader = fit_presence_reader(prior(), h[index], targets.at(index))
    with torch.no_grad():
        assert (reader.belief(h[index]).sum((1, 2, 3)) > 0.5).all()


def test_the_presence_model_reads_the_encoding_around_the_most_probable_span() -> None:
    h, targets = task(40, 2, 1)
    reader = fit_presence_reader(prior(), h, targets)
    with torch.no_grad():
        output = reader.reader(h)
        pooled = (pooling(*reader.reader.decode(output), STEPS) @ h).flatten(1)
        numbers = reader.evidence(h, output)
    torch.testing.assert_close(numbers[:, :-8], pooled @ prior().classes.T)


def test_encodings_that_are_not_finite_are_refused() -> None:
    h, targets = task(40, 2, 1)
    h[:, 3] = torch.nan
    with pytest.raises(TrainingError, match="not finite"):
        fit_presence_reader(prior(), h, targets)
