"""Weighted sums of objectives: each part keeps its own semantics, and the figures are the stated combinations."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from small_trainings import small_windows, trainer_of
from torch import nn

from moola_mlflow.core import ObjectiveConfig, PretrainKeys, make_config
from moola_mlflow.core.errors import UserError
from moola_mlflow.features.relativity import compute_features, feature_names
from moola_mlflow.models.encoders import build_encoder
from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.files import checkpoint
from moola_mlflow.models.objectives import build_objective
from moola_mlflow.models.objectives.base import Errors, leak
from moola_mlflow.models.objectives.masked import Masked
from moola_mlflow.models.objectives.price_path import TARGETS
from moola_mlflow.models.objectives.weighted_sum import WeightedSum
from moola_mlflow.windows.batches import Batch

SHORT = {"trainer.epochs": 3, "schedule.warmup_epochs": 1}
NAMES = feature_names("relativity11")


@pytest.fixture
def batch(sample_prices: np.ndarray) -> Batch:
    prices = sample_prices[:12]
    return Batch(torch.from_numpy(compute_features(prices)), torch.from_numpy(prices), np.arange(12), 20)


@pytest.fixture
def encoder(batch: Batch) -> Encoder:
    torch.manual_seed(0)
    encoder = build_encoder("bilstm", len(NAMES), hidden=8, layers=2, dropout=0.0)
    steps = batch.x_BTF[:, batch.warmup :].flatten(0, 1)
    encoder.set_scaling(steps.mean(0), steps.std(0))
    return encoder


def build(name: str = "price_path+0.5*masked", **settings: object) -> WeightedSum:
    torch.manual_seed(1)
    built = build_objective(ObjectiveConfig(name=name, **settings), NAMES, 16)  # type: ignore[arg-type]
    assert isinstance(built, WeightedSum)
    return built


def seeded(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("settings", [{}, {"uncertainty": True}])
def test_the_gradient_is_the_weighted_sum_of_the_parts_gradients(
    encoder: Encoder, batch: Batch, settings: dict[str, object]
) -> None:
    objective = build("0.7*price_path + 3*masked", **settings)
    objective.loss(objective(encoder, batch, seeded())).backward()
    found = {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}
    encoder.zero_grad()
    g = seeded()  # the sum draws for all parts first, then adds each part's jitter
    drawn = [part.draw(batch, g) for part in objective.parts()]
    for (name, part), own in zip(objective._named(), drawn, strict=True):
        h_BTD = encoder.encode(part.encoder_input(encoder, batch, own, g))
        (objective.weights[name] * part.loss(part.errors(encoder, h_BTD, batch, own))).backward()
    assert objective.weights == {"price_path": 0.7, "masked": 3.0}
    for name, p in encoder.named_parameters():
        torch.testing.assert_close(found[name], p.grad, rtol=1e-4, atol=1e-6)


def test_the_path_part_sees_what_the_masked_part_hides(encoder: Encoder, batch: Batch) -> None:
    objective = build().eval()
    torch.nn.init.constant_(objective.terms["masked"].mask_token, 7.0)
    drawn = objective.draw(batch, seeded())
    of_path, of_masked = objective.encoder_input(encoder, batch, drawn, seeded()).detach().chunk(2)
    assert torch.equal(of_path, encoder.standardise(batch.x_BTF))
    nothing, mask = objective._own(batch, drawn)
    assert not nothing.any()
    assert (of_masked[mask] == 7.0).all()
    assert int(mask.sum()) == 12 * round(0.15 * 85)


@torch.no_grad()
def test_targets_groups_and_scores_are_those_of_the_parts(encoder: Encoder, batch: Batch) -> None:
    objective = build().eval()
    assert objective.targets == (*TARGETS, *NAMES)
    assert set(objective.groups) == {"price_path", "masked", "past", "future", "candle", "state"}
    assert [objective.targets[i] for i in objective.groups["candle"]] == list(NAMES[:5])
    objective.fit_targets([batch])
    objective.fit_baselines(encoder, [batch], seeded())
    drawn = objective.draw(batch, seeded())
    h_BTD = encoder.encode(objective.encoder_input(encoder, batch, drawn, seeded()))
    errors, baselines = objective.errors(encoder, h_BTD, batch, drawn), objective.baseline_errors(encoder, batch, drawn)
    hubers, best, overall = [], [], {}
    for (name, part), h, mask in zip(objective._named(), h_BTD.chunk(2), objective._own(batch, drawn), strict=True):
        own = part.errors(encoder, h, batch, mask)
        mine = part.baseline_errors(encoder, batch, mask)
        expected = part.skills(own, mine)
        overall[name] = expected.pop("")
        found = objective.skills(errors, baselines)
        assert found[name] == overall[name]
        assert {key: found[key] for key in expected} == expected
        hubers.append(float(own.huber()))
        best.append(min(float(e.huber()) for e in mine.values()))
    assert float(objective.huber(errors)) == pytest.approx((hubers[0] + 0.5 * hubers[1]) / 1.5)
    assert float(objective.loss(errors)) == pytest.approx(hubers[0] + 0.5 * hubers[1])
    skill = 1 - (hubers[0] + 0.5 * hubers[1]) / (best[0] + 0.5 * best[1])
    assert objective.skills(errors, baselines)[""] == pytest.approx(skill)
    assert set(baselines) == {
        *("price_path target mean", "price_path ridge"),
        *(f"masked {baseline}" for baseline in ("feature mean", "last visible", "interpolation", "ridge")),
    }


def test_targets_that_two_parts_share_carry_their_parts_name() -> None:
    parts = {name: (1.0, Masked(("a", "open_norm"), 4)) for name in ("one", "two")}
    objective = WeightedSum(parts)
    assert objective.targets == ("one_a", "one_open_norm", "two_a", "two_open_norm")
    assert objective.groups["two_candle"] == [3]
    errors = Errors(torch.ones(4), torch.ones(4), torch.ones(4))
    found = objective.skills(errors, {f"{name} r": Errors(*(torch.full((2,), 2.0),) * 3) for name in parts})
    assert set(found) == {"", *objective.groups, *objective.targets}


def test_a_leak_of_one_part_is_a_leak_of_the_sum(encoder: Encoder, batch: Batch) -> None:
    honest, identity = build(), build(hide_masked=False)
    assert (honest.checks_leak, honest.identity) == (True, False)
    assert leak(honest, encoder, batch, seeded) == 0.0
    assert identity.identity
    assert leak(identity, encoder, batch, seeded) > 0


def test_one_name_with_weight_one_is_no_sum_and_white_space_does_not_matter() -> None:
    assert isinstance(build_objective(ObjectiveConfig(name=" masked "), NAMES, 16), Masked)
    assert build("  price_path +0.5 * masked").weights == {"price_path": 1.0, "masked": 0.5}
    assert build("2*price_path").weights == {"price_path": 2.0}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("price_path+", r"a term has no name\. Allowed: masked, price_path, rules, or a sum such as price_path"),
        ("", "a term has no name"),
        ("0*price_path", "the weight of 'price_path' is '0'; allowed: a number above 0.*leave 'price_path' out"),
        ("-1*price_path", "the weight of 'price_path' is '-1'"),
        ("inf*price_path", "the weight of 'price_path' is 'inf'"),
        ("much*price_path", "the weight of 'price_path' is 'much'"),
        ("*price_path", "the weight of 'price_path' is ''"),
        ("price_path+maskd", "'maskd' is unknown; did you mean 'masked'"),
        ("price_path+price_path", r"'price_path' is named twice.*such as 2\*price_path"),
    ],
)
def test_a_sum_that_is_no_sum_is_refused_with_a_cure(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_objective(ObjectiveConfig(name=name), NAMES, 16)


def test_a_sum_trains_and_every_figure_of_its_parts_is_scored(tmp_path: Path) -> None:
    config = make_config(PretrainKeys, {}, {"objective.name": "price_path+0.5*masked", "encoder.hidden": 8, **SHORT})
    trainer = trainer_of(config, small_windows(), tmp_path)
    model = trainer.model
    assert trainer.evaluation.leak() == 0.0
    history = trainer.fit().progress.history
    assert history[-1]["val/huber"] < history[0]["val/huber"]
    scores = trainer.evaluation.scores("test")
    named = (*model.objective.targets, "price_path", "masked", "past", "future", "candle", "state")
    assert {f"skill_{name}" for name in named} <= set(scores)
    predicted, target, where = trainer.evaluation.reconstruct(2)
    assert predicted.shape == target.shape == where.shape == (2, 105, 21)
    state = torch.load(tmp_path / checkpoint.LATEST_CHECKPOINT)["model_state_dict"]
    assert {"objective.terms.price_path.decoder.weight", "objective.terms.masked.mask_token"} <= set(state)


@pytest.mark.parametrize("prefix", ["", "objective."])
def test_weights_that_an_earlier_version_saved_under_the_old_name_of_a_term_are_loaded(prefix: str) -> None:
    torch.manual_seed(1)
    saved = build()
    torch.manual_seed(2)
    loaded = build()
    old = {f"{prefix}{key.replace('price_path', 'path')}": tensor for key, tensor in saved.state_dict().items()}
    assert f"{prefix}terms.path.decoder.weight" in old
    (nn.ModuleDict({"objective": loaded}) if prefix else loaded).load_state_dict(old)
    state = loaded.state_dict()
    assert all(torch.equal(state[key], tensor) for key, tensor in saved.state_dict().items())
    assert copy.deepcopy(loaded).state_dict().keys() == state.keys()
