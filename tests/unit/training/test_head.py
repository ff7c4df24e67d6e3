"""Fitting heads: they learn what is there, nothing where nothing is, and leave what they must not touch."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from moola_mlflow.core.errors import TrainingError
from moola_mlflow.labels.targets import Targets
from moola_mlflow.models.encoders import build_encoder
from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.heads import HEADS
from moola_mlflow.training.head import FittedHead, HeadInputs, HeadSettings, fit_detector, fit_head, mirrored, predict

SETTINGS = HeadSettings(epochs=8, batch_size=16)
NONE = np.array([], np.int64)
HELD = np.arange(40, 60)


class Set:
    """Windows in which a span is marked in one input, and the class, by the sign of another, at its end."""

    def __init__(self, num_windows: int = 60, num_classes: int = 2, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.label = np.arange(num_windows) % num_classes
        self.start = rng.integers(20, 70, num_windows)
        self.end = self.start + rng.integers(4, 12, num_windows)
        x = 0.3 * rng.normal(size=(num_windows, 105, 4))
        for n in range(num_windows):
            x[n, self.start[n] : self.end[n] + 1, 0] += 2
            x[n, self.start[n] : self.end[n] + 1, 1] += 2 * self.label[n]
        self.inputs = torch.from_numpy(x).float()
        self.num_classes = num_classes

    def fit(self, fit: np.ndarray, held: np.ndarray, settings: HeadSettings = SETTINGS, **kwargs: Any) -> FittedHead:
        inputs = HeadInputs(kwargs.pop("inputs", self.inputs), kwargs.pop("mirrored", None))
        seed = kwargs.pop("seed", 1)
        return fit_head(inputs, self.targets(), fit, held, replace(settings, **kwargs), seed)

    def targets(self) -> Targets:
        return Targets(self.label, self.start, self.end, np.zeros((len(self.label), 105, 4)), self.num_classes)


def joint_at_3(data: Set, fitted: FittedHead, index: np.ndarray) -> float:
    logits, start, end = (x.numpy() for x in predict(fitted, data.inputs, index))
    near = np.abs((start + end) - (data.start + data.end)[index]) <= 6
    return float((near & (logits.argmax(1) == data.label[index])).mean())


def test_the_span_head_learns_twenty_windows_by_heart() -> None:
    data, every = Set(20), np.arange(20)
    fitted = data.fit(every, NONE, replace(SETTINGS, epochs=60, jitter_sigma=0.0, lr=1e-2))
    logits, start, end = predict(fitted, data.inputs, every)
    assert (logits.argmax(1).numpy() == data.label).all()
    assert np.abs(start.numpy() - data.start).max() <= 1
    assert np.abs(end.numpy() - data.end).max() <= 1


@pytest.mark.parametrize("num_classes", [2, 3])
def test_what_is_learned_holds_on_windows_never_seen(num_classes: int) -> None:
    data, index = Set(120, num_classes), np.arange(120)
    fitted = data.fit(index[:70], index[70:90], replace(SETTINGS, epochs=20))
    assert fitted.held_logits.shape == (20, num_classes)
    assert joint_at_3(data, fitted, index[90:]) > 0.8


def test_the_pooled_head_fits_too() -> None:
    data, index = Set(), np.arange(60)
    fitted = data.fit(index[:40], index[40:], replace(SETTINGS, head="pooled"))
    assert fitted.history[-1]["train_loss"] < fitted.history[0]["train_loss"]


def test_shuffled_labels_give_chance_on_windows_never_seen() -> None:
    data, index = Set(240), np.arange(240)
    data.label = np.random.default_rng(5).permutation(data.label)
    fitted = data.fit(index[:80], index[80:120])
    right = predict(fitted, data.inputs, index[120:])[0].argmax(1).numpy() == data.label[120:]
    assert 0.35 < right.mean() < 0.65


def test_the_epoch_kept_has_the_lowest_likelihood_loss_on_the_held_windows() -> None:
    data, index = Set(), np.arange(60)
    fitted = data.fit(index[:40], index[40:])
    nll = [scores["held_nll"] for scores in fitted.history]
    assert fitted.best_epoch == int(np.argmin(nll))
    logits, start, end = predict(fitted, data.inputs, index[40:])
    assert torch.equal(logits, fitted.held_logits)
    assert torch.equal(start, fitted.held_start)
    assert torch.equal(end, fitted.held_end)
    kept = torch.nn.functional.cross_entropy(logits, torch.from_numpy(data.label[40:]))
    assert float(kept) == pytest.approx(fitted.history[fitted.best_epoch]["held_class_nll"], rel=1e-5)


def test_patience_ends_a_fit_that_no_longer_improves() -> None:
    data, index = Set(), np.arange(60)
    data.label = np.random.default_rng(5).permutation(data.label)
    fitted = data.fit(index[:40], index[40:], replace(SETTINGS, epochs=200, patience=3))
    assert len(fitted.history) == fitted.best_epoch + 4 < 200


def test_a_refit_without_held_windows_ends_after_the_epochs_it_is_given() -> None:
    data, every = Set(), np.arange(60)
    fitted = data.fit(every, NONE, stop_after=3)
    assert fitted.best_epoch == 2
    assert len(fitted.history) == 3
    assert fitted.held_logits.shape == (0, 2)


@pytest.mark.parametrize("head", HEADS)
def test_the_same_seed_gives_the_same_fit_another_seed_another_and_the_global_generator_is_untouched(
    head: str,
) -> None:
    data, index = Set(), np.arange(60)
    settings = replace(SETTINGS, epochs=2, head=head)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    first = data.fit(index[:40], index[40:], settings)
    assert torch.equal(torch.rand(3), expected)
    same, other = (data.fit(index[:40], index[40:], settings, seed=seed) for seed in (1, 2))
    assert torch.equal(first.held_logits, same.held_logits)
    assert first.history == same.history
    assert not torch.equal(first.held_logits, other.held_logits)


def test_windows_outside_the_fit_and_held_parts_change_nothing() -> None:
    data, index = Set(), np.arange(60)
    before = data.fit(index[:30], index[30:40]).held_logits
    data.inputs[40:] = 1e6
    data.label[40:], data.start[40:], data.end[40:] = 0, 1, 60
    assert torch.equal(data.fit(index[:30], index[30:40]).held_logits, before)


def test_a_frozen_encoder_gets_no_gradient_and_keeps_its_weights() -> None:
    data, index = Set(), np.arange(60)
    encoder = build_encoder("bilstm", 4, hidden=4, layers=1, dropout=0.0)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    encoding = encoder(data.inputs)
    assert encoding.requires_grad
    data.fit(index[:40], index[40:], inputs=encoding)
    assert all(p.grad is None for p in encoder.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_spans_are_decoded_within_the_lengths_of_the_fitted_labels_or_those_given() -> None:
    data, index = Set(), np.arange(60)
    length = (data.end - data.start + 1)[:40]
    for given, allowed in ((None, (length.min(), length.max())), ((3, 4), (3, 4))):
        fitted = data.fit(index[:40], index[40:], replace(SETTINGS, epochs=1), lengths=given)
        found = fitted.held_end - fitted.held_start + 1
        assert allowed[0] <= int(found.min()) <= int(found.max()) <= allowed[1]


def test_mirrored_inputs_are_drawn_in_training_and_only_where_asked_for() -> None:
    data, index = Set(), np.arange(60)
    plain, used, unasked = (
        data.fit(index[:40], index[40:], replace(SETTINGS, mirror=mirror), mirrored=other).held_logits
        for other, mirror in ((None, True), (-data.inputs, True), (-data.inputs, False))
    )
    assert not torch.equal(plain, used)
    assert torch.equal(plain, unasked)


def test_class_balanced_sampling_finds_a_rare_class_more_often() -> None:
    torch.manual_seed(0)
    data, index = Set(200), np.arange(200)
    rng = np.random.default_rng(0)
    data.label = (rng.random(200) < 0.15).astype(np.int64)
    signal = 0.5 * torch.from_numpy(data.label)[:, None] + torch.randn(200, 1)
    data.inputs[..., 1] = signal + 0.3 * torch.randn(200, 105)
    fits = [data.fit(index, NONE, replace(SETTINGS, class_balanced=balanced)) for balanced in (False, True)]
    found = [int(predict(fitted, data.inputs, index)[0].argmax(1).sum()) for fitted in fits]
    assert found[1] > found[0]


def test_prices_mirrored_twice_are_the_prices() -> None:
    window = np.array([[[1.0, 3.0, 0.5, 2.0]]])
    assert mirrored(window).tolist() == [[[-1.0, -0.5, -3.0, -2.0]]]
    assert np.array_equal(mirrored(mirrored(window)), window)


@pytest.mark.filterwarnings("ignore")
def test_a_loss_that_is_not_finite_ends_the_fit_with_a_message() -> None:
    data, index = Set(), np.arange(60)
    with pytest.raises(TrainingError, match=r"optimizer\.lr"):
        data.fit(index, NONE, inputs=data.inputs * torch.nan)


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    return build_encoder("bilstm", 3, hidden=4, layers=1, dropout=0.1)


def fit_both(
    data: Set, encoder: Encoder, held: np.ndarray = HELD, stop_after: int | None = None, **settings: Any
) -> FittedHead:
    given = replace(SETTINGS, **{"epochs": 3, "stop_after": stop_after, **settings})
    return fit_detector(encoder, HeadInputs(data.inputs), data.targets(), np.arange(40), held, given, 1)


def test_an_unfrozen_encoder_is_trained_in_a_copy_and_the_rest_of_the_inputs_goes_to_the_head(encoder: Encoder) -> None:
    data = Set()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    fitted = fit_both(data, encoder)
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
    assert moved(fitted, encoder)
    assert fitted.model.detector.mean.shape == (8 + 1,)
    assert torch.equal(predict(fitted, data.inputs, np.arange(40, 60))[0], fitted.held_logits)
    assert torch.equal(fit_both(data, encoder).held_logits, fitted.held_logits)


def moved(fitted: FittedHead, encoder: Encoder) -> bool:
    """Whether a fit has changed the encoder's weights."""
    after = fitted.model.encoder.state_dict()
    return any(not torch.equal(after[name], tensor) for name, tensor in encoder.state_dict().items())


def test_an_encoder_stays_frozen_until_its_epoch(encoder: Encoder) -> None:
    data, seen = Set(), list[bool]()
    before = next(encoder.parameters()).detach().clone()
    # A hook goes with the copy; it sees the encoder as each batch finds it.
    encoder.register_forward_pre_hook(
        lambda module, _: seen.append(torch.equal(next(module.parameters()), before)) if module.training else None
    )
    unfrozen_batches = math.ceil(40 / SETTINGS.batch_size)
    for unfreeze_at in (0, 2):
        seen.clear()
        assert moved(fit_both(data, encoder, NONE, unfreeze_at=unfreeze_at), encoder)
        assert seen == [True] + [False] * ((3 - unfreeze_at) * unfrozen_batches - 1)


LATE = {"epochs": 16, "unfreeze_at": 10, "patience": 4, "lr": 1e-2, "encoder_lr": 1e-3}


def contradicted(seed: int = 0) -> Set:
    """What is learned of the fitted windows is wrong of the held ones: a head does worse on them from the start."""
    data = Set(seed=seed)
    data.label[HELD], data.start[HELD], data.end[HELD] = 1 - data.label[HELD], 90, 100
    return data


@pytest.mark.parametrize("seed", range(3))
def test_the_epoch_kept_has_trained_the_encoder_even_where_the_head_alone_was_best_before(
    encoder: Encoder, seed: int
) -> None:
    data = contradicted(seed)
    fitted = fit_both(data, encoder, **LATE)
    nll = [scores["held_nll"] for scores in fitted.history]
    assert int(np.argmin(nll)) < 10 - 4  # before it could be trained, and longer ago than patience lasts
    assert fitted.best_epoch == 10 + int(np.argmin(nll[10:]))
    assert len(nll) == min(16, fitted.best_epoch + 4 + 1)
    assert moved(fitted, encoder)
    assert torch.equal(predict(fitted, data.inputs, HELD)[0], fitted.held_logits)


def test_a_refit_for_the_median_of_the_epochs_that_folds_kept_trains_the_encoder(encoder: Encoder) -> None:
    kept = [fit_both(contradicted(seed), encoder, **LATE).best_epoch + 1 for seed in range(2)]
    again = fit_both(Set(), encoder, NONE, stop_after=round(float(np.median(kept))), **LATE)
    assert again.best_epoch >= 10
    assert moved(again, encoder)


@pytest.mark.parametrize(("epochs", "stop_after"), [(3, None), (8, 3), (2, None)])
def test_a_fit_that_ends_before_the_encoder_is_trained_is_refused(
    encoder: Encoder, epochs: int, stop_after: int | None
) -> None:
    last = (stop_after or epochs) - 1
    with pytest.raises(ValueError, match=rf"unfreeze_at=3, but the last epoch is {last}, .*allowed: 0 to {last},"):
        fit_both(Set(), encoder, epochs=epochs, unfreeze_at=3, stop_after=stop_after)


def test_a_head_alone_heeds_no_epoch_of_an_encoder() -> None:
    data, index = Set(), np.arange(60)
    plain, told = (
        data.fit(index[:40], index[40:], replace(SETTINGS, unfreeze_at=unfreeze_at)) for unfreeze_at in (0, 10)
    )
    assert (plain.history, plain.best_epoch) == (told.history, told.best_epoch)
    assert torch.equal(plain.held_logits, told.held_logits)
