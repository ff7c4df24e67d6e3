"""Numbers gone wrong: named down to feature and window, the last good checkpoint kept, and one way back."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_trainings import make_trainer, resumed, small_windows

from moola_mlflow.models.files import checkpoint
from moola_mlflow.training.events import EpochEnded, TrainingEvent, WentBack
from moola_mlflow.training.nan_report import NumbersWrong, gradient_norms
from moola_mlflow.training.trainer import Trainer
from moola_mlflow.windows.batches import Batch
from moola_mlflow.windows.windows import Windows
from tests.unit.models.test_price_path import NoDoubles


@pytest.fixture(scope="module")
def windows() -> Windows:
    return small_windows()


def spoil(trainer: Trainer, window: int, feature: int, when: Callable[[], bool]) -> None:
    """Have a feature of one window be no number, as long as ``when`` says so."""
    batches = trainer.source.batches

    def spoiled(*arguments: Any) -> Iterator[Batch]:
        for batch in batches(*arguments):
            if when():
                batch.x_BTF[torch.from_numpy(batch.index == window), 50:, feature] = math.nan
            yield batch

    object.__setattr__(trainer.source, "batches", spoiled)


def test_a_rate_beyond_reason_stops_with_a_diagnosis_that_is_json(windows: Windows, tmp_path: Path) -> None:
    trainer = make_trainer(windows, tmp_path, **{"optimizer.lr": 1e6, "schedule.warmup_epochs": 0})
    with pytest.raises(NumbersWrong, match=r"epoch 1, step \d+ of \d+.*lower optimizer.lr \(now 1e\+06\)") as caught:
        trainer.fit()
    found = json.loads(json.dumps(caught.value.diagnosis, allow_nan=False))
    assert found["epoch"] == 0
    assert found["windows_in_batch"] == 16
    assert len(found["windows"]) == 10
    assert {"encoder.layers.0", "encoder.layers.1", "objective.decoder"} <= set(found["gradient_norms"])
    assert len(found["features"]) == 11
    assert all(row["not_finite"] == 0 for row in found["features"])


def test_a_feature_that_is_no_number_is_named_with_its_window_and_earlier_epochs_stay(
    windows: Windows, tmp_path: Path
) -> None:
    trainer = make_trainer(windows, tmp_path)
    window = int(trainer.split.train[40])
    spoil(trainer, window, 3, lambda: trainer.progress.epoch == 1)
    with pytest.raises(NumbersWrong) as caught:
        trainer.fit()
    found, start = caught.value.diagnosis, str(np.datetime64(int(windows.start_ns[window]), "ns"))[:16]
    assert found["features"][0]["name"] == trainer.source.names[3]
    assert found["features"][0]["not_finite"] == 55
    assert [row["window"] for row in found["windows"] if not row["input_is_finite"]] == [window]
    assert found["windows"][0]["starts"] == start
    assert start in str(caught.value)
    assert trainer.source.names[3] in str(caught.value)
    assert checkpoint.load_checkpoint(tmp_path / checkpoint.LATEST_CHECKPOINT)["epoch"] == 0
    assert found["weights_not_finite"] == []  # it stopped before the step


def test_training_goes_back_once_to_its_last_good_epoch_at_half_the_rate(windows: Windows, tmp_path: Path) -> None:
    trainer = make_trainer(windows, tmp_path, **{"trainer.nan_retry": True, "trainer.epochs": 4})
    rates = make_trainer(windows, tmp_path / "other", **{"trainer.epochs": 4})
    events: list[TrainingEvent] = []
    trainer.subscribers = (lambda e: events.append(e) if isinstance(e, EpochEnded | WentBack) else None,)
    spoil(
        trainer, int(trainer.split.train[40]), 3,
        lambda: trainer.progress.epoch == 2 and not any(isinstance(e, WentBack) for e in events),
    )  # fmt: skip
    progress = trainer.fit().progress
    assert [type(e) for e in events] == [EpochEnded, EpochEnded, WentBack, EpochEnded, EpochEnded]
    back = events[2]
    assert isinstance(back, WentBack)
    assert (back.epoch, back.lr_scale, back.error.diagnosis["epoch"]) == (2, 0.5, 2)
    last = rates._lr_factor(3 * rates.steps - 1) * rates.settings.optimizer.lr
    assert progress.history[2]["lr"] == pytest.approx(last / 2)
    assert len(progress.history) == 4
    state = checkpoint.load_checkpoint(tmp_path / checkpoint.LATEST_CHECKPOINT)
    assert (state["epoch"], state["progress"]["lr_scale"]) == (3, 0.5)


def test_numbers_that_go_wrong_again_end_the_training(windows: Windows, tmp_path: Path) -> None:
    trainer = make_trainer(windows, tmp_path, **{"trainer.nan_retry": True})
    went_back: list[TrainingEvent] = []
    trainer.subscribers = (lambda e: went_back.append(e) if isinstance(e, WentBack) else None,)
    spoil(trainer, int(trainer.split.train[40]), 3, lambda: trainer.progress.epoch == 1)
    with pytest.raises(NumbersWrong):
        trainer.fit()
    assert len(went_back) == 1
    assert checkpoint.load_checkpoint(tmp_path / checkpoint.LATEST_CHECKPOINT)["epoch"] == 0


def test_a_training_that_went_back_keeps_its_rate_when_it_is_resumed(windows: Windows, tmp_path: Path) -> None:
    trainer = make_trainer(windows, tmp_path, **{"trainer.epochs": 4})
    trainer.progress.lr_scale = 0.5
    trainer.should_stop = lambda: "SIGTERM" if trainer.progress.epoch == 1 and trainer.progress.step == 3 else None
    trainer.fit()
    again = resumed(windows, tmp_path, **{"trainer.epochs": 4})
    assert again.optimizer.param_groups[0]["lr"] == trainer.optimizer.param_groups[0]["lr"]
    assert again.progress.lr_scale == 0.5


def test_what_a_gpu_notes_during_an_epoch_is_found_at_its_end(windows: Windows, tmp_path: Path) -> None:
    trainer = make_trainer(windows, tmp_path)
    trainer.watched = False  # as on a GPU: the host does not look at each step
    window = int(trainer.split.train[40])
    spoil(trainer, window, 3, lambda: True)
    with pytest.raises(NumbersWrong) as caught:
        trainer.fit()
    bad = [row["window"] for row in caught.value.diagnosis["windows"] if not row["input_is_finite"]]
    assert bad == [window]
    assert not list(tmp_path.glob("*.pt"))


def test_gradients_on_a_device_without_doubles_are_measured() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2).as_subclass(NoDoubles))
    parameter.grad = torch.tensor([3.0, 4.0]).as_subclass(NoDoubles)
    assert gradient_norms([("layer.weight", parameter)]) == {"layer": 5.0}
