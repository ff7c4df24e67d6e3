"""The state of a training: everything that the next step needs, refused if it is of another training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_trainings import make_trainer, resumed, small_windows, weights

from moola_mlflow.core.errors import UserError
from moola_mlflow.models.files import checkpoint


@pytest.fixture(scope="module")
def windows():
    return small_windows()


def test_a_state_that_was_restored_is_collected_again_as_it_was(windows, tmp_path) -> None:
    trainer = make_trainer(windows, tmp_path, **{"encoder.dropout": 0.3})
    trainer.should_stop = lambda: "SIGTERM" if trainer.progress.epoch == 1 and trainer.progress.step == 3 else None
    trainer.fit()
    saved, again = trainer.state(), resumed(windows, tmp_path, **{"encoder.dropout": 0.3})
    assert checkpoint.digest(again.state()) == checkpoint.digest(saved)
    assert (again.progress.epoch, again.progress.step) == (1, 3)


def test_what_a_checkpoint_says_of_its_training_is_no_part_of_the_state(windows, tmp_path) -> None:
    trainer = make_trainer(windows, tmp_path, **{"trainer.epochs": 1})
    trainer.fit()
    saved = checkpoint.load_checkpoint(tmp_path / checkpoint.LATEST_CHECKPOINT)
    assert set(saved) - set(trainer.state()) == {"config", "seed", "run_id", "ranking"}


def test_a_state_of_another_network_is_refused_with_the_keys_to_keep(windows, tmp_path) -> None:
    state = make_trainer(windows, tmp_path, **{"encoder.hidden": 4}).state()
    trainer = make_trainer(windows, tmp_path)
    with pytest.raises(UserError, match=r"makes another network.*keep encoder\.\*, features\.set and objective\.\*"):
        trainer.restore(state)


@pytest.mark.parametrize("part", ["progress", "scheduler", "scaler", "rng", "optimizer_state_dict"])
def test_a_state_that_lacks_a_part_is_refused_in_words(windows, tmp_path, part: str) -> None:
    trainer = make_trainer(windows, tmp_path)
    state = trainer.state()
    del state[part]
    with pytest.raises(UserError, match="training cannot go on from"):
        trainer.restore(state)


def test_a_state_of_another_kind_of_device_is_refused_in_words_before_anything_is_changed(windows, tmp_path) -> None:
    trained = make_trainer(windows, tmp_path, **{"trainer.epochs": 1})
    trained.fit()
    state = checkpoint.load_checkpoint(tmp_path / checkpoint.LATEST_CHECKPOINT)
    assert state["device"] == "cpu"
    state["rng"]["draws"] = state["rng"]["draws"][:16]  # as long as a GPU's
    trainer = make_trainer(windows, tmp_path)
    before = weights(trainer)
    for device, said in (("cuda", "written on cuda, and cpu"), (None, "written on another kind of device, and cpu")):
        state["device"] = device
        if device is None:
            del state["device"]
        with pytest.raises(UserError, match=rf"{said}.*allowed: .*resume on the same kind of device"):
            trainer.restore(state)
    assert all(torch.equal(tensor, before[key]) for key, tensor in weights(trainer).items())


@pytest.mark.parametrize(("saved", "own", "taken"), [(1, 0, 0), (1, 3, 0), (8, 3, 3), (2, 5, 1), (0, 0, None)])
def test_a_gpu_takes_its_own_generator_of_as_many_as_a_file_holds_and_stays_in_one_part(
    windows, tmp_path, monkeypatch, saved: int, own: int, taken: int | None
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: given.append((int(state), device)))
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.tensor(device.index))
    trainer = make_trainer(windows, tmp_path)
    trainer.device = torch.device("cuda", own)
    state = trainer.state()
    assert state["rng"]["cuda"] == [torch.tensor(own)]
    del state["device"]  # a file of an earlier version
    state |= {"shards": 8, "rng": {**state["rng"], "cuda": [torch.tensor(i) for i in range(saved)]}}
    trainer.restore(state)
    assert given == ([] if taken is None else [(taken, trainer.device)])
    assert trainer.engine.parts == 1
