"""Windows in, patterns out: the same whatever the batch, and by the one path that training took."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_models import CLASSES, small_detector, small_encoder, windows

from moola_mlflow.core.errors import UserError
from moola_mlflow.features import FeatureChoice, Hybrid
from moola_mlflow.features.price_path import price_path_features
from moola_mlflow.features.relativity import compute_features
from moola_mlflow.models import detector as detector_module
from moola_mlflow.models.calibration import apply_temperature
from moola_mlflow.models.detector import PatternDetector, detector_inputs, encoder_features
from moola_mlflow.models.embedding import embed
from moola_mlflow.models.encoders.ensemble import Ensemble
from moola_mlflow.models.heads import Inputs

KINDS: list[tuple[Inputs, int]] = [("encoding", 1), ("price_path", 0), ("both", 1), ("both", 2)]


@pytest.fixture(params=KINDS, ids=["encoding", "price_path", "both", "ensemble"])
def detector(request: pytest.FixtureRequest) -> PatternDetector:
    return small_detector(*request.param)


def test_an_encoder_gets_the_features_of_its_own_card_and_an_ensemble_each_members() -> None:
    ohlc = windows()
    eleven, ten = small_encoder("relativity11"), small_encoder("relativity10")
    side_by_side = encoder_features(Ensemble([eleven, ten]), ohlc)
    assert torch.equal(side_by_side[..., :11], torch.from_numpy(compute_features(ohlc, "relativity11")))
    assert torch.equal(side_by_side[..., 11:], torch.from_numpy(compute_features(ohlc, "relativity10")))
    other = small_encoder("relativity10")
    other.card["features"]["hybrid"] = {"lookback": 6, "min_retrace": 0.3, "same_bar": True}
    assert not torch.equal(encoder_features(other, ohlc), encoder_features(ten, ohlc))


def test_inputs_are_the_encoding_that_embed_returns_and_the_path_features_beside_it() -> None:
    ohlc, encoder = windows(), small_encoder()
    both = detector_inputs(encoder, "both", ohlc)
    assert torch.allclose(both[..., :8], embed(encoder, ohlc, "none"), atol=1e-6)
    assert torch.equal(both[..., 8:], torch.from_numpy(price_path_features(ohlc)))
    assert torch.equal(detector_inputs(encoder, "encoding", ohlc), both[..., :8])
    assert torch.equal(detector_inputs(None, "price_path", ohlc), both[..., 8:])
    assert not both.requires_grad


def test_features_of_a_set_follow_the_other_inputs() -> None:
    ohlc, encoder, ten = windows(), small_encoder(), FeatureChoice("relativity10", Hybrid(6, 0.3, same_bar=True))
    own = torch.from_numpy(compute_features(ohlc, "relativity10", ten.hybrid))
    for base, reads in (("encoding", encoder), ("price_path", None), ("both", encoder)):
        found = detector_inputs(reads, f"{base}+features", ohlc, features=ten)  # type: ignore[arg-type]
        alone = detector_inputs(reads, base, ohlc)  # type: ignore[arg-type]
        assert torch.equal(found, torch.cat([alone, own], -1))


def test_an_encoding_needs_an_encoder_and_features_a_set() -> None:
    with pytest.raises(ValueError, match="inputs='both' needs an encoder"):
        detector_inputs(None, "both", windows())
    with pytest.raises(ValueError, match=r"inputs='price_path\+features' needs a set of features"):
        detector_inputs(None, "price_path+features", windows())


def test_an_encoder_in_training_is_read_in_evaluation_mode_and_left_as_it_was() -> None:
    encoder = Ensemble([small_encoder(), small_encoder(seed=1)]).train()
    assert torch.equal(detector_inputs(encoder, "encoding", windows()), detector_inputs(encoder, "encoding", windows()))
    assert encoder.training


def test_a_window_is_found_alike_alone_and_among_others(
    detector: PatternDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    ohlc = windows(23)
    together = detector.predict(ohlc)
    monkeypatch.setattr(detector_module, "CHUNK", 7)
    chunked = detector.predict(ohlc)
    alone = [detector.predict(ohlc[i : i + 1]) for i in range(len(ohlc))]
    for other in (chunked.probability, np.concatenate([found.probability for found in alone])):
        np.testing.assert_allclose(other, together.probability, atol=1e-5)
    for name in ("label", "start", "end"):
        expected = getattr(together, name).tolist()
        assert getattr(chunked, name).tolist() == expected
        assert [getattr(found, name)[0] for found in alone] == expected


def test_ten_thousand_windows_pass() -> None:
    found = small_detector("both").predict(np.tile(windows(100), (100, 1, 1)))
    assert len(found) == 10_000
    np.testing.assert_allclose(found.probability[:100], found.probability[-100:], atol=1e-5)


def test_what_is_found_has_the_promised_shapes_and_ranges(detector: PatternDetector) -> None:
    found = detector.predict(windows())
    assert found.probability.shape == (5, 2)
    assert found.probability.dtype == np.float64
    np.testing.assert_allclose(found.probability.sum(1), 1, atol=1e-12)
    assert found.label.tolist() == [CLASSES[i] for i in found.probability.argmax(1)]
    assert found.start.dtype == found.end.dtype == np.int64
    lengths = found.end - found.start + 1
    assert (found.start.min() >= 0, found.end.max() <= 104) == (True, True)
    assert set(lengths.tolist()) <= set(range(5, 13))


def test_probabilities_are_the_heads_logits_at_the_temperature(detector: PatternDetector) -> None:
    with torch.no_grad():
        output = detector.head(detector_inputs(detector.encoder, detector.inputs, windows()))
    for temperature in (0.5, 4.0):
        found = replace(detector, temperature=temperature).predict(windows())
        np.testing.assert_allclose(
            found.probability, apply_temperature(output.class_logits.numpy(), temperature), atol=1e-6
        )


def test_no_window_gives_no_row_and_malformed_ones_are_refused(detector: PatternDetector) -> None:
    none = detector.predict(np.zeros((0, 105, 4)))
    assert (len(none), none.probability.shape, none.start.shape) == (0, (0, 2), (0,))
    with pytest.raises(UserError, match=r"shape \(5, 104, 4\); allowed: \[N, 105, 4\]"):
        detector.predict(windows()[:, :104])
    broken = windows()
    broken[2, 7, 1] = np.nan
    with pytest.raises(UserError, match="window 2, step 7 is not a bar"):
        detector.predict(broken)


def test_a_head_that_was_left_in_training_mode_predicts_without_dropout_and_stays_so() -> None:
    detector = small_detector("both")
    expected = detector.predict(windows()).probability
    detector.head.train()
    np.testing.assert_array_equal(detector.predict(windows()).probability, expected)
    assert detector.head.training


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"inputs": "encoding"}, "the head reads 64 inputs a step, inputs='encoding' makes 8"),
        ({"inputs": "all"}, "allowed: encoding, price_path, both"),
        ({"encoder": None}, "needs an encoder"),
        ({"classes": ("a", "a")}, "two or more, each once"),
        ({"temperature": float("nan")}, "temperature=nan"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changed: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(small_detector("both"), **changed)
