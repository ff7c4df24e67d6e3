"""A detector that is fitted again on all labels serves what was compared; its card and tags name what it reads."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from finetune_settings import KINDS, LABELS, encoders_of, setting
from own_features import add_marks, marked_labels
from small_labels import small_labels
from small_models import small_encoder

from moola_mlflow.core import FinetuneKeys, make_config
from moola_mlflow.evaluation.crossval import FoldOutcome
from moola_mlflow.evaluation.evidence import DETECTOR, Evidence, collect_evidence
from moola_mlflow.evaluation.folds import NestedFold, plan_folds
from moola_mlflow.evaluation.methods import (
    FinetuneSetting,
    refit_detector,
)
from moola_mlflow.features.relativity import compute_features
from moola_mlflow.models.detector import PatternDetector
from moola_mlflow.models.encoders.ensemble import Ensemble
from moola_mlflow.models.files.detector import load_detector_folder, save_detector
from moola_mlflow.reports.finetune_results import detector_card, detector_version_tags
from moola_mlflow.windows.batches import fit_scaling

# The refit ---------------------------------------------------------------------------------------------------------


def served(given: FinetuneSetting, epochs: int = 2, seed: int = 17) -> PatternDetector:
    encoder, head = refit_detector(given, epochs, seed)
    return PatternDetector(head, encoder, given.inputs, LABELS.classes, 1.4, {}, given.features)


@pytest.mark.parametrize(("kind", "head"), [*product(KINDS, ["span"]), ("frozen", "pooled"), ("unfrozen", "pooled")])
def test_a_refit_detector_finds_the_same_after_it_was_saved_and_loaded(tmp_path: Path, kind: str, head: str) -> None:
    given = setting(kind, finetune__head=head)
    detector = served(given)
    save_detector(detector, tmp_path / "d")
    loaded, fresh = load_detector_folder(tmp_path / "d"), small_labels(9, seed=99).ohlc
    for ohlc in (LABELS.ohlc, fresh):
        one, other = detector.predict(ohlc), loaded.predict(ohlc)
        np.testing.assert_array_equal(one.probability, other.probability)
        np.testing.assert_array_equal(one.start, other.start)
        np.testing.assert_array_equal(one.end, other.end)
    assert np.isfinite(one.probability).all()
    assert detector.head.head.lengths == (
        int((LABELS.end - LABELS.start + 1).min()), int((LABELS.end - LABELS.start + 1).max())
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        ("frozen", "encoding+features"),
        ("ensemble", "both+features"),
        ("unfrozen", "encoding+features"),
        ("scratch", "both+features"),
        ("price_path", "price_path+features"),
    ],
)
def test_a_refit_detector_keeps_the_features_that_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, inputs: str
) -> None:
    add_marks(monkeypatch)
    given = setting(kind, finetune__inputs=inputs, features__set="relativity10+marks")
    detector = served(given)
    save_detector(detector, tmp_path / "d")
    loaded = load_detector_folder(tmp_path / "d")
    ohlc = marked_labels(9, seed=99).ohlc
    one, other = detector.predict(ohlc), loaded.predict(ohlc)
    np.testing.assert_array_equal(one.probability, other.probability)
    np.testing.assert_array_equal(one.start, other.start)
    assert loaded.features == given.features
    assert loaded.card["features"]["set"] == "relativity10+marks"
    assert "relativity10+marks" in detector_version_tags(given, evidence(), "preset", "passed")["features"]


@pytest.mark.parametrize("kind", ["frozen", "ensemble"])
def test_a_refit_on_frozen_encoders_leaves_them_to_the_last_bit(kind: str) -> None:
    given = setting(kind)
    assert given.encoder is not None
    before = {name: tensor.clone() for name, tensor in given.encoder.state_dict().items()}
    encoder, _ = refit_detector(given, 2, 17)
    assert encoder is given.encoder
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


@pytest.mark.parametrize("kind", ["unfrozen", "ensemble trained on"])
def test_a_refit_that_trains_on_changes_a_copy_of_the_encoder_and_keeps_its_scaling(kind: str) -> None:
    given = setting(kind)
    assert given.encoder is not None
    before = {name: tensor.clone() for name, tensor in given.encoder.state_dict().items()}
    encoder, _ = refit_detector(given, 2, 17)
    assert encoder is not None
    assert all(torch.equal(tensor, before[name]) for name, tensor in given.encoder.state_dict().items())
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, before[name]) == (name.rpartition(".")[2] in ("mean", "std")), name
    assert isinstance(encoder, Ensemble) == (kind != "unfrozen")
    assert not encoder.training


def test_a_refit_from_scratch_has_the_configured_architecture_and_the_scaling_of_all_labels() -> None:
    encoder, _ = refit_detector(setting("scratch"), 1, 17)
    assert encoder is not None
    assert (encoder.output_size, encoder.card["features"]["set"]) == (6, "relativity11")
    mean, std = fit_scaling(compute_features(LABELS.ohlc, "relativity11"), 20)
    torch.testing.assert_close(encoder.mean, torch.as_tensor(mean))
    torch.testing.assert_close(encoder.std, torch.as_tensor(std))


def test_a_detector_on_path_features_needs_no_encoder() -> None:
    assert refit_detector(setting("price_path"), 1, 17)[0] is None
    assert refit_detector(setting("price_path", [small_encoder()]), 1, 17)[0] is None


@pytest.mark.parametrize("kind", ["price_path", "scratch"])
def test_a_refit_takes_the_epochs_it_is_given_and_follows_its_seed(kind: str) -> None:
    given = setting(kind)
    one, same, other, longer = (
        served(given, epochs, seed).predict(LABELS.ohlc).probability
        for epochs, seed in ((1, 17), (1, 17), (1, 18), (2, 17))
    )
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert not np.array_equal(one, longer)


# Card and tags -----------------------------------------------------------------------------------------------------


def evidence() -> Evidence:
    folds = plan_folds(LABELS, make_config(FinetuneKeys, {}, {"cv.folds": 2}).cv, (17,))

    def said(fold: NestedFold) -> FoldOutcome:
        probability = np.eye(2)[LABELS.label[fold.test]] * 0.8 + 0.1
        return FoldOutcome(probability, probability, np.stack([LABELS.start, LABELS.end], 1)[fold.test], 1.0, 1)

    return collect_evidence(LABELS, folds, {name: [said(fold) for fold in folds] for name in (DETECTOR, "scratch")})


@pytest.mark.parametrize(
    ("kind", "features", "until"),
    [
        ("price_path", "price_path", "unknown"),
        ("price_path with an encoder", "price_path", "unknown"),
        ("scratch", "relativity11", "unknown"),
        ("frozen", "relativity11", "2021-01-01T00:00:00Z"),
        ("ensemble", "relativity11,relativity10", "2022-01-01T00:00:00Z"),
    ],
)
def test_a_versions_tags_say_what_the_detector_reads_and_until_when_its_encoders_were_trained(
    kind: str, features: str, until: str
) -> None:
    given = setting("price_path", encoders_of("frozen")) if kind == "price_path with an encoder" else setting(kind)
    tags = detector_version_tags(given, evidence(), "preset", "passed")
    assert (tags["features"], tags["trained_until"], tags["window"]) == (features, until, "105")
    assert (tags["f1_macro"], tags["joint_success_at_3"], tags["weak_labels"]) == ("1.0000", "1.0000", "false")


@pytest.mark.parametrize(("inputs", "read"), [("price_path", "encoding"), ("encoding", "encoding"), ("both", "both")])
def test_card_and_tags_say_what_the_networks_read_that_the_detector_is_compared_with(inputs: str, read: str) -> None:
    given = setting("frozen", finetune__inputs=inputs)
    found = replace(evidence(), pretrained=inputs != "price_path")
    assert detector_version_tags(given, found, "preset", "passed")["moola.delta_inputs"] == read
    told = detector_card(given, found, [], 0.0, "r")["evidence"]
    assert (told["delta_inputs"], told["delta_same_inputs"]) == (read, inputs != "price_path")


def test_the_card_names_encoders_labels_and_evidence_in_plain_json() -> None:
    given = setting("ensemble")
    named = list(zip(("a", "b"), encoders_of("ensemble"), strict=True))
    card = json.loads(json.dumps(detector_card(given, evidence(), named, 0.25, "r"), allow_nan=False))
    assert [row["uri"] for row in card["encoders"]] == ["a", "b"]
    assert (card["fitted"], card["pretrain_overlap"], card["epochs"]) == ("frozen", 0.25, 2)
    assert card["labels"]["counts"] == {"consolidation": 12, "retracement": 12}
    assert card["evidence"]["f1_macro"] == 1.0
    assert card["evidence"]["identity_encoder"] is False
