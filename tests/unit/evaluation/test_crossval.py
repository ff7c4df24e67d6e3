"""Cross-validation: nothing that is fitted or chosen has seen what is tested, however many processes do the work."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from small_labels import Times, small_labels
from small_models import small_encoder

from moola_mlflow.core import CvConfig
from moola_mlflow.core.errors import TrainingError, UserError
from moola_mlflow.evaluation.crossval import (
    ClassicalMethod,
    FoldOutcome,
    HeadMethod,
    Method,
    NetworkMethod,
    cross_validate,
    fresh_copy,
    pooled_predictions,
)
from moola_mlflow.evaluation.folds import NestedFold, plan_folds
from moola_mlflow.labels.labelled_set import LabelledSet
from moola_mlflow.labels.overlap import overlap_groups
from moola_mlflow.labels.targets import Targets
from moola_mlflow.models.calibration import apply_temperature
from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.encoders.ensemble import Ensemble
from moola_mlflow.training.head import HeadInputs, HeadSettings
from moola_mlflow.windows.batches import fit_scaling
from moola_mlflow.windows.windows import MINUTE_NS

SETTINGS = HeadSettings(epochs=2, batch_size=16)
LABELS = small_labels(36)
TARGETS = Targets.of(LABELS)
INPUTS = torch.from_numpy(np.random.default_rng(7).normal(size=(36, 105, 12)) + TARGETS.label[:, None, None]).float()
METHODS = ("head", "network trained on", "fresh network", "majority", "logistic", "boosting", "rule")


def method(name: str, inputs: torch.Tensor = INPUTS) -> Method:
    """Each kind of method, as small as it can be; networks read 11 features and one input beside."""
    if name == "head":
        return HeadMethod(name, HeadInputs(inputs, -inputs), SETTINGS)
    if name in ("network trained on", "fresh network"):
        fresh = name == "fresh network"
        return NetworkMethod(name, HeadInputs(inputs, -inputs), SETTINGS, small_encoder(), fresh=fresh)
    return ClassicalMethod(name)


def planned(
    labels: LabelledSet = LABELS, folds: int = 3, repeats: int = 1, seeds: Sequence[int] = (17,)
) -> list[NestedFold]:
    return plan_folds(labels, CvConfig(folds=folds, repeats=repeats), seeds)


# The plan ----------------------------------------------------------------------------------------------------------


def meet(labels: LabelledSet, one: np.ndarray, other: np.ndarray, embargo_ns: int) -> bool:
    """Whether a window of ``one`` overlaps one of ``other``, or starts within the embargo after it, pair by pair."""
    start, end, name = labels.start_ns, labels.end_ns, labels.instrument
    return any(
        name[i] == name[j] and start[i] <= end[j] + embargo_ns and start[j] <= end[i] for i, j in product(one, other)
    )


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 99),
    times=st.sampled_from(["apart", "crowded", "none"]),
    kind=st.sampled_from(["auto", "stratified"]),
    folds=st.integers(2, 4),
    repeats=st.integers(1, 2),
    embargo=st.sampled_from([0, 105, 300]),
    num_instruments=st.integers(1, 3),
)
def test_what_is_fitted_chosen_and_tested_never_meets_and_every_window_is_tested_once_a_repeat_and_seed(
    seed: int, times: Times, kind: str, folds: int, repeats: int, embargo: int, num_instruments: int
) -> None:
    labels = small_labels(60, seed, times=times, num_instruments=num_instruments)
    cv = CvConfig(folds=folds, repeats=repeats, kind=kind, embargo_bars=embargo)
    try:
        all_units = plan_folds(labels, cv, (seed, seed + 1))
    except UserError:
        assume(False)
        raise
    groups = overlap_groups(labels)
    for one in all_units:
        assert not set(one.train) & set(one.test)
        assert set(one.fit) | set(one.held) <= set(one.train)
        assert not set(one.fit) & set(one.held)
        assert one.num_purged == len(labels) - len(one.train) - len(one.test)
        sides = [(one.fit, one.held), (one.fit, one.test), (one.held, one.test)]
        for early, late in sides:
            assert not set(groups[early]) & set(groups[late])
        for part in (one.fit, one.held):
            assert set(labels.label[part]) == set(labels.label)
        if times != "none":
            assert not any(meet(labels, *side, embargo * MINUTE_NS) for side in sides)
    keys = list(product((seed, seed + 1), range(repeats), range(folds)))
    assert [(one.seed, one.repeat, one.index) for one in all_units] == keys
    for which in sorted({key[:2] for key in keys}):
        tested = np.concatenate([one.test for one in all_units if (one.seed, one.repeat) == which])
        np.testing.assert_array_equal(np.sort(tested), np.arange(len(labels)))


def test_every_unit_draws_its_own_numbers_and_the_same_ones_each_time() -> None:
    many = planned(folds=3, repeats=3, seeds=(13, 14, 17))
    draws = [one.fit_seed for one in many]
    assert len(set(draws)) == len(many) == 27
    assert draws == [one.fit_seed for one in planned(folds=3, repeats=3, seeds=(13, 14, 17))]
    assert [one.fit_seed for one in planned(folds=3, repeats=1, seeds=(17,))] == draws[18:21]


def test_a_repeat_or_another_seed_moves_the_blocks() -> None:
    labels = small_labels(90, seed=1)
    many = planned(labels, repeats=2, seeds=(1, 2))
    keys = list(product((1, 2), (0, 1)))
    sizes = {tuple(len(one.test) for one in many if (one.seed, one.repeat) == key) for key in keys}
    assert len(sizes) == 4


@pytest.mark.parametrize(
    ("labels", "cv", "message"),
    [
        pytest.param(small_labels(11), {"folds": 3}, "'retracement' has 5 windows.*label more", id="too few"),
        pytest.param(
            small_labels(24, times="none"), {"kind": "time"}, "time-blocked folds need start_time", id="no times"
        ),
        pytest.param(
            replace(small_labels(24), start_ns=small_labels(24).start_ns * 0, end_ns=small_labels(24).end_ns * 0 + 1),
            {"folds": 2}, "1 groups that overlap", id="all overlap",
        ),
        pytest.param(
            small_labels(8), {"folds": 2, "embargo_bars": 10**6}, "to train on, none of", id="an endless embargo"
        ),
    ],
)  # fmt: skip
def test_a_set_that_cannot_be_split_is_refused_before_anything_is_fitted(
    labels: LabelledSet, cv: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        plan_folds(labels, CvConfig(**cv), (17,))


# Methods -----------------------------------------------------------------------------------------------------------


def same(one: FoldOutcome, other: FoldOutcome) -> bool:
    """Whether two outcomes are equal to the last bit, time apart."""
    arrays = all(np.array_equal(getattr(one, k), getattr(other, k)) for k in ("probability", "raw", "predicted"))
    return arrays and all(getattr(one, k) == getattr(other, k) for k in ("temperature", "best_epoch", "history"))


@pytest.mark.parametrize("name", METHODS)
def test_labels_and_spans_of_the_tested_windows_change_nothing(name: str) -> None:
    one = planned()[1]
    label, start, end = TARGETS.label.copy(), TARGETS.start.copy(), TARGETS.end.copy()
    label[one.test], start[one.test], end[one.test] = 1 - label[one.test], 0, 104
    corrupted = replace(TARGETS, label=label, start=start, end=end)
    assert same(method(name).run(TARGETS, one), method(name).run(corrupted, one))
    elsewhere = replace(TARGETS, label=np.where(np.isin(np.arange(36), one.fit[::2]), 0, TARGETS.label))
    assert not same(method(name).run(TARGETS, one), method(name).run(elsewhere, one))


@pytest.mark.parametrize("name", METHODS)
def test_the_prices_of_a_tested_window_change_no_other_prediction(name: str) -> None:
    one = planned()[1]
    inputs, ohlc = INPUTS.clone(), TARGETS.ohlc.copy()
    inputs[one.test[0]], ohlc[one.test[0]] = 50 - inputs[one.test[0]], ohlc[one.test[0], ::-1]
    before, after = method(name).run(TARGETS, one), method(name, inputs).run(replace(TARGETS, ohlc=ohlc), one)
    np.testing.assert_allclose(after.probability[1:], before.probability[1:], rtol=1e-5)
    np.testing.assert_array_equal(after.predicted[1:], before.predicted[1:])
    assert (after.temperature, after.best_epoch) == (before.temperature, before.best_epoch)


@pytest.mark.parametrize("name", METHODS[:3])
def test_windows_that_were_purged_change_nothing(name: str) -> None:
    one = planned()[0]
    gone = one.fit[:3]
    one = replace(one, train=np.setdiff1d(one.train, gone), fit=one.fit[3:])
    inputs = INPUTS.clone()
    inputs[gone] = 1e4
    label = TARGETS.label.copy()
    label[gone] = 1 - label[gone]
    assert same(method(name).run(TARGETS, one), method(name, inputs).run(replace(TARGETS, label=label), one))


@pytest.mark.parametrize("name", METHODS)
def test_an_outcome_speaks_of_the_tested_windows_in_probabilities_and_spans(name: str) -> None:
    one = planned()[2]
    outcome = method(name).run(TARGETS, one)
    for probability in (outcome.probability, outcome.raw):
        assert probability.shape == (len(one.test), 2)
        np.testing.assert_allclose(probability.sum(1), 1)
    assert outcome.predicted.shape == (len(one.test), 2)
    assert (outcome.predicted[:, 0] >= 0).all()
    assert (outcome.predicted[:, 1] <= 104).all()
    epochs = 2 if name in METHODS[:3] else 0
    assert len(outcome.history) == epochs
    assert outcome.best_epoch in (range(epochs) if epochs else [-1])


def test_the_temperature_is_fitted_on_the_held_windows_and_orders_nothing_anew() -> None:
    one = planned()[0]
    outcome = method("head").run(TARGETS, one)
    warmed = apply_temperature(np.log(outcome.raw), outcome.temperature)
    np.testing.assert_allclose(outcome.probability, warmed, rtol=1e-9)
    wrong = TARGETS.label.copy()
    wrong[one.held[::2]] = 1 - wrong[one.held[::2]]
    assert method("head").run(replace(TARGETS, label=wrong), one).temperature != outcome.temperature


def test_a_fresh_network_is_scaled_by_the_fitted_windows_and_a_pretrained_one_keeps_its_scaling() -> None:
    one, encoder = planned()[0], small_encoder()
    mean, std = fit_scaling(INPUTS[one.fit, :, :11].numpy(), 20)
    fresh = NetworkMethod("n", HeadInputs(INPUTS), SETTINGS, encoder, fresh=True).start(one.fit, 5)
    torch.testing.assert_close(fresh.mean, torch.as_tensor(mean))
    torch.testing.assert_close(fresh.std, torch.as_tensor(std))
    assert fresh.card["scaling"] == {"mean": fresh.mean.tolist(), "std": fresh.std.tolist()}
    assert NetworkMethod("n", HeadInputs(INPUTS), SETTINGS, encoder).start(one.fit, 5) is encoder


@pytest.mark.parametrize("name", METHODS[1:3])
def test_a_network_method_leaves_the_encoder_that_it_was_given_as_it_was(name: str) -> None:
    given_method = method(name)
    assert isinstance(given_method, NetworkMethod)
    before = {key: tensor.clone() for key, tensor in given_method.encoder.state_dict().items()}
    given_method.run(TARGETS, planned()[0])
    assert all(torch.equal(tensor, before[key]) for key, tensor in given_method.encoder.state_dict().items())


@pytest.mark.parametrize("encoder", [small_encoder(), Ensemble([small_encoder(), small_encoder("relativity10", 3)])])
def test_a_fresh_copy_has_the_architecture_and_scaling_and_other_weights_from_its_seed(encoder: Encoder) -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    copies = [fresh_copy(encoder, seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.rand(3), expected)  # torch's own generator is left alone
    states = [copy.state_dict() for copy in copies]
    for key, tensor in encoder.state_dict().items():
        if key.rpartition(".")[2] in ("mean", "std"):
            assert all(torch.equal(state[key], tensor) for state in states)
            continue
        assert states[0][key].shape == tensor.shape
        assert torch.equal(states[0][key], states[1][key])
        assert not torch.equal(states[0][key], states[2][key])
        assert not torch.equal(states[0][key], tensor)
    assert copies[0].card == encoder.card


# Running them ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Named:
    """Says which fold it was run on."""

    name: str

    def run(self, targets: Targets, fold: NestedFold) -> FoldOutcome:
        probability = np.full((len(fold.test), 2), [fold.seed / 100, 1 - fold.seed / 100])
        return FoldOutcome(
            probability, probability[:, ::-1], np.full((len(fold.test), 2), fold.index), history=[{"x": 1.0}]
        )


def test_outcomes_come_in_the_order_of_the_units_and_are_heard_the_first_method_first() -> None:
    many, heard = planned(repeats=2, seeds=(1, 2)), []
    done = cross_validate(
        [Named("a"), Named("b")], TARGETS, many, on_outcome=lambda name, number, outcome: heard.append((name, number))
    )
    assert heard == list(product("ab", range(12)))
    for outcomes in (done["a"], done["b"]):
        assert [int(outcome.predicted[0, 0]) for outcome in outcomes] == [one.index for one in many]
        assert [outcome.probability[0, 0] for outcome in outcomes] == [one.seed / 100 for one in many]


@pytest.mark.parametrize(("heard_before", "complete"), [(0, []), (2, []), (3, ["a"]), (5, ["a"]), (6, ["a", "b"])])
def test_asked_to_stop_it_returns_the_methods_that_are_complete(heard_before: int, complete: list[str]) -> None:
    heard: list[int] = []
    done = cross_validate(
        [Named("a"), Named("b")], TARGETS, planned(), on_outcome=lambda name, number, outcome: heard.append(number),
        should_stop=lambda: "SIGINT" if len(heard) == heard_before else None,
    )  # fmt: skip
    assert len(heard) == heard_before
    assert list(done) == complete


@pytest.mark.parametrize("reason", [None, "SIGTERM"])
def test_workers_that_die_of_the_signal_that_stops_it_are_no_failure(
    monkeypatch: pytest.MonkeyPatch, reason: str | None
) -> None:
    def broken(*arguments: object) -> None:
        raise TrainingError("a worker process died")

    monkeypatch.setattr("moola_mlflow.evaluation.crossval.run_tasks", broken)
    with nullcontext() if reason else pytest.raises(TrainingError, match="died"):
        assert cross_validate([Named("a")], TARGETS, planned(), should_stop=lambda: reason) == {}


@pytest.mark.slow
def test_the_number_of_processes_changes_no_bit_of_any_method() -> None:
    many = planned(folds=2, seeds=(13, 17))
    methods = [method(name) for name in METHODS]
    one, two = (cross_validate(methods, TARGETS, many, workers=workers) for workers in (1, 2))
    assert list(one) == list(two) == list(METHODS)
    for name in METHODS:
        assert [same(a, b) for a, b in zip(one[name], two[name], strict=True)] == [True] * 4
    for name in METHODS[:3]:
        assert not np.array_equal(one[name][0].probability, one[name][2].probability)  # seeds differ


@settings(max_examples=20)
@given(seed=st.integers(0, 99), order=st.randoms(use_true_random=False))
def test_pooled_predictions_hold_each_windows_own_fold_once_a_seed_and_repeat(seed: int, order: object) -> None:
    rng = np.random.default_rng(seed)
    many = planned(repeats=2, seeds=(5, 3))
    order.shuffle(many)  # type: ignore[attr-defined]
    outcomes = [
        FoldOutcome(rng.random((len(u.test), 2)), rng.random((len(u.test), 2)), rng.integers(0, 105, (len(u.test), 2)))
        for u in many
    ]
    for calibrated in (True, False):
        found = pooled_predictions(outcomes, many, LABELS, calibrated=calibrated)
        assert found.probability.shape == (4, 36, 2)
        for fold, outcome in zip(many, outcomes, strict=True):
            k = [(3, 0), (3, 1), (5, 0), (5, 1)].index((fold.seed, fold.repeat))
            for row, window in enumerate(fold.test):
                said = outcome.probability if calibrated else outcome.raw
                np.testing.assert_array_equal(found.probability[k, window], said[row])
                np.testing.assert_array_equal(found.predicted[k, window], outcome.predicted[row])
    np.testing.assert_array_equal(found.label, LABELS.label)
    np.testing.assert_array_equal(found.span, np.stack([LABELS.start, LABELS.end], 1))


def test_a_window_that_no_fold_tested_is_no_number_rather_than_a_guess() -> None:
    many = planned()[:2]
    found = pooled_predictions([Named("a").run(TARGETS, one) for one in many], many, LABELS)
    untested = np.setdiff1d(np.arange(36), np.concatenate([one.test for one in many]))
    assert np.isnan(found.probability[0, untested]).all()
    assert not np.isnan(np.delete(found.probability[0], untested, 0)).any()


def test_the_same_minutes_of_another_instrument_are_never_on_the_other_side() -> None:
    one = small_labels(40)
    assert one.start_ns is not None
    assert one.end_ns is not None
    both = replace(
        one,
        window_id=np.concatenate([one.window_id, np.char.add(one.window_id, "m")]),
        ohlc=np.concatenate([one.ohlc, one.ohlc + 100.25]),
        instrument=np.repeat(["ES", "MES"], len(one)),
        **{name: np.tile(getattr(one, name), 2) for name in ("label", "start", "end", "start_ns", "end_ns")},
    )
    for kind in ("time", "stratified"):
        for fold in plan_folds(both, CvConfig(folds=3, kind=kind), [3]):
            for part, other in ((fold.test, fold.train), (fold.held, fold.fit)):
                assert not set(both.start_ns[part]) & set(both.start_ns[other])


def test_windows_that_share_bars_are_never_on_two_sides_though_their_times_say_they_are_days_apart() -> None:
    labels = small_labels(60)
    ohlc = labels.ohlc.copy()
    for i in range(0, 60, 5):
        ohlc[(i + 31) % 60, :40] = ohlc[i, -40:]
    for kind in ("time", "stratified"):
        for fold in plan_folds(replace(labels, ohlc=ohlc), CvConfig(folds=3, kind=kind), [3]):
            parts = [set(part.tolist()) for part in (fold.test, fold.held, fold.fit)]
            for i in range(0, 60, 5):
                assert sum(bool(part & {i, (i + 31) % 60}) for part in parts) <= 1


def test_units_of_neighbouring_seeds_draw_different_inner_splits() -> None:
    labels = small_labels(60)
    folds = plan_folds(labels, CvConfig(folds=5), [13, 14, 15, 16, 17])
    assert len({tuple(fold.held) for fold in folds}) > len(folds) // 2
