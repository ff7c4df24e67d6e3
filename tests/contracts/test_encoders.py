"""The contract of encoders: every architecture in the registry passes all of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from precisions import PRECISIONS
from small_trainings import histories, make_trainer, small_windows, weights

from moola_mlflow.core import FinetuneKeys, make_config
from moola_mlflow.core.errors import UserError
from moola_mlflow.models.embedding import embed
from moola_mlflow.models.encoders import ENCODERS, build_encoder
from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.encoders.keyed_dropout import stream
from moola_mlflow.models.files.encoder import describe_encoder, load_from_path, save_encoder
from moola_mlflow.windows.windows import Windows

FEATURES = 11


@pytest.fixture(scope="module")
def windows() -> Windows:
    return small_windows(6_000)


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


def test_dropout_of_a_window_follows_from_its_place_in_the_batch(encoder: Encoder) -> None:
    encoder.train()
    x = torch.randn(6, 20, FEATURES)
    with stream(5, [slice(0, 6)]):
        whole = encoder(x)
    with stream(5, [slice(1, 3), slice(5, 6)]):
        part = encoder(x[[1, 2, 5]])
    torch.testing.assert_close(part, whole[[1, 2, 5]])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_training_in_two_threads_has_the_same_bits_every_time_and_the_scores_of_one(
    windows: Windows, tmp_path: Path, name: str, precision: str
) -> None:
    runs = []
    for i, parts in enumerate((1, 2, 2)):
        keys = {"encoder.name": name, "encoder.dropout": 0.5, "trainer.epochs": 1, "runtime.shards": parts}
        trainer = make_trainer(windows, tmp_path / str(i), precision, **keys)
        assert trainer.engine.parts == parts
        trainer.fit()
        runs.append((histories(trainer), weights(trainer)))
    alone, one, other = runs
    assert one[0] == other[0]
    assert all(torch.equal(tensor, one[1][key]) for key, tensor in other[1].items())
    for a, b in zip(one[0], alone[0], strict=True):
        assert a["val/huber"] == pytest.approx(b["val/huber"], rel=1e-5 if precision == "fp32" else 1e-3)


def test_a_saved_encoder_holds_no_pickle_and_embeds_as_before(name: str, windows: Windows, tmp_path: Path) -> None:
    config = make_config(FinetuneKeys, {}, {"encoder.name": name, "encoder.hidden": 8})
    architecture = config.encoder
    encoder = build_encoder(name, FEATURES, architecture.hidden, architecture.layers, architecture.dropout).eval()
    encoder.card = describe_encoder(config, encoder)
    save_encoder(encoder, encoder.card, tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}
    ohlc = windows.gather(list(range(3)))
    assert torch.equal(embed(load_from_path(tmp_path), ohlc), embed(encoder, ohlc))


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
