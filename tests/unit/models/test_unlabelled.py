"""Windows that nobody looked at: soft targets at a base rate, and detectors from windows that all hold an event."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_events import encoder_of_rules, labels_of, looked_at

from moola_mlflow.models.events.cross_fit import EventSource, fit_event_detector
from moola_mlflow.models.events.event_targets import EventTargets
from moola_mlflow.models.events.fitting import EventInputs, EventSettings
from moola_mlflow.models.events.nets import JointNet
from moola_mlflow.models.events.unlabelled import Unlabelled, at_base_rate, fit_with_unlabelled, soft_targets

QUICK = EventSettings(hidden=8, folds=3, epochs=1, min_steps=20)


def task(num: int, rate: float, seed: int) -> tuple[EventInputs, list[list[tuple[int, int, int]]]]:
    """Windows whose inputs mark an event's steps; a share of them holds one."""
    rng, events = np.random.default_rng(seed), list[list[tuple[int, int, int]]]()
    x = torch.as_tensor(rng.normal(0, 0.3, (num, 40, 4)), dtype=torch.float32)
    for i in range(num):
        start = int(rng.integers(5, 28))
        events.append([(int(rng.integers(2)), start, start + 5)] if rng.random() < rate else [])
        for label, first, last in events[-1]:
            x[i, first, 0] += 3
            x[i, last, 1] += 3
            x[i, first : last + 1, 2] += 1.5 - 3 * label
    return EventInputs(x), events


def targets_of(events: list[list[tuple[int, int, int]]]) -> EventTargets:
    return EventTargets.of(labels_of(events, num_steps=40))


@pytest.mark.parametrize("rate", [0.02, 0.4, 0.9])
def test_events_get_the_base_rate_on_average_and_keep_their_order(rate: float) -> None:
    torch.manual_seed(0)
    before = torch.randn(200, 9).mul(3).softmax(1)
    after = at_base_rate(before, rate)
    torch.testing.assert_close(after.sum(1), torch.ones(200))
    assert float(1 - after[:, -1].mean()) == pytest.approx(rate, abs=1e-4)
    torch.testing.assert_close(after[:, 0] / after[:, 1], before[:, 0] / before[:, 1], rtol=1e-3, atol=1e-4)
    assert (after[before[:, -1].argsort(), -1].diff() > -1e-6).all()


def test_positive_windows_and_unlabelled_ones_teach_what_an_empty_window_is() -> None:
    inputs, events = task(120, 1.0, 1)
    unlabelled, _ = task(300, 0.4, 2)
    net = fit_with_unlabelled(
        (inputs, targets_of(events)), np.arange(120), unlabelled, 0.4, EventSettings(hidden=16), 1
    )
    test, truth = task(300, 0.4, 3)
    with torch.no_grad():
        present = net.belief(test.values).sum((1, 2, 3)) > 0.5
    assert (present.numpy() == np.array([bool(own) for own in truth])).mean() > 0.9


def test_the_fit_has_one_result_for_a_seed_and_leaves_the_global_generator_alone() -> None:
    inputs, events = task(20, 0.5, 1)
    unlabelled, _ = task(40, 0.5, 2)
    before = torch.random.get_rng_state()
    one, same = (
        fit_with_unlabelled((inputs, targets_of(events)), np.arange(20), unlabelled, None, QUICK, 1) for _ in range(2)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))


def test_soft_targets_are_the_probabilities_of_the_net() -> None:
    inputs, events = task(20, 0.5, 1)
    net = fit_with_unlabelled((inputs, targets_of(events)), np.arange(20), task(40, 0.5, 2)[0], None, QUICK, 1)
    soft = soft_targets(net, inputs.values)
    torch.testing.assert_close(soft[:, :-1].sum(1), net.belief(inputs.values).sum((1, 2, 3)).detach())
    torch.testing.assert_close(soft.sum(1), torch.ones(20))


def test_self_training_changes_the_joint_nets_alone() -> None:
    labels, more = looked_at(), Unlabelled(looked_at(seed=42).ohlc)
    plain, taught = (fit_event_detector(labels, EventSource(), QUICK, 1, unlabelled=u) for u in (None, more))
    for one, other in zip(plain.detector.parts, taught.detector.parts, strict=True):
        same = all(torch.equal(a, b) for a, b in zip(one.net.parameters(), other.net.parameters(), strict=True))
        assert same == (not isinstance(one.net, JointNet))


def test_labels_without_rejects_and_a_base_rate_give_a_detector_of_joint_nets() -> None:
    labels = looked_at()
    positives = labels.select(np.unique(labels.window))
    more = Unlabelled(looked_at(seed=42).ohlc, base_rate=0.5)
    fit = fit_event_detector(positives, EventSource("both", encoder_of_rules()), QUICK, 1, unlabelled=more)
    assert all(isinstance(part.net, JointNet) for part in fit.detector.parts)
    assert {part.columns for part in fit.detector.parts} == {(0, 64)}
    assert (fit.detector.calibration.slope, fit.detector.calibration.offset, fit.detector.temperature) == (1, 0, 1)
    events = fit.detector.read(more.ohlc).probability[:, :-1].sum(1)
    assert 0.2 < events.mean() < 0.8


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1])
def test_a_base_rate_that_is_no_share_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="above 0 and below 1"):
        replace(Unlabelled(np.zeros((1, 105, 4))), base_rate=rate)
