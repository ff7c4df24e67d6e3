"""An ensemble is its members side by side, whatever is done to it."""

import copy

import pytest
import torch

from moola_mlflow.evaluation.crossval import fresh_copy
from moola_mlflow.models.encoders.bilstm import BiLSTM
from moola_mlflow.models.encoders.ensemble import Ensemble, members_of

STEPS = 30


def member(num_features: int, hidden: int, seed: int) -> BiLSTM:
    torch.manual_seed(seed)
    encoder = BiLSTM(num_features, hidden=hidden, layers=1)
    encoder.set_scaling(torch.randn(num_features), torch.rand(num_features) + 0.5)
    encoder.card = {"model_id": f"member {seed}"}
    return encoder.eval()


@pytest.fixture
def ensemble() -> Ensemble:
    return Ensemble([member(11, 4, 1), member(10, 3, 2)]).eval()


def test_it_reads_raw_features_side_by_side_and_returns_each_members_own_encoding(ensemble: Ensemble) -> None:
    x_BTF = torch.randn(5, STEPS, 21)
    with torch.no_grad():
        h_BTD = ensemble(x_BTF)
        first, second = (
            encoder(part) for encoder, part in zip(members_of(ensemble), x_BTF.split([11, 10], -1), strict=True)
        )
    assert (ensemble.input_size, ensemble.output_size) == (21, 14)
    assert torch.equal(h_BTD, torch.cat([first, second], -1))


def test_another_input_size_is_refused_with_both_sizes(ensemble: Ensemble) -> None:
    with pytest.raises(ValueError, match="reads 21 features a step, got an input of shape \\(2, 30, 11\\)"):
        ensemble(torch.randn(2, STEPS, 11))


def test_a_copy_and_a_reloaded_state_encode_alike_and_share_nothing(ensemble: Ensemble) -> None:
    x_BTF = torch.randn(2, STEPS, 21)
    expected = ensemble(x_BTF).detach()
    twin = copy.deepcopy(ensemble)
    fresh = Ensemble([BiLSTM(11, hidden=4, layers=1), BiLSTM(10, hidden=3, layers=1)]).eval()
    fresh.load_state_dict(ensemble.state_dict())
    with torch.no_grad():
        for parameter in ensemble.parameters():
            parameter.zero_()
    assert torch.equal(twin(x_BTF), expected)
    assert torch.equal(fresh(x_BTF), expected)
    assert [m.card["model_id"] for m in members_of(twin)] == ["member 1", "member 2"]


def test_a_fresh_copy_draws_every_member_anew_and_no_two_alike_and_keeps_their_scaling() -> None:
    twins = Ensemble([member(11, 4, 1), member(11, 4, 1)])
    one, other = members_of(fresh_copy(twins, 7))
    for name, tensor in one.state_dict().items():
        kept = name in ("mean", "std")
        assert torch.equal(tensor, other.state_dict()[name]) == kept, name
        assert torch.equal(tensor, members_of(twins)[0].state_dict()[name]) == kept, name


def test_every_member_is_trained_on(ensemble: Ensemble) -> None:
    ensemble.train()(torch.randn(2, STEPS, 21)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in ensemble.parameters())


def test_a_new_scaling_reaches_the_members_which_are_saved_on_their_own(ensemble: Ensemble) -> None:
    mean_F, std_F = torch.arange(21.0), torch.arange(21.0)
    ensemble.set_scaling(mean_F, std_F)
    first, second = members_of(ensemble)
    assert torch.equal(torch.cat([first.mean, second.mean]), mean_F)
    assert torch.equal(torch.cat([first.std, second.std]), ensemble.std)
    assert ensemble.std[0] == 1  # a constant feature


def test_one_member_is_the_encoder_itself_and_none_is_refused() -> None:
    encoder = member(11, 4, 3)
    x_BTF = torch.randn(2, STEPS, 11)
    assert torch.equal(Ensemble([encoder])(x_BTF), encoder(x_BTF))
    assert members_of(encoder) == [encoder]
    with pytest.raises(ValueError, match="one encoder or more"):
        Ensemble([])
