"""Masked reconstruction: what is hidden, what is scored, and the baselines it is measured against."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moola_mlflow.core import ObjectiveConfig
from moola_mlflow.models.encoders import build_encoder
from moola_mlflow.models.objectives.baselines import interpolate, last_visible
from moola_mlflow.models.objectives.masked import Masked
from moola_mlflow.windows.batches import Batch


def blank_batch(num_windows: int, num_steps: int, warmup: int) -> Batch:
    return Batch(
        torch.zeros(num_windows, num_steps, 3), torch.zeros(num_windows, num_steps, 4), np.arange(num_windows), warmup
    )


def masked(**settings: object) -> Masked:
    return Masked(("a", "b", "c"), 4, ObjectiveConfig(**settings))  # type: ignore[arg-type]


@given(
    ratio=st.floats(0.01, 0.99),
    patch=st.integers(1, 40),
    strategy=st.sampled_from(["random", "patch"]),
    num_steps=st.integers(2, 120),
    data=st.data(),
)
def test_exactly_the_asked_share_of_valid_steps_is_hidden_and_none_of_the_warm_up(
    ratio: float, patch: int, strategy: str, num_steps: int, data: st.DataObject
) -> None:
    warmup = data.draw(st.integers(0, num_steps - 1))
    objective = masked(mask_strategy=strategy, mask_ratio=ratio, mask_patch=patch)
    mask = objective.draw(blank_batch(5, num_steps, warmup), torch.Generator().manual_seed(0))
    assert (mask.sum(1) == max(1, round(ratio * (num_steps - warmup)))).all()
    assert not mask[:, :warmup].any()


def test_patches_are_whole_blocks_but_for_the_last_and_the_edges() -> None:
    objective = masked(mask_strategy="patch", mask_ratio=0.4, mask_patch=10)
    mask = objective.draw(blank_batch(500, 105, 20), torch.Generator().manual_seed(1)).int().numpy()
    padded = np.pad(mask, ((0, 0), (1, 1)))
    ends, starts = np.flatnonzero(np.diff(padded.ravel()) == -1), np.flatnonzero(np.diff(padded.ravel()) == 1)
    lengths = ends - starts
    assert (lengths >= 10).mean() > 0.5
    assert lengths.mean() > 8


def test_every_valid_step_is_hidden_equally_often() -> None:
    for settings in ({"mask_ratio": 0.15}, {"mask_strategy": "patch", "mask_ratio": 0.4, "mask_patch": 10}):
        mask = masked(**settings).draw(blank_batch(20_000, 105, 20), torch.Generator().manual_seed(2))
        share = mask[:, 20:].float().mean(0)
        # Blocks cut by the window's edges make the edges a little rarer; the middle must be level.
        assert share[10:-10].std() < 0.01
        assert share.min() > 0.6 * share.mean()


def test_loss_gradient_at_visible_positions_is_exactly_zero() -> None:
    objective = masked(mask_ratio=0.3)
    encoder = build_encoder("bilstm", 3, 2, 1, 0.0)
    batch = Batch(torch.randn(6, 50, 3), torch.zeros(6, 50, 4), np.arange(6), 5)
    h = torch.randn(6, 50, 4, requires_grad=True)
    drawn = objective.draw(batch, torch.Generator().manual_seed(0))
    objective.errors(encoder, h, batch, drawn).huber().backward()
    assert h.grad is not None
    assert h.grad[~drawn].abs().sum() == 0
    assert (h.grad[drawn].abs().sum(-1) > 0).all()


@pytest.mark.parametrize("fill", [False, True])
def test_errors_are_finite_with_no_step_and_with_every_step_hidden(fill: bool) -> None:
    objective, encoder = masked(uncertainty=True), build_encoder("bilstm", 3, 2, 1, 0.0)
    batch = Batch(torch.randn(2, 30, 3), torch.zeros(2, 30, 4), np.arange(2), 5)
    drawn = torch.full((2, 30), fill)
    h = encoder.encode(objective.encoder_input(encoder, batch, drawn, torch.Generator()))
    loss = objective.total(objective.errors(encoder, h, batch, drawn).huber())
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in objective.parameters())
    baselines = {"last": last_visible(batch.x_BTF, drawn), "line": interpolate(batch.x_BTF, drawn)}
    assert all(value.isfinite().all() for value in baselines.values())


def test_hidden_steps_are_the_token_and_visible_steps_the_jittered_input_in_training_only() -> None:
    objective, encoder = masked(mask_ratio=0.3, jitter_sigma=0.5), build_encoder("bilstm", 3, 2, 1, 0.0)
    torch.nn.init.constant_(objective.mask_token, 7.0)
    batch = Batch(torch.randn(4, 60, 3), torch.zeros(4, 60, 4), np.arange(4), 5)
    drawn = objective.draw(batch, torch.Generator().manual_seed(0))
    objective.train()
    seen = objective.encoder_input(encoder, batch, drawn, torch.Generator().manual_seed(1)).detach()
    assert (seen[drawn] == 7.0).all()
    assert float((seen - batch.x_BTF)[~drawn].std()) == pytest.approx(0.5, rel=0.2)
    objective.eval()
    seen = objective.encoder_input(encoder, batch, drawn, torch.Generator().manual_seed(1))
    assert torch.equal(seen[~drawn], batch.x_BTF[~drawn])


def test_log_sigma_stops_at_its_floor_and_can_come_back() -> None:
    objective = masked(uncertainty=True, log_sigma_min=-3.0)
    assert objective.log_sigma is not None
    with torch.no_grad():
        objective.log_sigma.fill_(-9.0)
    loss = objective.total(torch.tensor(5.0))
    assert objective.sigma() == pytest.approx(math.exp(-3))
    loss.backward()
    assert objective.log_sigma.grad is not None
    assert objective.log_sigma.grad < 0  # a step against it raises sigma


def test_the_best_sigma_gives_the_profiled_loss() -> None:
    objective = masked(uncertainty=True, log_sigma_min=-6.0)
    assert objective.log_sigma is not None
    huber = torch.tensor(2.75e-5)
    with torch.no_grad():
        objective.log_sigma.copy_(0.5 * huber.log())
    assert float(objective.total(huber).detach()) == pytest.approx(-4.75, abs=0.01)  # the published loss
    assert math.sqrt(2 * float(huber)) == pytest.approx(0.0074, abs=1e-4)  # is this root mean square error
