"""The contract of baselines: every one in the registry passes all of it."""

from __future__ import annotations

import numpy as np
import pytest

from moola_mlflow.bars.reader import read_bars
from moola_mlflow.core import BarsConfig
from moola_mlflow.core.errors import UserError
from moola_mlflow.evaluation.baselines import BASELINES, TITLES, Prediction, predict_baseline
from moola_mlflow.evaluation.baselines.statistics import window_statistics
from moola_mlflow.labels.surge_rule import NO_SURGE, apply_rule
from moola_mlflow.labels.targets import Targets
from moola_mlflow.labels.weak import weak_labels

FIT, NUM = 70, 100


@pytest.fixture(params=sorted(BASELINES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


class Labelled:
    """Weakly labelled windows of sample bars, the first 70 of them to fit on."""

    def __init__(self) -> None:
        labels = weak_labels(read_bars(BarsConfig(sample_bars=30_000)), NUM, seed=0)
        self.ohlc, self.label, self.start, self.end = labels.ohlc, labels.label, labels.start, labels.end
        self.train, self.test = np.arange(FIT), np.arange(FIT, NUM)

    def predict(self, name: str, seed: int = 5, num_classes: int = 2, **changed: np.ndarray) -> Prediction:
        columns = {column: changed.get(column, getattr(self, column)) for column in ("ohlc", "label", "start", "end")}
        return predict_baseline(name, Targets(**columns, num_classes=num_classes), self.train, self.test, seed)


@pytest.fixture(scope="module")
def labelled() -> Labelled:
    return Labelled()


def assert_legal(prediction: Prediction, num: int, num_classes: int = 2, num_bars: int = 105) -> None:
    probability, span = prediction
    assert probability.shape == (num, num_classes)
    assert probability.dtype == np.float64
    assert np.isfinite(probability).all()
    assert (probability >= 0).all()
    np.testing.assert_allclose(probability.sum(1), 1, atol=1e-12)
    assert span.shape == (num, 2)
    assert span.dtype == np.int64
    assert ((span[:, 0] >= 0) & (span[:, 0] < span[:, 1]) & (span[:, 1] < num_bars)).all()


def assert_same(a: Prediction, b: Prediction) -> None:
    np.testing.assert_allclose(a[0], b[0], atol=1e-6)
    np.testing.assert_array_equal(a[1], b[1])


def test_probabilities_sum_to_one_and_spans_lie_in_the_window(labelled: Labelled, name: str) -> None:
    assert_legal(labelled.predict(name), len(labelled.test))


def test_the_same_seed_gives_the_same_answer(labelled: Labelled, name: str) -> None:
    for a, b in zip(labelled.predict(name), labelled.predict(name), strict=True):
        np.testing.assert_array_equal(a, b)


def test_labels_and_spans_of_test_windows_are_not_read(labelled: Labelled, name: str) -> None:
    label, start, end = labelled.label.copy(), labelled.start.copy(), labelled.end.copy()
    label[FIT:], start[FIT:], end[FIT:] = 1 - label[FIT:], 0, 104
    assert_same(labelled.predict(name), labelled.predict(name, label=label, start=start, end=end))


def test_prices_of_a_test_window_change_its_own_row_alone(labelled: Labelled, name: str) -> None:
    ohlc = labelled.ohlc.copy()
    ohlc[FIT + 3] = ohlc[FIT + 3, ::-1][:, [3, 1, 2, 0]]  # the same window backwards
    before, after = labelled.predict(name), labelled.predict(name, ohlc=ohlc)
    others = np.arange(len(labelled.test)) != 3
    assert_same((before[0][others], before[1][others]), (after[0][others], after[1][others]))
    if name != "majority":
        assert not np.array_equal(before[0][3], after[0][3])


def test_training_labels_are_learned_from(labelled: Labelled, name: str) -> None:
    label = labelled.label.copy()
    label[:FIT] = 1 - label[:FIT]
    assert not np.allclose(labelled.predict(name)[0], labelled.predict(name, label=label)[0])


@pytest.mark.parametrize(("scale", "shift"), [(8.0, 0.0), (1.0, 5000.0), (0.013, 0.0), (3.7, -900.0)])
def test_the_answer_does_not_depend_on_the_price_level_or_its_unit(
    labelled: Labelled, name: str, scale: float, shift: float
) -> None:
    assert_same(labelled.predict(name), labelled.predict(name, ohlc=labelled.ohlc * scale + shift))


def test_three_classes_work(labelled: Labelled, name: str) -> None:
    label = labelled.label.copy()
    label[::5] = 2
    assert_legal(labelled.predict(name, num_classes=3, label=label), len(labelled.test), 3)


@pytest.mark.parametrize("held", [[0, 2], [1]])
def test_a_class_that_the_training_part_lacks_has_probability_zero(
    labelled: Labelled, name: str, held: list[int]
) -> None:
    label = np.array(held)[np.arange(len(labelled.label)) % len(held)]
    prediction = labelled.predict(name, num_classes=3, label=label)
    assert_legal(prediction, len(labelled.test), 3)
    assert (np.delete(prediction[0], held, axis=1) == 0).all()
    assert (prediction[0][:, held] > 0).all()


def test_windows_that_do_not_move_work_on_either_side(labelled: Labelled, name: str) -> None:
    ohlc = labelled.ohlc.copy()
    ohlc[[0, 1, FIT]] = 5000.0  # no bar has a range, no close differs
    ohlc[[2, FIT + 1]] = ohlc[[2, FIT + 1]][:, :, 3:]  # closes only: no bar has a range
    ohlc[3, :60] = ohlc[FIT + 2, :60] = ohlc[3, 0, 3]  # most bars have none
    assert_legal(labelled.predict(name, ohlc=ohlc), len(labelled.test))


def test_nothing_but_windows_that_do_not_move_works(labelled: Labelled, name: str) -> None:
    assert_legal(labelled.predict(name, ohlc=np.full_like(labelled.ohlc, 5000.0)), len(labelled.test))


def test_what_uses_prices_beats_the_majority_in_telling_classes_apart(labelled: Labelled, name: str) -> None:
    probability = labelled.predict(name)[0]
    label = labelled.label[labelled.test]
    above = probability[label == 1, 1][:, None] - probability[label == 0, 1]
    auroc = (above > 0).mean() + (above == 0).mean() / 2
    assert auroc == 0.5 if name == "majority" else auroc > 0.55


def test_the_rule_finds_what_the_labels_rule_labelled(labelled: Labelled) -> None:
    probability, span = labelled.predict("rule")
    np.testing.assert_array_equal(span[:, 0], labelled.start[labelled.test])
    np.testing.assert_array_equal(span[:, 1], labelled.end[labelled.test])
    np.testing.assert_array_equal(probability.argmax(1), labelled.label[labelled.test])


def test_the_rule_measures_a_fall_as_it_measures_a_rise(labelled: Labelled) -> None:
    upside_down = -labelled.ohlc[..., [0, 2, 1, 3]]
    assert_same(labelled.predict("rule"), labelled.predict("rule", ohlc=upside_down))


def test_the_rule_points_at_a_surge_too_weak_for_a_label(labelled: Labelled) -> None:
    """A saw of range 1 and a rise of 3 over bars 50..57: 1.06 strong, where a label asks for 1.8."""
    close = 100 + 0.5 * (np.arange(105) % 2)
    close[50:58] += np.arange(1, 9) * 3 / 8
    close[58:] += 3
    opened = np.concatenate([close[:1], close[:-1]])
    window = np.stack([opened, np.maximum(opened, close) + 0.25, np.minimum(opened, close) - 0.25, close], 1)
    assert apply_rule(window[None])[0][0] == NO_SURGE
    ohlc = labelled.ohlc.copy()
    ohlc[FIT] = window
    start, end = labelled.predict("rule", ohlc=ohlc)[1][0]
    assert 45 <= start <= end <= 62


def test_statistics_of_a_known_path_are_as_defined() -> None:
    """Closes rise by 1 a bar; every bar has range 2, so a bar's move is half a range."""
    close = np.arange(105.0)
    window = np.stack([close, close + 1, close - 1, close], 1)[None]
    net, span, spread, range_spread, body, efficiency, place, up = window_statistics(window)[0, :8]
    assert (net, span, spread, range_spread, body) == (52, 53, 0, 0, 0)
    assert (efficiency, up) == (1, 1)
    assert place == pytest.approx(105 / 106)
    assert np.isfinite(window_statistics(window)).all()


def test_every_baseline_has_a_title_of_its_own() -> None:
    assert set(TITLES) == set(BASELINES) >= {"boosting", "logistic", "majority", "rule"}
    assert len(set(TITLES.values())) == len(TITLES)


def test_an_unknown_baseline_suggests_the_nearest(labelled: Labelled) -> None:
    with pytest.raises(UserError, match="did you mean 'boosting'"):
        labelled.predict("bosting")
