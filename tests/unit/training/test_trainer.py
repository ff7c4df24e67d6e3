"""The training loop: schedule, stopping, determinism, checkpoints and what it says when numbers go wrong."""

from __future__ import annotations

import inspect
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from precisions import PRECISIONS, needs_bf16
from small_trainings import histories, make_trainer, resumed, small_windows, weights
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent

from moola_mlflow.cli.progress import TrainingDisplay, epoch_line
from moola_mlflow.core.errors import TrainingError, UserError
from moola_mlflow.models.files import checkpoint
from moola_mlflow.models.files.encoder import load_from_path
from moola_mlflow.tracking.recovery import stale_runs
from moola_mlflow.training.distributed import PeerLost, World
from moola_mlflow.training.events import EpochEnded


@pytest.fixture(scope="module")
def windows():
    return small_windows()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_same_seed_gives_identical_weights_and_metrics_and_another_seed_others(
    windows, tmp_path, precision
) -> None:
    runs = []
    for i, seed in enumerate((17, 17, 23)):
        trainer = make_trainer(windows, tmp_path / str(i), precision, **{"trainer.seed": seed, "trainer.epochs": 2})
        trainer.fit()
        runs.append((weights(trainer), histories(trainer)))
    assert runs[0][1] == runs[1][1]
    assert all(torch.equal(runs[0][0][name], runs[1][0][name]) for name in runs[0][0])
    assert runs[0][1] != runs[2][1]
    assert not torch.equal(runs[0][0]["encoder.layers.0.weight_ih_l0"], runs[2][0]["encoder.layers.0.weight_ih_l0"])


@needs_bf16
def test_training_lowers_the_huber_and_half_precision_follows_single(windows, tmp_path) -> None:
    hubers = {}
    for precision in ("fp32", "bf16"):
        trainer = make_trainer(windows, tmp_path / precision, precision)
        hubers[precision] = [row["val/huber"] for row in trainer.fit().progress.history]
        assert hubers[precision][-1] < hubers[precision][0]
    assert hubers["bf16"][-1] == pytest.approx(hubers["fp32"][-1], rel=0.01)


def test_the_learning_rate_warms_up_linearly_and_ends_at_a_tenth(windows, tmp_path) -> None:
    trainer = make_trainer(windows, tmp_path, **{"trainer.epochs": 20, "schedule.warmup_epochs": 5})
    rates = [trainer._lr_factor(step) for step in range(20 * trainer.steps)]
    warmup = 5 * trainer.steps
    np.testing.assert_allclose(rates[:warmup], np.arange(1, warmup + 1) / warmup)
    assert rates[warmup] == 1.0
    assert np.all(np.diff(rates[warmup:]) < 0)
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)


def test_training_stops_when_patience_is_over_and_keeps_the_best_epoch(windows, tmp_path) -> None:
    trainer = make_trainer(windows, tmp_path, **{"trainer.epochs": 30, "trainer.patience": 2, "optimizer.lr": 0.5})
    progress = trainer.fit().progress
    hubers = [row["val/huber"] for row in progress.history]
    assert len(hubers) < 30
    assert progress.best_epoch == int(np.argmin(hubers)) == len(hubers) - 1 - 2
    assert checkpoint.load_checkpoint(tmp_path / checkpoint.BEST_CHECKPOINT)["epoch"] == progress.best_epoch


def test_checkpoints_hold_what_users_read_and_rank_the_three_best(windows, tmp_path) -> None:
    trainer = make_trainer(windows, tmp_path, **{"trainer.epochs": 5})
    history = trainer.fit().progress.history
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint_best.pt", "checkpoint_latest.pt", "checkpoint_previous.pt",
        "checkpoint_top_1.pt", "checkpoint_top_2.pt", "checkpoint_top_3.pt", "manifest.json", "states",
    ]  # fmt: skip
    best = torch.load(tmp_path / checkpoint.BEST_CHECKPOINT, map_location="cpu")
    assert {
        "epoch",
        "model_state_dict",
        "optimizer_state_dict",
        "scheduler",
        "rng",
        "metrics",
        "config",
        "seed",
        "run_id",
    } <= set(best)
    assert best["metrics"]["val_loss"] == history[best["epoch"]]["val/loss"]
    assert "val_mae" in best["metrics"]
    assert any("encoder" in key for key in best["model_state_dict"])
    ranked = np.argsort([row["val/huber"] for row in history], kind="stable")[:3].tolist()
    assert [torch.load(tmp_path / f"checkpoint_top_{i}.pt")["epoch"] for i in (1, 2, 3)] == ranked
    assert torch.load(tmp_path / checkpoint.LATEST_CHECKPOINT)["epoch"] == 4


def test_a_checkpoint_gives_the_encoder_back(windows, tmp_path) -> None:
    trainer = make_trainer(windows, tmp_path, **{"trainer.epochs": 1})
    trainer.fit()
    encoder = load_from_path(tmp_path / checkpoint.LATEST_CHECKPOINT)
    x = torch.rand(2, 105, 11)
    assert torch.equal(encoder(x), trainer.model.encoder.eval()(x))
    assert encoder.card["architecture"]["input_size"] == 11


@pytest.mark.parametrize(("features", "size"), [("relativity10", 10), ("relativity11", 11), ("relativity12", 12)])
def test_the_encoders_input_size_follows_from_the_feature_set(windows, tmp_path, features, size) -> None:
    trainer = make_trainer(windows, tmp_path, **{"features.set": features, "trainer.epochs": 1})
    trainer.fit()
    state = torch.load(tmp_path / checkpoint.LATEST_CHECKPOINT)["model_state_dict"]
    assert state["encoder.layers.0.weight_ih_l0"].shape[1] == state["encoder.mean"].shape[0] == size


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04truncated"])
def test_a_broken_checkpoint_is_refused_without_a_traceback(tmp_path, content) -> None:
    path = tmp_path / "c.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a readable checkpoint"):
        checkpoint.load_checkpoint(path)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path) -> None:
    path = tmp_path / "c.pt"
    torch.save({"model_state_dict": Path("/")}, path)
    with pytest.raises(UserError, match="not a readable checkpoint"):
        checkpoint.load_checkpoint(path)


def test_a_loss_that_is_no_number_stops_with_the_step_the_batch_and_the_features(windows, tmp_path) -> None:
    trainer = make_trainer(windows, tmp_path)
    with torch.no_grad():
        trainer.model.encoder.layers[0].weight_ih_l0[0, 0] = math.nan
    with pytest.raises(
        TrainingError, match=r"epoch 1, step 1 of \d+ \(batch of 16 windows starting 20.*largest \|z\|.*lower"
    ):
        trainer.fit()


def test_a_request_to_stop_ends_after_the_step_and_saves_where_it_is(windows, tmp_path) -> None:
    trainer = make_trainer(windows, tmp_path)
    asked = iter([None, None, "SIGINT"])
    trainer.should_stop = lambda: next(asked)
    assert trainer.fit().stopped == "SIGINT"
    state = checkpoint.load_checkpoint(tmp_path / checkpoint.LATEST_CHECKPOINT)
    assert (state["progress"]["epoch"], state["progress"]["step"]) == (0, 3)
    assert torch.equal(state["rng"]["draws"], trainer.draws.get_state())


class Lossy(World):
    """A world whose peer is gone when the processes agree for the third time."""

    def __init__(self) -> None:
        super().__init__()
        self.agreed = 0

    def agree(self, reason: str | None) -> str | None:
        self.agreed += 1
        if self.agreed == 3:
            raise PeerLost("another process is gone")
        return reason


def test_a_training_whose_peer_was_lost_goes_on_with_the_means_of_whole_epochs(windows, tmp_path) -> None:
    whole = make_trainer(windows, tmp_path / "whole", **{"trainer.epochs": 2})
    whole.fit()
    cut = make_trainer(windows, tmp_path / "cut", **{"trainer.epochs": 2})
    cut.engine.world = Lossy()
    with pytest.raises(PeerLost):
        cut.fit()
    on = resumed(windows, tmp_path / "cut", **{"trainer.epochs": 2})
    assert (on.progress.epoch, on.progress.step) == (0, 3)
    on.fit()
    assert histories(on) == histories(whole)


def test_a_gpu_is_asked_for_nothing_once_a_peer_is_lost(windows, tmp_path, monkeypatch) -> None:
    trainer = make_trainer(windows, tmp_path)
    world = Lossy()

    def agree(reason: str | None) -> str | None:
        if world.agreed == 2:  # from here on as on a GPU: whatever is read waits for a sum that never ends
            trainer.device = torch.device("cuda", 0)
            monkeypatch.setattr(trainer, "state", lambda: pytest.fail("the state was read"))
            monkeypatch.setattr(torch.Tensor, "tolist", lambda self: pytest.fail("a tensor was read"))
        return Lossy.agree(world, reason)

    monkeypatch.setattr(trainer.engine.world, "agree", agree)
    with pytest.raises(PeerLost):
        trainer.fit()
    assert not list(tmp_path.glob("*.pt"))


def test_the_others_wait_for_longer_than_torchrun_leaves_a_process_that_hangs() -> None:
    left = inspect.signature(LocalElasticAgent).parameters["shutdown_timeout"].default
    assert left < stale_runs.PATIENCE_S


def test_windows_a_epoch_are_a_permutation_that_changes_with_the_epoch(windows, tmp_path) -> None:
    trainer = make_trainer(windows, tmp_path, **{"trainer.epochs": 2})
    seen: list[list[int]] = []
    batches = trainer.source.batches

    def spy(order: np.ndarray, batch_size: int, *more: object):
        if batch_size == 16:
            seen.append(order.tolist())
        return batches(order, batch_size, *more)

    object.__setattr__(trainer.source, "batches", spy)
    trainer.fit()
    assert sorted(seen[0]) == sorted(seen[1]) == trainer.split.train.tolist()
    assert seen[0] != seen[1]


def test_evaluation_does_not_depend_on_what_was_drawn_before(windows, tmp_path) -> None:
    trainer = make_trainer(windows, tmp_path)
    first = trainer.evaluation.scores("val")
    torch.rand(100, generator=trainer.draws)
    torch.rand(100)
    assert trainer.evaluation.scores("val") == first


def test_the_plain_line_has_the_published_form(capsys) -> None:
    metrics = {
        "train/loss": 0.000039,
        "val/loss": -4.750224,
        "lr": 0.00011,
        "epoch_seconds": 86.12,
        "val/huber": 0.1,
        "val/skill": 0.5,
    }
    line = epoch_line(EpochEnded(11, 20, metrics, True))
    assert line == (
        "Epoch  12 | Train Loss: 0.000039 | Val Loss: -4.750224 | LR: 0.000110 | Time: 86.1s | "
        "Huber: 0.100000 | Skill: 0.5000"
    )
    with TrainingDisplay(20, 10) as display:
        display(EpochEnded(11, 20, metrics, True))
    assert capsys.readouterr().out == line + "\n"
