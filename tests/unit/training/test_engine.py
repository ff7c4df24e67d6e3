"""One step in parts: the same step whoever computes it, the same bits every time, less memory where it runs out."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from precisions import PRECISIONS, needs_bf16
from small_trainings import histories, make_trainer, resumed, small_windows, weights
from torch import Tensor, nn

from moola_mlflow.core.errors import TrainingError
from moola_mlflow.core.runtime import seeded_generator
from moola_mlflow.models import encoders
from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.encoders.bilstm import BiLSTM
from moola_mlflow.models.encoders.keyed_dropout import Dropout, can_be_shared
from moola_mlflow.models.files import checkpoint
from moola_mlflow.training import engine
from moola_mlflow.training.events import MemoryRanOut
from moola_mlflow.training.trainer import Trainer
from moola_mlflow.windows.windows import Windows

DROPPING = {"encoder.dropout": 0.5, "trainer.epochs": 2}
NAMES = ["masked", "price_path", "price_path+0.5*masked"]


@pytest.fixture(scope="module")
def windows() -> Windows:
    return small_windows()


def one_step(trainer: Trainer) -> tuple[Tensor, list[Tensor]]:
    """Return the loss and the unclipped gradients of the first batch."""
    trainer.model.train()
    unclipped = trainer.settings.trainer.model_copy(update={"clip_norm": 1e9})
    trainer.settings = replace(trainer.settings, trainer=unclipped)
    batch = next(iter(trainer.source.batches(trainer.split.train, 16)))
    loss, _, _ = trainer._step(batch)
    return loss, [p.grad.clone() for p in trainer.model.parameters() if p.grad is not None]


@given(st.integers(0, 300), st.integers(1, 40))
def test_rows_are_cut_into_consecutive_parts_of_nearly_one_size(num: int, parts: int) -> None:
    rows = engine.cut(num, parts)
    assert [i for part in rows for i in range(num)[part]] == list(range(num))
    sizes = [part.stop - part.start for part in rows]
    assert len(sizes) == parts
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_a_step_is_what_plain_autograd_makes_of_the_batch(windows: Windows, tmp_path: Path, name: str) -> None:
    overrides = {"objective.name": name, "encoder.dropout": 0.0, "objective.uncertainty": name == "masked"}
    trainer = make_trainer(windows, tmp_path, **overrides)
    plain = copy.deepcopy(trainer.model).train()
    batch = next(iter(trainer.source.batches(trainer.split.train, 16)))
    draws = seeded_generator(0, 0)
    draws.set_state(trainer.draws.get_state())
    loss = plain.objective.loss(plain.objective(plain.encoder, batch, draws))
    loss.backward()
    ours, gradients = one_step(trainer)
    assert ours == loss
    expected = [p.grad for p in plain.parameters() if p.grad is not None]
    assert len(gradients) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(gradients, expected, strict=True))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", NAMES)
def test_a_single_part_has_the_bits_of_a_batch_computed_whole(
    windows: Windows, tmp_path: Path, name: str, precision: str
) -> None:
    overrides = {"objective.name": name, "objective.uncertainty": name == "masked", **DROPPING}
    loss, whole = one_step(make_trainer(windows, tmp_path, precision, **overrides))
    trainer = make_trainer(windows, tmp_path, precision, **overrides)
    trainer.engine.micro = 16  # as many windows as the batch has: one piece, on the way of several
    part_loss, part = one_step(trainer)
    assert torch.equal(part_loss, loss)
    assert len(part) == len(whole)
    assert all(torch.equal(a, b) for a, b in zip(part, whole, strict=True))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("parts", [2, 3])
def test_any_number_of_parts_gives_the_same_gradients_dropout_and_jitter_included(
    windows: Windows, tmp_path: Path, name: str, parts: int
) -> None:
    overrides = {"objective.name": name, **DROPPING}
    loss, whole = one_step(make_trainer(windows, tmp_path, **overrides))
    trainer = make_trainer(windows, tmp_path, **overrides, **{"runtime.shards": parts})
    assert trainer.engine.parts == parts
    shared_loss, shared = one_step(trainer)
    assert shared_loss == pytest.approx(loss.item(), rel=1e-6)
    for a, b in zip(shared, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_threads_give_the_same_bits_every_time_and_the_scores_of_one(
    windows: Windows, tmp_path: Path, precision: str
) -> None:
    runs = []
    for i, parts in enumerate((1, 2, 2, 2)):
        trainer = make_trainer(windows, tmp_path / str(i), precision, **DROPPING, **{"runtime.shards": parts})
        trainer.fit()
        runs.append((histories(trainer), weights(trainer)))
    alone, first, *others = runs
    for history, tensors in others:
        assert history == first[0]
        assert all(torch.equal(tensor, first[1][key]) for key, tensor in tensors.items())
    tolerance = 1e-5 if precision == "fp32" else 1e-3
    for a, b in zip(first[0], alone[0], strict=True):
        assert a["val/huber"] == pytest.approx(b["val/huber"], rel=tolerance)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_training_in_parts_goes_on_bit_equal_with_as_many_parts_as_it_had(
    windows: Windows, tmp_path: Path, precision: str
) -> None:
    whole = make_trainer(windows, tmp_path / "whole", precision, **DROPPING, **{"runtime.shards": 2})
    whole.fit()
    cut = make_trainer(windows, tmp_path / "cut", precision, **DROPPING, **{"runtime.shards": 2})
    cut.should_stop = lambda: "SIGTERM" if cut.progress.step == 5 else None
    assert cut.fit().stopped
    assert make_trainer(windows, tmp_path / "cut", precision, **DROPPING).engine.parts == 1
    on = resumed(windows, tmp_path / "cut", precision, **DROPPING)  # no number given: that of the checkpoint
    assert on.engine.parts == 2
    on.fit()
    assert histories(on) == histories(whole)
    expected = weights(whole)
    assert all(torch.equal(tensor, expected[key]) for key, tensor in weights(on).items())


def test_no_two_gradients_share_memory_that_clipping_would_scale_twice() -> None:
    one, other = torch.ones(3), torch.full((3,), 2.0)
    apart = engine._apart([one, one, None, other])
    places = [gradient.data_ptr() for gradient in apart if gradient is not None]
    assert len(set(places)) == 3
    assert [None if g is None else g.tolist() for g in apart] == [[1.0] * 3, [1.0] * 3, None, [2.0] * 3]


class Greedy(BiLSTM):
    """An encoder that has memory for few windows at once."""

    room = 5
    seen: list[int]

    def encode(self, z_BTF: Tensor) -> Tensor:
        self.seen = [*getattr(self, "seen", []), len(z_BTF)]
        if self.training and len(z_BTF) > self.room:
            raise torch.OutOfMemoryError(f"tried to allocate room for {len(z_BTF)} windows")
        return super().encode(z_BTF)


@pytest.fixture
def greedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(encoders.ENCODERS, "greedy", Greedy)


def greedy_trainer(windows: Windows, folder: Path, room: int, **overrides: Any) -> Trainer:
    trainer = make_trainer(windows, folder, **DROPPING, **overrides)
    torch.manual_seed(0)
    encoder = encoders.build_encoder("greedy", 11, 8, 2, 0.5)
    assert isinstance(encoder, Greedy)
    encoder.load_state_dict(trainer.model.encoder.state_dict())
    encoder.room = room
    trainer.model.encoder = encoder
    trainer.engine.parameters = [p for p in trainer.model.parameters() if p.requires_grad]
    return trainer


@pytest.mark.usefixtures("greedy")
@pytest.mark.parametrize("parts", [1, 2])
def test_where_memory_runs_out_the_step_is_the_same_in_smaller_pieces_and_the_user_is_told(
    windows: Windows, tmp_path: Path, parts: int
) -> None:
    roomy = greedy_trainer(windows, tmp_path, 99, **{"runtime.shards": parts})
    tight = greedy_trainer(windows, tmp_path, 5, **{"runtime.shards": parts})
    told: list[int] = []
    tight.subscribers = (lambda event: told.append(event.micro_batch) if isinstance(event, MemoryRanOut) else None,)
    loss, expected = one_step(roomy)
    tight_loss, gradients = one_step(tight)
    assert told == ([8, 4] if parts == 1 else [4])
    assert tight_loss == pytest.approx(loss.item(), rel=1e-6)
    for a, b in zip(gradients, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    told.clear()
    one_step(tight)
    assert told == []  # it is remembered


@pytest.mark.usefixtures("greedy")
def test_gradients_of_a_backward_pass_that_ran_out_of_memory_are_dropped(windows: Windows, tmp_path: Path) -> None:
    expected = one_step(greedy_trainer(windows, tmp_path, 99))[1]
    trainer = greedy_trainer(windows, tmp_path, 99)
    encode, lengths = trainer.model.encoder.encode, []

    def ends_on_the_way_back(z_BTF: Tensor) -> Tensor:
        def run_out(gradient: Tensor) -> None:
            lengths.append(len(gradient))
            if len(gradient) > 8:
                assert trainer.model.objective.decoder.weight.grad is not None  # it has come past the decoder
                raise torch.OutOfMemoryError("tried to allocate")

        h_BTD = encode(z_BTF)
        if h_BTD.requires_grad:
            h_BTD.register_hook(run_out)
        return h_BTD

    trainer.model.encoder.encode = ends_on_the_way_back  # type: ignore[method-assign]
    gradients = one_step(trainer)[1]
    assert lengths == [16, 8, 8]
    for a, b in zip(gradients, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("greedy")
def test_memory_for_not_even_one_window_is_an_end_with_a_reason(windows: Windows, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"not even one window fits.*tried to allocate"):
        one_step(greedy_trainer(windows, tmp_path, 0))


def test_another_error_is_not_taken_for_want_of_memory(windows: Windows, tmp_path: Path) -> None:
    trainer = make_trainer(windows, tmp_path)
    trainer.model.encoder.encode = lambda z_BTF: z_BTF @ z_BTF  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="size"):
        one_step(trainer)


class Foreign(Encoder):
    """An encoder whose dropout draws from torch's one generator, in the order in which threads come."""

    def __init__(self) -> None:
        super().__init__(11)
        self.output_size = 4
        self.linear, self.drop = nn.Linear(11, 4), nn.Dropout(0.5)

    def encode(self, z_BTF: Tensor) -> Tensor:
        return self.drop(self.linear(z_BTF))


def test_an_encoder_that_draws_in_its_own_way_is_not_shared_out(windows: Windows, tmp_path: Path) -> None:
    assert not can_be_shared(Foreign())
    assert not can_be_shared(nn.LSTM(3, 3, num_layers=2, dropout=0.1))
    assert can_be_shared(BiLSTM(11, 4, 2, 0.5))
    trainer = make_trainer(windows, tmp_path)
    trainer.model.encoder = Foreign()
    trainer.engine.use_parts(4)
    assert trainer.engine.parts == 1


def test_tune_off_is_plain_pytorch(windows: Windows, tmp_path: Path) -> None:
    trainer = make_trainer(windows, tmp_path, **DROPPING, **{"runtime.tune": "off"})
    layer = trainer.model.encoder.dropout
    assert isinstance(layer, Dropout)
    torch.manual_seed(3)
    ours = layer.train()(torch.ones(4, 5, 6))
    torch.manual_seed(3)
    assert torch.equal(ours, nn.functional.dropout(torch.ones(4, 5, 6), layer.p))
    assert trainer.engine.parts == 1
    assert not trainer.optimizer.defaults["fused"]
    trainer.fit()
    assert checkpoint.load_checkpoint(tmp_path / checkpoint.LATEST_CHECKPOINT)["shards"] == 1


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), pytest.param("bf16", 1e-3, marks=needs_bf16)])
def test_without_dropout_tune_off_trains_to_the_same_losses(
    windows: Windows, tmp_path: Path, precision: str, tolerance: float
) -> None:
    curves = []
    for tune, parts in (("on", 2), ("off", 1)):
        given = {"encoder.dropout": 0.0, "runtime.tune": tune, "runtime.shards": parts}
        trainer = make_trainer(windows, tmp_path / tune, precision, **given)
        trainer.fit()
        assert trainer.engine.parts == parts
        curves.append([row[name] for row in histories(trainer) for name in ("train/loss", "val/loss", "val/huber")])
    assert curves[1] == pytest.approx(curves[0], rel=tolerance)


@pytest.mark.parametrize(
    ("wanted", "batch", "cores", "tuned", "parts"),
    [(0, 64, 2, True, 2), (0, 64, 16, True, 4), (0, 31, 2, True, 1), (3, 8, 1, True, 3), (0, 64, 2, False, 1)],
)
def test_the_number_of_parts_follows_the_cores_as_long_as_parts_are_large_enough(
    monkeypatch: pytest.MonkeyPatch, wanted: int, batch: int, cores: int, tuned: bool, parts: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", str(cores))
    assert engine.num_parts(wanted, batch, torch.device("cpu"), tuned) == parts
    assert engine.num_parts(0, batch, torch.device("cuda"), tuned) == 1
