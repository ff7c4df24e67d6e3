"""Training on rules end to end: steps, mirroring, task heads on disk, raw windows in and encodings out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from precisions import PRECISIONS

from moola_mlflow.core import PretrainKeys, make_config, read_preset
from moola_mlflow.core.errors import UserError
from moola_mlflow.models.embedding import embed
from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.files.checkpoint import LATEST_CHECKPOINT, Checkpointer, about_training, load_checkpoint
from moola_mlflow.models.files.encoder import describe_encoder, load_from_path, save_encoder
from moola_mlflow.models.task_heads import TASK_HEADS
from moola_mlflow.training.schedule import one_cycle_factor
from moola_mlflow.training.setup import TrainingData, build_model, build_trainer, prepare
from moola_mlflow.training.trainer import Trainer

STEPS = 23
ROOT = Path(__file__).parents[3]


def small(**over: Any) -> PretrainKeys:
    keys = {
        "bars.sample_bars": 12_000, "encoder.hidden": 8, "objective.num_rules": 8, "objective.rules_per_step": 4,
        "trainer.steps": STEPS, "runtime.precision": "fp32", "runtime.shards": 1, **over,
    }  # fmt: skip
    return make_config(PretrainKeys, read_preset(ROOT / "configs" / "rules.yaml"), keys)


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return prepare(small(), torch.device("cpu"))


def trainer_of(data: TrainingData, folder: Path, **over: Any) -> Trainer:
    config = small(**over)
    trainer = build_trainer(config, data, "fp32", Checkpointer(folder, about_training(config, "")))
    trainer.evaluation.fit_baselines()
    return trainer


@pytest.fixture(scope="module")
def trained(data: TrainingData, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    trainer = trainer_of(data, tmp_path_factory.mktemp("rules"))
    assert trainer.fit().stopped is None
    return trainer


def state_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def test_a_budget_of_steps_ends_in_the_middle_of_an_epoch(trained: Trainer) -> None:
    assert STEPS % trained.steps > 0
    assert trained.scheduler.last_epoch == STEPS
    assert trained.progress.epoch == trained.epochs == -(-STEPS // trained.steps)


def test_every_epoch_logs_the_loss_on_held_windows_and_on_fresh_rules(trained: Trainer) -> None:
    for metrics in trained.progress.history:
        assert metrics["val/huber"] > 0
        assert metrics["rules/few_shot"] > 0
    assert trained.progress.history[-1]["train/loss"] < trained.progress.history[0]["train/loss"]


def test_training_goes_on_from_a_checkpoint_with_the_same_bits(
    data: TrainingData, trained: Trainer, tmp_path: Path
) -> None:
    first = trainer_of(data, tmp_path)
    steps = iter(range(10**6))
    first.should_stop = lambda: "test" if next(steps) == 9 else None
    assert first.fit().stopped == "test"
    second = trainer_of(data, tmp_path / "on")
    second.restore(load_checkpoint(tmp_path / LATEST_CHECKPOINT))
    second.fit()
    for name, tensor in state_of(trained).items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name


def test_two_parts_of_a_batch_give_the_same_training_up_to_rounding(
    data: TrainingData, trained: Trainer, tmp_path: Path
) -> None:
    parted = trainer_of(data, tmp_path, **{"runtime.shards": 2})
    parted.fit()
    assert parted.engine.parts == 2
    losses = [trainer.progress.history[-1]["val/huber"] for trainer in (trained, parted)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_mirrored_batches_are_windows_upside_down_with_the_targets_of_the_windows(data: TrainingData) -> None:
    order = np.arange(64)
    plain = list(data.source.batches(order, 32))
    turned = list(data.source.batches(order, 32, flipped=np.array([False, True])))
    assert torch.equal(plain[0].x_BTF, turned[0].x_BTF)
    assert torch.equal(turned[1].prices_BT4, -plain[1].prices_BT4[..., [0, 2, 1, 3]])
    assert not torch.equal(plain[1].x_BTF, turned[1].x_BTF)
    net = data.source.input_names.index("price_path_net_past_5")
    assert torch.equal(turned[1].x_BTF[..., net], -plain[1].x_BTF[..., net])
    model = build_model(small(), data.source, data.mean, data.std)
    targets = model.objective
    targets.fit_targets(plain)
    assert np.array_equal(targets.rule_targets(plain[1]), targets.rule_targets(turned[1]))


def saved(trained: Trainer, folder: Path) -> Encoder:
    encoder = trained.model.encoder
    encoder.task_heads = trained.model.objective.task_heads()
    save_encoder(encoder, describe_encoder(small(), encoder), folder)
    return load_from_path(folder)


def test_a_saved_encoder_takes_raw_windows_and_has_its_task_heads(
    data: TrainingData, trained: Trainer, tmp_path: Path
) -> None:
    encoder = saved(trained, tmp_path / "encoder")
    batch = next(iter(data.source.batches(np.arange(5), 5)))
    trained.model.eval()
    with torch.no_grad():
        expected = trained.model.encoder(batch.x_BTF)
    assert torch.equal(embed(encoder, batch.prices_BT4.numpy(), "none"), expected)
    heads = encoder.task_heads
    assert heads is not None
    assert heads.names == tuple(rule.name for rule in trained.model.objective.rule_targets.rules)
    assert torch.equal(heads.pointers, trained.model.objective.pointers)
    assert torch.equal(heads.classes, trained.model.objective.classes)


def test_a_checkpoint_is_an_encoder_with_task_heads_too(trained: Trainer) -> None:
    encoder = load_from_path(trained.checkpointer.folder / LATEST_CHECKPOINT)
    assert encoder.task_heads is not None
    assert torch.equal(encoder.task_heads.pointers, trained.model.objective.pointers)


def test_a_broken_file_of_task_heads_is_refused(trained: Trainer, tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    saved(trained, folder)
    (folder / TASK_HEADS).write_bytes((folder / TASK_HEADS).read_bytes()[:100])
    with pytest.raises(UserError, match="not a readable encoder folder"):
        load_from_path(folder)


def test_an_encoder_of_features_alone_is_loaded_without_task_heads(trained: Trainer, tmp_path: Path) -> None:
    saved(trained, tmp_path / "encoder")
    (tmp_path / "encoder" / TASK_HEADS).unlink()
    assert load_from_path(tmp_path / "encoder").task_heads is None


def test_one_cycle_rises_from_a_twenty_fifth_and_falls_to_nearly_nothing() -> None:
    factors = [one_cycle_factor(step, 100) for step in range(100)]
    assert factors[0] == pytest.approx(0.04)
    assert factors[30] == pytest.approx(1, abs=1e-5)
    assert 0 < factors[-1] < 1e-4
    assert factors[:31] == sorted(factors[:31])
    assert factors[30:] == sorted(factors[30:], reverse=True)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_pictured_windows_are_numbers_of_numpy_in_every_precision(
    data: TrainingData, tmp_path: Path, precision: str
) -> None:
    config = small(**{"runtime.precision": precision})
    trainer = build_trainer(config, data, precision, Checkpointer(tmp_path, about_training(config, "")))
    predicted, target, where = trainer.evaluation.reconstruct(2)
    assert predicted.shape == target.shape == where.shape
    assert {predicted.dtype, target.dtype} == {np.dtype(np.float32)}
    assert where.dtype == bool
