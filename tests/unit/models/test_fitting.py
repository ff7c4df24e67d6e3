"""Fits of event nets: the same seed gives the same weights, and they learn what can be learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_events import labels_of

from moola_mlflow.core.errors import TrainingError
from moola_mlflow.models.events.event_targets import EventTargets
from moola_mlflow.models.events.fitting import EventInputs, EventSettings, fit_event_net, optimizer_of
from moola_mlflow.models.events.nets import NETS, EventNet, JointNet, NetShape

SETTINGS = EventSettings(hidden=8, epochs=10, min_steps=60)


def task(num: int = 64, seed: int = 0) -> tuple[EventInputs, EventTargets]:
    """Windows whose inputs mark an event's first and last step, and its class; half of them hold none."""
    rng = np.random.default_rng(seed)
    events = []
    for _ in range(num):
        start = int(rng.integers(3, 25))
        events.append([(int(rng.integers(2)), start, start + int(rng.integers(4, 8)))] if rng.random() < 0.5 else [])
    x = torch.as_tensor(rng.normal(0, 0.1, (num, 40, 4)), dtype=torch.float32)
    for i, own in enumerate(events):
        for label, start, end in own:
            x[i, start, 0] += 2
            x[i, end, 1] += 2
            x[i, start : end + 1, 2] += 1 - 2 * label
    return EventInputs(x), EventTargets.of(labels_of(events, num_steps=40))


def accuracy(net: EventNet, inputs: EventInputs, targets: EventTargets) -> float:
    with torch.no_grad():
        class_C = net.belief(inputs.values).sum((2, 3))
    probability = torch.cat([class_C, 1 - class_C.sum(1, keepdim=True)], 1)
    wanted = torch.where(targets.has_event, targets.label[:, 0], 2)
    return float((probability.argmax(1) == wanted).float().mean())


@pytest.mark.parametrize("name", NETS)
def test_a_net_learns_marked_events_and_says_none_elsewhere(name: str) -> None:
    inputs, targets = task(128)
    net = fit_event_net(name, inputs, targets, np.arange(128), EventSettings(hidden=16, min_steps=400), 1)
    assert accuracy(net, *task(seed=9)) > 0.9
    assert not net.training


@pytest.mark.parametrize("name", NETS)
def test_the_same_seed_gives_the_same_weights_and_the_global_generator_stays(name: str) -> None:
    inputs, targets = task(20)
    turned = EventInputs(inputs.values, -inputs.values)
    before = torch.random.get_rng_state()
    one, same, other = (
        fit_event_net(name, turned, targets, np.arange(20), SETTINGS, seed).state_dict() for seed in (1, 1, 2)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


def test_windows_outside_of_the_index_are_not_read() -> None:
    inputs, targets = task(20)
    spoilt = EventInputs(inputs.values.clone())
    spoilt.values[10:] = torch.nan
    one, other = (fit_event_net("joint", x, targets, np.arange(10), SETTINGS, 1).state_dict() for x in (inputs, spoilt))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_inputs_that_are_not_finite_end_the_fit_with_a_reason() -> None:
    inputs, targets = task(20)
    inputs.values[3] = torch.inf
    with pytest.raises(TrainingError, match="loss of an event detector is nan"):
        fit_event_net("joint", inputs, targets, np.arange(20), SETTINGS, 1)


@pytest.mark.parametrize(("num_windows", "epochs"), [(10, 100), (32, 100), (100, 25), (174, 20), (700, 20)])
def test_few_windows_are_seen_more_often(num_windows: int, epochs: int) -> None:
    assert EventSettings().num_epochs(num_windows) == epochs


def test_biases_have_no_decay_and_the_rate_warms_up_and_falls_to_a_twentieth() -> None:
    net, settings = JointNet(NetShape(4, 2, (3, 5), 20), 8), EventSettings()
    optimizer, scheduler = optimizer_of(net, settings, 100)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [settings.weight_decay, 0]
    assert all(p.ndim < 2 for p in optimizer.param_groups[1]["params"])
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"] / settings.lr)
        optimizer.step()
        scheduler.step()
    assert rates[:2] == pytest.approx([0.2, 0.4], abs=0.01)
    assert max(rates) > 0.98
    assert rates[-1] == pytest.approx(0.05, abs=0.01)
