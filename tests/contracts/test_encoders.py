"""The contract of encoders: every architecture in the registry passes all of it."""

from __future__ import annotations

import pytest
import torch

from moola_mlflow.core.errors import UserError
from moola_mlflow.models.encoders import ENCODERS, build_encoder
from moola_mlflow.models.encoders.base import Encoder

FEATURES = 11


@pytest.fixture(params=sorted(ENCODERS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def encoder(name: str) -> Encoder:
    torch.manual_seed(0)
    return build_encoder(name, FEATURES, hidden=8, layers=2, dropout=0.3)


@pytest.mark.parametrize("num_steps", [1, 2, 105, 240])
def test_an_encoding_has_one_vector_a_step_for_any_length(encoder: Encoder, num_steps: int) -> None:
    assert encoder(torch.randn(3, num_steps, FEATURES)).shape == (3, num_steps, encoder.output_size)


def test_the_gradient_reaches_every_parameter(encoder: Encoder) -> None:
    encoder(torch.randn(4, 30, FEATURES)).square().sum().backward()
    without = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_windows_do_not_influence_each_other(encoder: Encoder) -> None:
    encoder.eval()
    x = torch.randn(5, 40, FEATURES)
    torch.testing.assert_close(encoder(x)[2:3], encoder(x[2:3]))


def test_the_same_seed_gives_the_same_encoding_and_another_seed_another(encoder: Encoder) -> None:
    encoder.train()
    x = torch.randn(4, 20, FEATURES)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(encoder(x))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_state_survives_a_round_trip_with_its_scaling(encoder: Encoder, name: str) -> None:
    encoder.set_scaling(torch.randn(FEATURES), torch.rand(FEATURES) + 0.5)
    other = build_encoder(name, FEATURES, hidden=8, layers=2, dropout=0.3)
    other.load_state_dict(encoder.state_dict())
    x = torch.randn(2, 50, FEATURES)
    assert torch.equal(encoder.eval()(x), other.eval()(x))


def test_raw_features_are_scored_by_the_encoders_own_vectors(encoder: Encoder) -> None:
    encoder.eval()
    mean, std = torch.full((FEATURES,), 3.0), torch.full((FEATURES,), 2.0)
    x = torch.randn(2, 10, FEATURES)
    plain = encoder(x)
    encoder.set_scaling(mean, std)
    torch.testing.assert_close(encoder(x * std + mean), plain)


def test_a_constant_feature_does_not_divide_by_zero(encoder: Encoder) -> None:
    encoder.set_scaling(torch.zeros(FEATURES), torch.zeros(FEATURES))
    assert encoder(torch.zeros(1, 5, FEATURES)).isfinite().all()


def test_an_input_of_another_width_is_refused(encoder: Encoder) -> None:
    with pytest.raises(ValueError, match="11 features a step"):
        encoder(torch.randn(2, 105, 4))


def test_an_unknown_architecture_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'bilstm'"):
        build_encoder("bilsmt", FEATURES, 8, 1, 0.0)
