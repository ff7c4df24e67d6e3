"""An encoder that learns together with the nets of an event detector."""

from __future__ import annotations

import copy

import numpy as np
import torch
from small_events import looked_at
from small_models import small_encoder

from moola_mlflow.models.detector import encoder_features, further_inputs
from moola_mlflow.models.events.event_detector import read_inputs
from moola_mlflow.models.events.event_targets import EventTargets
from moola_mlflow.models.events.fitting import EventInputs, EventSettings, optimizer_of
from moola_mlflow.models.events.nets import NetShape
from moola_mlflow.models.events.scratch import ScratchNet, ScratchSettings, fit_scratch
from moola_mlflow.windows import mirrored

QUICK = EventSettings(epochs=1, min_steps=6, folds=3, hidden=8)
LABELS = looked_at(40)
TARGETS = EventTargets.of(LABELS)
HOW = ScratchSettings(1e-3)


def inputs() -> EventInputs:
    encoder = small_encoder(hidden=3)
    sides = (
        torch.cat([encoder_features(encoder, ohlc), further_inputs("both", ohlc, None)], -1)
        for ohlc in (LABELS.ohlc, mirrored(LABELS.ohlc))
    )
    return EventInputs(*sides)


def test_the_encoder_learns_and_the_same_seed_gives_the_same_weights() -> None:
    given = inputs()
    first, second, other = (
        fit_scratch(small_encoder(hidden=3), given, TARGETS, np.arange(30), QUICK, seed, ScratchSettings(1e-2))
        for seed in (1, 1, 2)
    )
    assert isinstance(first.net, ScratchNet)
    untrained, start = first.net.encoder.state_dict(), small_encoder(hidden=3).state_dict()
    assert all((untrained[name] != start[name]).any() for name in start if "layers" in name)
    for name, tensor in first.net.state_dict().items():
        torch.testing.assert_close(tensor, second.net.state_dict()[name], rtol=0, atol=0)
    assert any((tensor != other.net.state_dict()[name]).any() for name, tensor in first.net.state_dict().items())


def test_the_scaling_comes_from_the_windows_that_are_fitted_alone() -> None:
    given, index = inputs(), np.arange(20)
    changed = EventInputs(given.values.clone(), given.mirrored)
    changed.values[30:] *= 7
    one, other = (fit_scratch(small_encoder(hidden=3), x, TARGETS, index, QUICK, 1, HOW) for x in (given, changed))
    assert isinstance(one.net, ScratchNet)
    assert isinstance(other.net, ScratchNet)
    torch.testing.assert_close(one.net.encoder.mean, other.net.encoder.mean, rtol=0, atol=0)
    wanted = given.values[:20, 20:, : one.net.encoder.input_size].double().mean((0, 1)).float()
    torch.testing.assert_close(one.net.encoder.mean, wanted, rtol=1e-4, atol=1e-5)


def test_its_belief_is_the_mean_of_both_nets_and_leaves_a_share_to_none() -> None:
    given = inputs()
    part = fit_scratch(small_encoder(hidden=3), given, TARGETS, np.arange(30), QUICK, 1, HOW)
    assert isinstance(part.net, ScratchNet)
    assert part.columns == (0, given.values.shape[-1])
    x = given.values[30:35]
    with torch.no_grad():
        read = part.net.encoded(x)
        each = [net.read(read)[0] for net in part.net._nets()]
        torch.testing.assert_close(part.net.belief(x), torch.stack(each).mean(0))
    probability = read_inputs([part], x).probability
    np.testing.assert_allclose(probability.sum(1), 1, atol=1e-5)
    assert (probability[:, -1] > 0).all()


def test_the_encoder_has_its_own_learning_rate() -> None:
    encoder = copy.deepcopy(small_encoder(hidden=3))
    shape = NetShape(encoder.input_size + 56, 2, (5, 12))
    net = ScratchNet(shape, 8, encoder, ("joint", "none_class"), ScratchSettings(1e-4))
    optimizer, _ = optimizer_of(net, QUICK, 10)
    rates = {id(p): group["initial_lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {rates[id(p)] for p in encoder.parameters()} == {1e-4}
    assert {rates[id(p)] for p in net.nets.parameters()} == {QUICK.lr}
    assert len(rates) == len(list(net.parameters()))


def test_in_bf16_the_encoder_learns_a_little_otherwise_and_is_read_in_fp32() -> None:
    given = inputs()
    exact, rough = (
        fit_scratch(small_encoder(hidden=3), given, TARGETS, np.arange(30), QUICK, 1, ScratchSettings(1e-2, precision))
        for precision in ("fp32", "bf16")
    )
    assert isinstance(rough.net, ScratchNet)
    x = given.values[:5]
    one, other = (read_inputs([part], x).probability for part in (exact, rough))
    assert 0 < np.abs(one - other).max() < 0.1
    with torch.no_grad():
        h = rough.net.encoder(x[..., : rough.net.encoder.input_size])
        torch.testing.assert_close(rough.net.encoded(x)[..., : h.shape[-1]], h, rtol=0, atol=0)
