"""The prior reader in folds, in the final fit and in a served detector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_features import add_marks, marked_labels
from prior_settings import LABELS, encoder_with_heads, setting
from small_models import small_encoder

from moola_mlflow.core.errors import UserError
from moola_mlflow.evaluation.crossval import FoldOutcome, HeadMethod, cross_validate
from moola_mlflow.evaluation.evidence import DETECTOR
from moola_mlflow.evaluation.folds import NestedFold, plan_folds
from moola_mlflow.evaluation.methods import detector_method, refit_detector
from moola_mlflow.evaluation.prior_method import PriorMethod
from moola_mlflow.labels.labelled_set import LabelledSet
from moola_mlflow.labels.targets import Targets
from moola_mlflow.models.detector import PatternDetector
from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.files.detector import load_detector_folder, save_detector


@pytest.mark.parametrize(
    ("keys", "reader", "inputs"),
    [
        ({}, "prior", "encoding"),
        ({"finetune.reader": "prior"}, "prior", "encoding"),
        ({"finetune.reader": "head"}, "head", "both"),
        ({"finetune.inputs": "price_path"}, "head", "price_path"),
        ({"finetune.inputs": "price_path+features"}, "head", "price_path+features"),
        ({"finetune.inputs": "both"}, "prior", "both"),
        ({"finetune.inputs": "features+encoding"}, "prior", "encoding+features"),
        ({"finetune.inputs": "encoding+price_path+features"}, "prior", "both+features"),
        ({"finetune.head": "pooled"}, "head", "both"),
        ({"finetune.freeze": False}, "head", "both"),
    ],
)
def test_the_prior_reader_reads_frozen_encoders_with_task_heads_unless_a_head_is_asked_for(
    keys: dict[str, Any], reader: str, inputs: str
) -> None:
    given = setting([encoder_with_heads()], **keys)
    assert (given.reader, given.inputs) == (reader, inputs)
    assert isinstance(detector_method(given), PriorMethod) == (reader == "prior")


def test_without_task_heads_a_head_reads() -> None:
    assert isinstance(detector_method(setting([small_encoder()])), HeadMethod)
    mixed = setting([encoder_with_heads(), small_encoder(seed=1)])
    assert mixed.reader == "head"


@pytest.mark.parametrize(
    ("encoders", "keys"),
    [
        ([small_encoder()], {}),
        ([], {}),
        ([encoder_with_heads()], {"finetune.freeze": False}),
        ([encoder_with_heads()], {"finetune.inputs": "price_path"}),
        ([encoder_with_heads()], {"finetune.inputs": "price_path+features"}),
    ],
)
def test_a_prior_reader_that_is_asked_for_and_cannot_be_is_refused(
    encoders: list[Encoder], keys: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match=r"finetune\.reader=prior"):
        setting(encoders, **{"finetune.reader": "prior", **keys})


@pytest.mark.parametrize("num_encoders", [1, 2])
def test_folds_are_predicted_by_fits_that_never_saw_them_and_alike_every_time(num_encoders: int) -> None:
    given = setting([encoder_with_heads(i, 4 + i) for i in range(num_encoders)])
    folds = plan_folds(LABELS, given.config.cv, [17])
    targets = Targets.of(LABELS)
    method = detector_method(given)
    first, again = (cross_validate([method], targets, folds)[DETECTOR] for _ in range(2))
    for fold, one, other in zip(folds, first, again, strict=True):
        assert np.array_equal(one.probability, other.probability)
        assert np.array_equal(one.predicted, other.predicted)
        assert one.probability.shape == (len(fold.test), 2)
        assert (one.temperature, one.best_epoch) == (1.0, -1)
        lengths = one.predicted[:, 1] - one.predicted[:, 0] + 1
        shortest, longest = targets.span_lengths(fold.train)
        assert ((lengths >= shortest) & (lengths <= longest)).all()
    assert isinstance(method, PriorMethod)
    spoiled = Targets(targets.label.copy(), targets.start.copy(), targets.end.copy(), targets.ohlc, 2)
    spoiled.label[folds[0].test] = 1 - spoiled.label[folds[0].test]
    assert np.array_equal(method.run(spoiled, folds[0]).probability, first[0].probability)


@pytest.mark.parametrize("num_encoders", [1, 2])
def test_a_refit_detector_finds_the_same_after_it_was_saved_and_loaded(tmp_path: Path, num_encoders: int) -> None:
    given = setting([encoder_with_heads(i, 4 + i) for i in range(num_encoders)])
    encoder, head = refit_detector(given, epochs=0, seed=1)
    detector = PatternDetector(head, encoder, given.inputs, LABELS.classes, 1.0, {})
    found = detector.predict(LABELS.ohlc)
    assert np.isfinite(found.span_score).all()
    save_detector(detector, tmp_path / "detector")
    again = load_detector_folder(tmp_path / "detector").predict(LABELS.ohlc)
    np.testing.assert_array_equal(found.start, again.start)
    np.testing.assert_allclose(found.probability, again.probability, rtol=1e-6)


@pytest.mark.parametrize("num_encoders", [1, 2])
@pytest.mark.parametrize(("reader", "least"), [("prior", 0.8), ("head", 0.6)])
def test_a_feature_of_ones_own_raises_the_detectors_score_in_the_folds(
    monkeypatch: pytest.MonkeyPatch, num_encoders: int, reader: str, least: float
) -> None:
    add_marks(monkeypatch)
    labels = marked_labels(36)
    targets, encoders = Targets.of(labels), [encoder_with_heads(i, 4 + i) for i in range(num_encoders)]
    keys = {"finetune.inputs": "encoding+features", "finetune.reader": reader, "trainer.epochs": 20}
    found = {}
    for name in ("relativity10", "relativity10+marks", "again"):
        features = "relativity10+marks" if name == "again" else name
        given = setting(encoders, labels, **keys, **{"features.set": features})
        folds = plan_folds(labels, given.config.cv, [17])
        found[name] = cross_validate([detector_method(given)], targets, folds)[DETECTOR]
    shares = {name: share_right(labels, folds, outcomes) for name, outcomes in found.items()}
    assert shares["relativity10"] < 0.4
    assert shares["relativity10+marks"] > least
    for one, other in zip(found["relativity10+marks"], found["again"], strict=True):
        assert np.array_equal(one.probability, other.probability)
        assert np.array_equal(one.predicted, other.predicted)


def share_right(labels: LabelledSet, folds: list[NestedFold], outcomes: list[FoldOutcome]) -> float:
    """Return the share of windows with the right class and the centre within 3 bars."""
    right = []
    for fold, outcome in zip(folds, outcomes, strict=True):
        span = np.stack([labels.start, labels.end], 1)[fold.test]
        near = np.abs(outcome.predicted.sum(1) - span.sum(1)) <= 6
        right.append(near & (outcome.probability.argmax(1) == labels.label[fold.test]))
    return float(np.concatenate(right).mean())


@pytest.mark.parametrize("inputs", ["encoding+features", "both", "both+features"])
def test_further_inputs_reach_a_refit_detector_that_was_saved_and_loaded(tmp_path: Path, inputs: str) -> None:
    given = setting([encoder_with_heads(), encoder_with_heads(1, 5)], **{"finetune.inputs": inputs})
    encoder, head = refit_detector(given, epochs=0, seed=1)
    detector = PatternDetector(head, encoder, given.inputs, LABELS.classes, 1.0, {}, given.features)
    further = len(head.mean) - 18
    assert further == {"encoding+features": 11, "both": 56, "both+features": 67}[inputs]
    assert torch.equal(head.mean[:18], torch.zeros(18))
    assert (head.std[18:] != 1).any()
    pointer = head.head.get_parameter("pointer.weight")
    assert (pointer[:, 18:] != 0).any(0).all()
    save_detector(detector, tmp_path / "detector")
    loaded = load_detector_folder(tmp_path / "detector")
    assert loaded.features == given.features
    found, again = detector.predict(LABELS.ohlc), loaded.predict(LABELS.ohlc)
    np.testing.assert_array_equal(found.start, again.start)
    np.testing.assert_array_equal(found.probability, again.probability)


def test_a_fold_standardises_further_inputs_without_its_test_windows() -> None:
    given = setting([encoder_with_heads()], **{"finetune.inputs": "encoding+features"})
    fold, targets, method = plan_folds(LABELS, given.config.cv, [17])[0], Targets.of(LABELS), detector_method(given)
    assert isinstance(method, PriorMethod)
    before = method.fit(targets, fold.train)
    method.inputs.values[fold.test] *= 3
    assert method.inputs.mirrored is not None
    method.inputs.mirrored[fold.test] *= 3
    after = method.fit(targets, fold.train)
    for name, tensor in before.state_dict().items():
        assert torch.equal(tensor, after.state_dict()[name]), name
