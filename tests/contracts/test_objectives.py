"""The contract of objectives: every objective, published variant and weighted sum passes all of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from moola_mlflow.core import ObjectiveConfig
from moola_mlflow.core.errors import UserError
from moola_mlflow.features.relativity import compute_features, feature_names
from moola_mlflow.models.encoders import build_encoder
from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.objectives import OBJECTIVES, build_objective, parse_name
from moola_mlflow.models.objectives.base import Errors, Objective, leak
from moola_mlflow.models.objectives.weighted_sum import WeightedSum
from moola_mlflow.windows.batches import Batch

NAMES = feature_names("relativity11")
VARIANTS = {
    "masked": {},
    "masked patch": {"mask_strategy": "patch"},
    "masked uncertainty": {"uncertainty": True},
    "masked raw": {"units": "raw"},
    "price_path": {},
    "masked identity": {"hide_masked": False, "uncertainty": True, "units": "raw"},
    "price_path+0.5*masked": {},
    "2*masked+price_path uncertainty patch": {"uncertainty": True, "mask_strategy": "patch"},
    "price_path+masked identity": {"hide_masked": False},
}
"""Settings by label; the first word names the objective."""
FEW = {"num_rules": 8, "rules_per_step": 4}
VARIANTS |= dict.fromkeys(OBJECTIVES, FEW) | {f"{name}+price_path": FEW for name in OBJECTIVES if name != "price_path"}


def test_every_registered_objective_stands_in_this_suite() -> None:
    assert {label.split()[0] for label in VARIANTS if "+" not in label} == set(OBJECTIVES)
    assert {name for label in VARIANTS if "+" in label for name in parse_name(label.split()[0])} == set(OBJECTIVES)


@pytest.fixture(params=VARIANTS)
def objective(request: pytest.FixtureRequest) -> Objective:
    torch.manual_seed(1)
    name = request.param.split()[0]
    return build_objective(ObjectiveConfig(name=name, **VARIANTS[request.param]), NAMES, 16)


@pytest.fixture
def encoder(batch: Batch) -> Encoder:
    torch.manual_seed(0)
    encoder = build_encoder("bilstm", len(NAMES), hidden=8, layers=2, dropout=0.3)
    steps = batch.x_BTF[:, batch.warmup :].flatten(0, 1)
    encoder.set_scaling(steps.mean(0), steps.std(0))
    return encoder


@pytest.fixture
def batch(sample_prices: np.ndarray) -> Batch:
    return make_batch(sample_prices[:32])


def make_batch(prices: np.ndarray, warmup: int = 20) -> Batch:
    x = torch.from_numpy(compute_features(prices, "relativity11"))
    return Batch(x, torch.from_numpy(prices), np.arange(len(prices)), warmup)


def seeded(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_gradient_reaches_every_parameter(objective: Objective, encoder: Encoder, batch: Batch) -> None:
    objective.loss(objective(encoder, batch, seeded())).backward()
    named = [*objective.named_parameters(), *encoder.named_parameters()]
    assert [name for name, p in named if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_the_same_seed_gives_the_same_errors_and_another_seed_others(
    objective: Objective, encoder: Encoder, batch: Batch
) -> None:
    encoder.eval()
    first, same, other = (objective(encoder, batch, seeded(s)).huber_K for s in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_no_step_of_the_warm_up_carries_a_loss(objective: Objective, encoder: Encoder, batch: Batch) -> None:
    drawn = objective.draw(batch, seeded())
    passes = len(objective.encoder_input(encoder, batch, drawn, seeded())) // 32
    h = torch.randn(passes * 32, 105, 16, requires_grad=True)
    objective.errors(encoder, h, batch, drawn).huber().backward()
    assert h.grad is not None
    if objective.per_step:
        assert h.grad[:, : batch.warmup].abs().sum() == 0
    assert h.grad[:, batch.warmup :].abs().sum() > 0


@pytest.mark.parametrize("num_valid", [1, 2, 85])
def test_errors_are_finite_however_few_steps_are_valid(
    objective: Objective, encoder: Encoder, sample_prices: np.ndarray, num_valid: int
) -> None:
    batch = make_batch(sample_prices[:4], warmup=105 - num_valid)
    assert objective.loss(objective(encoder, batch, seeded())).isfinite()


def test_state_survives_a_round_trip(objective: Objective, encoder: Encoder, batch: Batch) -> None:
    encoder.eval(), objective.eval()
    before = objective(encoder, batch, seeded()).huber_K
    state = {name: tensor.clone() for name, tensor in objective.state_dict().items()}
    with torch.no_grad():
        for p in objective.parameters():
            p.add_(1.0)
    objective.load_state_dict(state)
    assert torch.equal(objective(encoder, batch, seeded()).huber_K, before)


def test_errors_add_up_however_windows_are_batched(
    objective: Objective, encoder: Encoder, sample_prices: np.ndarray
) -> None:
    encoder.eval(), objective.eval()
    batch = make_batch(sample_prices[:16])
    drawn = objective.draw(batch, seeded())

    def errors(part: slice) -> Errors:
        some = Batch(batch.x_BTF[part], batch.prices_BT4[part], batch.index[part], 20)
        h = encoder.encode(objective.encoder_input(encoder, some, drawn[part], seeded()))
        return objective.errors(encoder, h, some, drawn[part])

    whole, total = errors(slice(None)), errors(slice(0, 5)) + errors(slice(5, 16))
    torch.testing.assert_close(total.huber_K, whole.huber_K)
    torch.testing.assert_close(objective.huber(total), objective.huber(whole))
    torch.testing.assert_close(objective.loss(total), objective.loss(whole))


def test_skill_is_zero_for_the_best_baseline_itself_and_one_for_the_truth(
    objective: Objective, encoder: Encoder, batch: Batch
) -> None:
    objective.fit_baselines(encoder, [batch], seeded(3))
    drawn = objective.draw(batch, seeded(4))
    baselines = objective.baseline_errors(encoder, batch, drawn)
    named = list(objective.weights) if isinstance(objective, WeightedSum) else [""]
    each = [
        min((e for r, e in baselines.items() if r.startswith(name)), key=lambda e: float(e.huber())) for name in named
    ]
    best = Errors(*(torch.cat([getattr(e, k) for e in each]) for k in ("huber_K", "absolute_K", "count_K")))
    assert objective.skills(best, baselines)[""] == pytest.approx(0)
    perfect = Errors(torch.zeros_like(best.huber_K), best.absolute_K, best.count_K)
    found = objective.skills(perfect, baselines)
    assert set(found.values()) == {1.0}
    assert set(found) == {"", *objective.targets, *(name for name, members in objective.groups.items() if members)}


def test_an_objective_that_hides_steps_lets_nothing_of_them_through(
    objective: Objective, encoder: Encoder, batch: Batch
) -> None:
    if not objective.checks_leak:
        pytest.skip("no hidden steps in this objective")
    sensitivity = leak(objective, encoder, batch, seeded)
    assert (sensitivity > 0) if objective.identity else (sensitivity == 0.0)


Input = Callable[[Encoder, Batch, torch.Tensor, torch.Generator], torch.Tensor]


def shows_one_step(honest: Input) -> Input:
    return lambda encoder, batch, drawn, g: honest(encoder, batch, drawn & (torch.arange(105) != 50), g)


def shows_in_training_only(honest: Input) -> Input:
    def look(encoder: Encoder, batch: Batch, drawn: torch.Tensor, g: torch.Generator) -> torch.Tensor:
        return encoder.standardise(batch.x_BTF) if encoder.training else honest(encoder, batch, drawn, g)

    return look


def reads_prices(honest: Input) -> Input:
    def look(encoder: Encoder, batch: Batch, drawn: torch.Tensor, g: torch.Generator) -> torch.Tensor:
        return honest(encoder, batch, drawn, g) + (batch.prices_BT4[..., :1].float() - 4000) * drawn[..., None]

    return look


def loses_a_number(honest: Input) -> Input:
    return lambda encoder, batch, drawn, g: honest(encoder, batch, drawn, g) * torch.nan


@pytest.mark.parametrize("fault", [shows_one_step, shows_in_training_only, reads_prices, loses_a_number])
def test_the_leak_check_notices_every_way_for_hidden_input_to_show_through(
    encoder: Encoder, batch: Batch, fault: Callable[[Input], Input]
) -> None:
    objective = build_objective(ObjectiveConfig(), NAMES, 16)
    objective.encoder_input = fault(objective.encoder_input)  # type: ignore[method-assign]
    assert leak(objective, encoder, batch, seeded) > 0


def test_the_leak_check_notices_a_mask_that_depends_on_what_it_hides(encoder: Encoder, batch: Batch) -> None:
    objective = build_objective(ObjectiveConfig(), NAMES, 16)
    objective.draw = lambda batch, generator: batch.x_BTF[..., 2] > 0.9  # type: ignore[method-assign]
    assert leak(objective, encoder, batch, seeded) == float("inf")


def test_the_leak_check_leaves_modes_and_random_numbers_as_they_were(encoder: Encoder, batch: Batch) -> None:
    objective = build_objective(ObjectiveConfig(), NAMES, 16)
    encoder.train(), objective.eval()
    torch.manual_seed(3)
    leak(objective, encoder, batch, seeded)
    assert (encoder.training, objective.training) == (True, False)


def test_an_unknown_objective_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'masked'"):
        build_objective(ObjectiveConfig(name="maskd"), NAMES, 16)


def test_every_key_of_the_configuration_reaches_the_objective() -> None:
    config = ObjectiveConfig(
        mask_strategy="patch", mask_ratio=0.3, mask_patch=7, uncertainty=True, log_sigma_min=-5.5, units="raw",
        jitter_sigma=0.2, hide_masked=False,
    )  # fmt: skip
    built = build_objective(config, NAMES, 16)
    assert (built.block, built.ratio, built.log_sigma_min, built.units) == (7, 0.3, -5.5, "raw")
    assert (built.jitter_sigma, built.hide, built.log_sigma is not None) == (0.2, False, True)
    assert build_objective(ObjectiveConfig(name="price_path", jitter_sigma=0.2), NAMES, 16).jitter_sigma == 0.2
