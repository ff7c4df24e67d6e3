"""The nets' beliefs are probabilities, and their losses are what they say."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_events import labels_of

from moola_mlflow.models.events.event_targets import EventTargets
from moola_mlflow.models.events.nets import NETS, JointNet, NetShape, SpanNet

SHAPE = NetShape(num_inputs=5, num_classes=3, lengths=(4, 9), num_steps=40)
COUNTING = replace(SHAPE, max_events=2)
EVENTS = [[(0, 5, 10)], [], [(1, 3, 6), (2, 20, 28)]]


def targets() -> EventTargets:
    return EventTargets.of(labels_of(EVENTS, num_steps=40, num_classes=3))


@pytest.mark.parametrize("name", NETS)
def test_the_belief_of_a_window_sums_to_at_most_one_and_none_has_the_rest(name: str) -> None:
    torch.manual_seed(0)
    net = NETS[name](SHAPE, 8).eval()
    belief = net.belief(torch.randn(6, 40, 5))
    assert belief.shape == (6, 3, 6, 40)
    assert (belief >= 0).all()
    assert ((belief.sum((1, 2, 3)) > 0) & (belief.sum((1, 2, 3)) < 1)).all()
    assert (belief[:, :, 5, 32:] == 0).all(), "a span of 9 bars that leaves the window"


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("events", [EVENTS, [[(0, 5, 10)]], [[], [(1, 0, 3)]]])
def test_every_weight_gets_a_finite_gradient(name: str, events: list[list[tuple[int, int, int]]]) -> None:
    torch.manual_seed(0)
    net = NETS[name](SHAPE, 8)
    own = EventTargets.of(labels_of([*events, [(2, 0, 8)]], num_steps=40, num_classes=3))
    net.loss(torch.randn(len(own), 40, 5), own).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("name", NETS)
def test_a_batch_without_events_has_a_loss(name: str) -> None:
    torch.manual_seed(0)
    net = NETS[name](SHAPE, 8)
    loss = net.loss(torch.randn(2, 40, 5), targets().at(torch.tensor([1, 1])))
    loss.backward()
    assert loss.isfinite()


def test_an_untrained_joint_net_gives_none_a_fifth() -> None:
    torch.manual_seed(0)
    net = JointNet(NetShape(5, 2, (5, 12)), 32).eval()
    none = 1 - net.belief(torch.zeros(1, 105, 5)).sum().detach()
    assert 0.15 < none < 0.25


def test_the_joint_loss_is_the_cross_entropy_with_equal_parts_for_the_events_of_a_window() -> None:
    torch.manual_seed(0)
    net = JointNet(SHAPE, 8).eval()
    x = torch.randn(3, 40, 5)
    belief = net.belief(x)
    none = 1 - belief.sum((1, 2, 3))
    pair = (belief[2, 1, 0, 3].log() + belief[2, 2, 5, 20].log()) / 2
    wanted = -(belief[0, 0, 2, 5].log() + none[1].log() + pair) / 3
    torch.testing.assert_close(net.loss(x, targets()), wanted, rtol=1e-4, atol=1e-4)


def test_the_order_of_a_windows_events_does_not_matter() -> None:
    torch.manual_seed(0)
    swapped = EventTargets.of(labels_of([*EVENTS[:2], EVENTS[2][::-1]], num_steps=40, num_classes=3))
    for make in NETS.values():
        net, x = make(SHAPE, 8).eval(), torch.randn(3, 40, 5)
        torch.testing.assert_close(net.loss(x, targets()), net.loss(x, swapped))


def test_a_net_that_counts_learns_the_number_of_events_and_others_say_nothing_of_it() -> None:
    torch.manual_seed(0)
    x, net = torch.randn(3, 40, 5), JointNet(COUNTING, 8)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        net.loss(x, targets()).backward()
        optimizer.step()
    events = net.eval().read(x)[1]
    assert events is not None
    assert events[[0, 2]].tolist() == pytest.approx([1, 2], abs=0.2)
    for make in NETS.values():
        assert make(SHAPE, 8).eval().read(x)[1] is None


def test_the_loss_of_counting_is_added_over_windows_with_events() -> None:
    torch.manual_seed(0)
    net, plain = JointNet(COUNTING, 8).eval(), JointNet(SHAPE, 8).eval()
    plain.load_state_dict({k: v for k, v in net.state_dict().items() if not k.startswith("count.")})
    x = torch.randn(3, 40, 5)
    events = net.read(x)[1]
    assert events is not None
    two = events - 1  # of one or two events, this is the probability of two
    wanted = -((1 - two[0]).log() + two[2].log()) / 3
    torch.testing.assert_close(net.loss(x, targets()) - plain.loss(x, targets()), wanted, atol=1e-4, rtol=1e-4)


def test_a_span_net_finds_an_event_in_every_window_and_learns_from_none_of_the_empty_ones() -> None:
    torch.manual_seed(0)
    net = SpanNet(SHAPE, 8)
    x = torch.randn(3, 40, 5)
    torch.testing.assert_close(net.belief(x).sum((1, 2, 3)), torch.ones(3))
    empty = net.loss(x[:2], targets().at(torch.tensor([1, 1])))
    assert float(empty.detach()) == 0
    net.loss(x, targets()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
