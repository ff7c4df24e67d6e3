"""Every figure of an evaluation, computed again in plain numpy; and which part of the split each step may look at."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from paths import ROOT
from small_trainings import trainer_of

from moola_mlflow.bars.reader import read_bars
from moola_mlflow.core import BarsConfig, PretrainKeys, make_config, read_preset
from moola_mlflow.core.errors import TrainingError
from moola_mlflow.core.runtime import EVALUATION, seeded_generator
from moola_mlflow.features.zigzag import Hybrid
from moola_mlflow.models.embedding import embed
from moola_mlflow.models.encoders import build_encoder
from moola_mlflow.models.files import checkpoint
from moola_mlflow.models.files.encoder import describe_encoder
from moola_mlflow.training.schedule import lr_factor
from moola_mlflow.training.trainer import Trainer
from moola_mlflow.training.validation import EVALUATION_BATCH
from moola_mlflow.windows.batches import Batch, BatchSource, fit_scaling
from moola_mlflow.windows.windows import Windows, make_windows


@pytest.fixture(scope="module")
def windows() -> Windows:
    return make_windows(read_bars(BarsConfig(sample_bars=20_000)))


def make_trainer(windows: Windows, folder: Path, preset: str, **overrides: object) -> Trainer:
    small = {"encoder.hidden": 8, "trainer.epochs": 2, "trainer.batch_size": 48, **overrides}
    return trainer_of(
        make_config(PretrainKeys, read_preset(ROOT / "configs" / f"{preset}.yaml"), small), windows, folder
    )


def numpy_huber(error: np.ndarray) -> np.ndarray:
    size = np.abs(error)
    return np.where(size <= 1, 0.5 * size**2, size - 0.5)


def numpy_baselines(z: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Mean, last visible and interpolation at every step, window by window. Shapes: [N, T, F]."""
    last, line = np.zeros_like(z), np.zeros_like(z)
    for n in range(len(z)):
        visible = np.flatnonzero(~mask[n])
        for f in range(z.shape[2]):
            line[n, :, f] = np.interp(np.arange(z.shape[1]), visible, z[n, visible, f])
        carried = np.zeros(z.shape[2])
        for t in range(z.shape[1]):
            carried = carried if mask[n, t] else z[n, t]
            last[n, t] = carried
    return {"feature mean": np.zeros_like(z), "last visible": last, "interpolation": line}


def numpy_ridge_inputs(z: np.ndarray, mask: np.ndarray) -> np.ndarray:
    rows = []
    for n, t in np.argwhere(mask):
        before = [i for i in range(t) if not mask[n, i]][-5:]
        after = [i for i in range(t + 1, z.shape[1]) if not mask[n, i]][:5]
        pad = np.zeros(z.shape[2])
        rows.append([*[pad] * (5 - len(before)), *z[n, before], *z[n, after], *[pad] * (5 - len(after)), [1.0]])
    return np.array([np.concatenate(row) for row in rows])


@pytest.mark.parametrize("preset", ["stones", "published", "jade10"])
def test_every_score_equals_its_plain_definition(windows: Windows, tmp_path: Path, preset: str) -> None:
    trainer = make_trainer(windows, tmp_path, preset)
    trainer.fit()
    found = trainer.evaluation.scores("test")
    objective, encoder = trainer.model.objective.eval(), trainer.model.encoder.eval()
    raw_units = trainer.model.objective.units == "raw"
    mean, std = encoder.mean.double().numpy(), encoder.std.double().numpy()

    def drawn(x: torch.Tensor, purpose: tuple[int, ...]) -> np.ndarray:
        g, prices = seeded_generator(17, *purpose), torch.zeros(0)
        parts = [objective.draw(Batch(b, prices, np.arange(len(b)), 20), g) for b in x.split(EVALUATION_BATCH)]
        return torch.cat(parts).numpy()

    x = torch.from_numpy(trainer.source.features(trainer.split.test))
    mask = drawn(x, (EVALUATION, 1))
    z = (x.double().numpy() - mean) / std
    seen = torch.from_numpy(z).float()
    if trainer.model.objective.hide:
        seen[torch.from_numpy(mask)] = objective.mask_token.detach()
    with torch.no_grad():
        h = seen
        for lstm in encoder.layers:
            h, _ = lstm(h)
        predicted = (h @ objective.decoder.weight.T + objective.decoder.bias).double().numpy()[mask]
    target = (x.double().numpy() if raw_units else z)[mask]
    huber = numpy_huber(predicted - target)
    absolute = np.abs(predicted - target) * (1 if raw_units else std)

    train = torch.from_numpy(trainer.source.features(trainer.split.train))
    train_mask, train_z = drawn(train, (3,)), (train.double().numpy() - mean) / std
    inputs = numpy_ridge_inputs(train_z, train_mask)
    penalty = np.eye(inputs.shape[1])
    penalty[-1, -1] = 0
    weights = np.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ train_z[train_mask])
    baselines = {name: value[mask] for name, value in numpy_baselines(z, mask).items()}
    baselines["ridge"] = numpy_ridge_inputs(z, mask) @ weights
    baseline_huber = {
        name: numpy_huber((value * std + mean if raw_units else value) - target).mean(0)
        for name, value in baselines.items()
    }

    def skill(columns: list[int]) -> float:
        return 1 - huber[:, columns].mean() / min(value[columns].mean() for value in baseline_huber.values())

    width = len(objective.targets)
    expected = {"huber": huber.mean(), "mae": absolute.mean(), "loss_profiled": 0.5 + 0.5 * math.log(huber.mean())}
    expected |= {"skill": skill(list(range(width))), "skill_candle": skill(list(range(5)))}
    expected |= {"skill_state": skill(list(range(5, width)))}
    log_sigma = None if objective.log_sigma is None else float(objective.log_sigma.detach())
    expected["loss"] = huber.mean()
    if log_sigma is not None:
        expected["loss"] = huber.mean() / (2 * math.exp(2 * log_sigma)) + log_sigma
    for i, name in enumerate(objective.targets):
        expected |= {f"mae_{name}": absolute[:, i].mean(), f"skill_{name}": skill([i])}
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=2e-3, abs=2e-4)
    assert trainer.evaluation.baseline_hubers("test") == pytest.approx(
        {name: value.mean() for name, value in baseline_huber.items()}, rel=2e-3
    )


def test_each_step_looks_at_its_own_part_of_the_split_alone(windows: Windows, tmp_path: Path) -> None:
    trainer = make_trainer(windows, tmp_path, "stones")
    parts = {name: set(getattr(trainer.split, name).tolist()) for name in ("train", "val", "test")}
    looked: list[set[int]] = []
    batches = trainer.source.batches

    def spy(order: np.ndarray, batch_size: int, *more: object):  # type: ignore[no-untyped-def]
        looked.append(set(order.tolist()))
        return batches(order, batch_size, *more)

    object.__setattr__(trainer.source, "batches", spy)
    trainer.evaluation.fit_baselines()
    assert all(seen == parts["train"] for seen in looked)
    looked.clear()
    trainer.fit()
    assert looked == [parts["train"], parts["val"]] * 2
    looked.clear()
    trainer.evaluation.leak()
    assert looked[0] <= parts["val"]
    looked.clear()
    trainer.evaluation.scores("test")
    assert looked == [parts["test"]]


def test_the_best_epoch_is_chosen_by_huber_and_its_loss_is_the_best_val_loss(windows: Windows, tmp_path: Path) -> None:
    trainer = make_trainer(windows, tmp_path, "published", **{"trainer.epochs": 4, "optimizer.lr": 0.02})
    progress = trainer.fit().progress
    assert progress.best_epoch == int(np.argmin([row["val/huber"] for row in progress.history]))


def test_training_steps_draw_new_masks_and_evaluations_the_same(windows: Windows, tmp_path: Path) -> None:
    trainer = make_trainer(windows, tmp_path, "stones")
    masks: list[torch.Tensor] = []
    draw = trainer.model.objective.draw

    def spy(batch: Batch, g: torch.Generator) -> torch.Tensor:
        masks.append(draw(batch, g))
        return masks[-1]

    trainer.model.objective.draw = spy  # type: ignore[method-assign]
    trainer.fit()
    train = [mask for mask in masks if len(mask) == 48]
    assert not any(torch.equal(a, b) for a, b in pairwise(train))
    evaluated = [mask for mask in masks if len(mask) == len(trainer.split.val)]
    assert torch.equal(evaluated[0], evaluated[1])


def test_the_optimiser_is_the_specified_one_and_gradients_are_clipped(windows: Windows, tmp_path: Path) -> None:
    trainer = make_trainer(windows, tmp_path, "stones", **{"trainer.clip_norm": 1e-3})
    for group, decay in zip(trainer.optimizer.param_groups, (1e-2, 0.0), strict=True):
        assert (group["betas"], group["weight_decay"]) == ((0.9, 0.999), decay)
        assert all((p.ndim >= 2) == (decay > 0) for p in group["params"])
    assert sum(len(group["params"]) for group in trainer.optimizer.param_groups) == len(
        list(trainer.model.parameters())
    )
    norms: list[float] = []
    step = trainer.optimizer.step

    def spy(*arguments: object, **named: object) -> object:
        norms.append(float(torch.stack([p.grad.norm() for p in trainer.model.parameters()]).norm()))  # type: ignore[union-attr]
        return step(*arguments, **named)

    trainer.optimizer.step = spy  # type: ignore[method-assign]
    trainer.fit()
    assert max(norms) <= 1.01e-3


@pytest.mark.parametrize("epochs", [1, 2, 20])
def test_warm_up_never_takes_more_than_half_of_a_run(windows: Windows, tmp_path: Path, epochs: int) -> None:
    trainer = make_trainer(windows, tmp_path, "stones", **{"trainer.epochs": epochs})
    total = trainer.steps * epochs
    rates = [trainer._lr_factor(step) for step in range(total)]
    assert int(np.argmax(rates)) == min(5 * trainer.steps, total // 2) - 1
    assert lr_factor(0, 100, 0, 0.1) == 1.0


def test_the_logged_learning_rate_is_that_of_the_epochs_last_step(windows: Windows, tmp_path: Path) -> None:
    trainer = make_trainer(windows, tmp_path, "stones")
    history = trainer.fit().progress.history
    last = [trainer.steps * (epoch + 1) - 1 for epoch in range(2)]
    assert [row["lr"] for row in history] == pytest.approx([1e-3 * trainer._lr_factor(step) for step in last])


def test_a_validation_that_is_no_number_never_becomes_the_best(windows: Windows, tmp_path: Path) -> None:
    trainer = make_trainer(windows, tmp_path, "stones", **{"trainer.epochs": 3})
    honest, calls = trainer.evaluation.scores, []

    def broken(part: str) -> dict[str, float]:
        calls.append(part)
        return honest(part) | ({"huber": math.nan} if len(calls) == 2 else {})

    trainer.evaluation.scores = broken  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match="val/huber is nan after epoch 2"):
        trainer.fit()
    assert checkpoint.load_checkpoint(tmp_path / checkpoint.BEST_CHECKPOINT)["epoch"] == 0


def test_training_and_serving_see_the_same_features_whatever_the_zigzag(windows: Windows) -> None:
    published = {"features.hybrid_lookback": 5, "features.hybrid_same_bar": True}
    seen = []
    for overrides, hybrid in (({}, Hybrid()), (published, Hybrid(5, 0.5, True))):
        config = make_config(PretrainKeys, {}, overrides)
        source = BatchSource(windows, "relativity11", hybrid, 20, torch.device("cpu"))
        order = np.arange(10)
        torch.manual_seed(0)
        encoder = build_encoder("bilstm", 11, 4, 1, 0.0).eval()
        encoder.card = describe_encoder(config, encoder)
        (batch,) = source.batches(order, 10)
        assert np.array_equal(batch.x_BTF.numpy(), source.features(order))
        with torch.no_grad():
            assert torch.equal(embed(encoder, windows.gather(order), "none"), encoder(batch.x_BTF))
        seen.append(batch.x_BTF)
    assert not torch.equal(*seen)


def test_scaling_is_fitted_on_valid_steps_only() -> None:
    x = np.random.default_rng(0).normal(size=(50, 30, 2)).astype(np.float32)
    x[:, :5] = 100
    mean, std = fit_scaling(x, 5)
    np.testing.assert_allclose(mean, x[:, 5:].mean((0, 1)), atol=1e-5)
    np.testing.assert_allclose(std, x[:, 5:].std((0, 1)), atol=1e-5)
