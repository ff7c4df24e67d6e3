"""The host never waits within a training step: nothing of it asks the device for a value, or for a length.

On a GPU each such question stops the host until all that was queued is done. There is none here: the steps run on the
CPU, by the way that they take on a GPU, and every operation is looked at. What cannot be seen so is a copy to the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from precisions import PRECISIONS
from small_trainings import make_trainer, small_windows
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from moola_mlflow.models.encoders import keyed_dropout
from moola_mlflow.models.objectives.base import Errors
from moola_mlflow.models.objectives.masked import Masked
from moola_mlflow.training.events import StepEnded, TrainingEvent
from moola_mlflow.training.trainer import Trainer
from moola_mlflow.windows.windows import Windows

STEPS = 3
ASKING = {
    "_local_scalar_dense", "nonzero", "nonzero_numpy", "masked_select", "equal", "is_nonzero", "bincount", "unique",
    "_unique", "_unique2", "unique_dim", "unique_consecutive",
}  # fmt: skip
"""Operations whose answer, or whose length, the host must wait for."""
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
PRESETS: dict[str, dict[str, Any]] = {
    "stones": {"encoder.dropout": 0.65, "objective.uncertainty": True},
    "patches": {"encoder.dropout": 0.1, "objective.mask_strategy": "patch"},
    "price_path": {"objective.name": "price_path", "encoder.dropout": 0.1},
    "jade10": {"features.set": "relativity10", "encoder.dropout": 0.2, "objective.uncertainty": False},
    "sum": {"objective.name": "price_path+0.5*masked", "encoder.dropout": 0.1},
}


class Questions(TorchDispatchMode):
    """Notes every operation for which the host would wait, as long as it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.names: set[str] = set()
        self.on = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if self.on:
            self.names.add(name)
            if name in ASKING or (name in INDEXING and any(_is_mask(index) for index in args[1])):
                self.found.append(str(func))
            if name == "repeat_interleave" and "output_size" not in (kwargs or {}):
                self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def _is_mask(index: Tensor | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


@pytest.fixture(scope="module")
def windows() -> Windows:
    return small_windows()


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout as a GPU draws it; and what is known to be of the CPU alone is not looked at."""

    def drawn(at: Any, size: int, least: int, factor: Tensor, device: torch.device) -> Tensor:
        with _disable_current_modes():  # this number is the host's on a GPU too
            value = factor.item()
        known: Any = SimpleNamespace(dtype=factor.dtype, item=lambda: value)
        return keyed_dropout.factors_on_device(at, size, least, known, device)

    quantile = Tensor.quantile

    def unseen(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        with _disable_current_modes():  # on the CPU, and only there, torch looks at the share that it is given
            return quantile(self, *args, **kwargs)

    monkeypatch.setattr(keyed_dropout, "factors_on_cpu", drawn)
    monkeypatch.setattr(Tensor, "quantile", unseen)


def questions_of(trainer: Trainer) -> Questions:
    """Run some steps of an epoch as on a GPU, from the first batch to the last update, and return what was asked."""
    assert trainer.engine.parts == 1
    trainer.watched = False  # a step that has gone wrong is noted on the device, and asked for at the epoch's end
    trainer.source = replace(trainer.source, resident=True)
    questions = Questions()

    def stop_asking(event: TrainingEvent) -> None:
        if isinstance(event, StepEnded) and event.step == STEPS:
            questions.on = False  # the end of an epoch waits

    trainer.subscribers = (stop_asking,)
    trainer.should_stop = lambda: "that is enough" if trainer.progress.step == STEPS else None
    with questions:
        assert trainer._train_epoch() == "that is enough"
    assert trainer.progress.step == STEPS
    assert {"huber_loss", "huber_loss_backward", "_fused_adamw_"} <= questions.names  # all of a step was looked at
    return questions


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("preset", list(PRESETS))
def test_a_step_asks_the_device_for_nothing(windows: Windows, tmp_path: Path, preset: str, precision: str) -> None:
    trainer = make_trainer(windows, tmp_path, precision, **PRESETS[preset], **{"runtime.shards": 1})
    assert questions_of(trainer).found == []


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize(
    ("asks", "said"),
    [
        (lambda errors, drawn: float(errors.count_K[0]), "aten._local_scalar_dense.default"),
        (lambda errors, drawn: drawn.nonzero(), "aten.nonzero.default"),
        (lambda errors, drawn: drawn[drawn], "aten.index.Tensor"),
    ],
)
def test_a_question_in_a_step_is_noticed(
    windows: Windows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asks: Callable[[Errors, Tensor], Any], said: str
) -> None:
    inner = Masked.errors

    def curious(self: Masked, encoder: Any, h_BTD: Tensor, batch: Any, drawn: Tensor) -> Errors:
        errors = inner(self, encoder, h_BTD, batch, drawn)
        asks(errors, drawn)
        return errors

    monkeypatch.setattr(Masked, "errors", curious)
    found = questions_of(make_trainer(windows, tmp_path, **PRESETS["stones"], **{"runtime.shards": 1})).found
    assert found.count(said) == STEPS
