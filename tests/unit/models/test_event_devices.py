"""No tensor of an event detector is made on the CPU by name: everything follows the device of nets and inputs.

The device ``meta`` stands for a GPU: it computes shapes, and refuses tensors of another device.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from small_events import labels_of, looked_at, random_event_detector

from moola_mlflow.models.events.event_detector import EventDetector, averaged
from moola_mlflow.models.events.event_targets import EventTargets
from moola_mlflow.models.events.fitting import EventInputs, EventSettings, flipped, optimizer_of, take_step
from moola_mlflow.models.events.nets import NETS, NetShape

SHAPE = NetShape(6, 2, (4, 9), 60, max_events=2)
EVENTS = [[(0, 20, 25)], [], [(1, 30, 36), (0, 41, 46)], [(1, 22, 30)]]


def inputs(device: str) -> EventInputs:
    torch.manual_seed(0)
    return EventInputs(torch.randn(4, 60, 6), torch.randn(4, 60, 6)).to(device)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_step_of_training_stays_on_the_device_of_the_net(name: str, device: str) -> None:
    if (name, device) == ("none_class", "meta"):
        pytest.skip("its loss asks which windows are empty, and meta tensors hold no answer")
    net = NETS[name](SHAPE, 8).to(device)
    settings = EventSettings(device=device)
    optimizer, _ = optimizer_of(net, settings, 10)
    targets = EventTargets.of(labels_of(EVENTS, num_steps=60)).to(device)
    draws = torch.Generator().manual_seed(1)
    batch = torch.arange(4)
    x = inputs(device).values if device == "meta" else flipped(inputs(device), batch, settings, draws)
    loss = net.loss(x, targets.at(batch))
    assert loss.device.type == device
    if device == "cpu":  # clipping asks for the size of the gradient
        take_step(net, loss, optimizer, settings)


@pytest.mark.parametrize("members", [0, 1, 2])
@pytest.mark.parametrize("classes", [1, 3])
def test_what_nets_believe_is_computed_on_their_device(members: int, classes: int) -> None:
    detector = random_event_detector(members, classes)
    size = max(part.columns[1] for part in detector.parts)
    there = detector.to("meta")
    assert there.device.type == "meta"
    assert all(p.device.type == "meta" for part in there.parts for p in part.net.parameters())
    found = averaged(there.parts, torch.empty((5, 105, size), device="meta"))
    assert [tuple(one.shape) for one in found] == [(5, classes), (5, 3, classes, 105), (5, classes), (5, classes)]
    assert {one.device.type for one in found} == {"meta"}


def _accelerators() -> list[str]:
    found = ["cuda"] if torch.cuda.is_available() else []
    return found + (["mps"] if torch.backends.mps.is_available() else [])


@pytest.mark.parametrize("device", _accelerators() or [pytest.param("", marks=pytest.mark.skip(reason="no GPU"))])
def test_a_gpu_reads_what_the_cpu_reads(device: str) -> None:
    read: Callable[[EventDetector], np.ndarray] = lambda one: one.read(looked_at().ohlc).maps  # noqa: E731
    here = read(random_event_detector(1))
    np.testing.assert_allclose(read(random_event_detector(1).to(device)), here, atol=1e-4)
