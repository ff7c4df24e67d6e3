"""The average of prior reader and span heads: in folds, in the final fit, on disk, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from prior_settings import LABELS, encoder_with_heads, setting
from small_labels import small_labels

from moola_mlflow.core.errors import UserError
from moola_mlflow.evaluation.averaged_method import AveragedMethod
from moola_mlflow.evaluation.crossval import cross_validate
from moola_mlflow.evaluation.evidence import DETECTOR
from moola_mlflow.evaluation.folds import plan_folds
from moola_mlflow.evaluation.methods import build_methods, detector_method, refit_detector
from moola_mlflow.labels.targets import Targets
from moola_mlflow.models.detector import PatternDetector, detector_inputs
from moola_mlflow.models.files.detector import load_detector_folder, save_detector
from moola_mlflow.models.heads import AveragedHead
from moola_mlflow.reports.finetune_results import _described

AVERAGED = {"finetune.reader": "averaged"}


def test_it_reads_encoding_and_price_path_and_its_baselines_read_the_same() -> None:
    given = setting([encoder_with_heads()], **AVERAGED)
    assert (given.reader, given.inputs, given.baseline_inputs) == ("averaged", "both", "both")
    assert isinstance(detector_method(given), AveragedMethod)
    assert "path_features" in [method.name for method in build_methods(given)]
    assert "average of the prior reader and two span heads" in _described(given)


@pytest.mark.parametrize("num_encoders", [1, 2])
def test_folds_are_predicted_by_fits_that_never_saw_them_and_alike_every_time(num_encoders: int) -> None:
    given = setting([encoder_with_heads(i, 4 + i) for i in range(num_encoders)], **AVERAGED)
    folds, targets, method = plan_folds(LABELS, given.config.cv, [17]), Targets.of(LABELS), detector_method(given)
    first, again = (cross_validate([method], targets, folds)[DETECTOR] for _ in range(2))
    spoiled = Targets(targets.label.copy(), targets.start.copy(), targets.end.copy(), targets.ohlc, 2)
    spoiled.label[folds[0].test] = 1 - spoiled.label[folds[0].test]
    spoiled.start[folds[0].test] = targets.start[folds[0].test] + 1
    blind = method.run(spoiled, folds[0])
    for one in (again[0], blind):
        assert np.array_equal(first[0].probability, one.probability)
        assert np.array_equal(first[0].predicted, one.predicted)
    assert (first[0].temperature, first[0].best_epoch) == (1.0, -1)


def test_its_log_probabilities_are_the_means_of_its_three_readers() -> None:
    given, targets = setting([encoder_with_heads()], **AVERAGED), Targets.of(LABELS)
    encoder, detector = refit_detector(given, 0, 17)
    head = detector.head
    assert isinstance(head, AveragedHead)
    x = detector_inputs(encoder, "both", LABELS.ohlc)
    encoding, path = x[..., : head.num_encoded], x[..., head.num_encoded :]
    with torch.no_grad():
        found = detector(x)
        each = [head.prior(encoding), head.encoding(encoding), head.price_path(path)]
    mean = torch.stack([one.class_logits.log_softmax(-1) for one in each]).mean(0)
    assert torch.equal(found.class_logits, mean)
    for side in (0, 1):
        assert torch.equal(found.pointers[side], torch.stack([o.pointers[side].log_softmax(-1) for o in each]).mean(0))
    assert head.lengths == targets.span_lengths(np.arange(len(LABELS)))
    assert torch.equal(detector_method(given).fit(targets, np.arange(len(LABELS)), 17)(x).class_logits, mean)


def test_a_saved_detector_finds_the_same_without_pickle(tmp_path: Path) -> None:
    encoder, head = refit_detector(setting([encoder_with_heads()], **AVERAGED), 0, 17)
    detector = PatternDetector(head, encoder, "both", LABELS.classes, 1.0, {"evidence": {}})
    save_detector(detector, tmp_path)
    windows = small_labels(9, seed=8).ohlc
    before, after = detector.predict(windows), load_detector_folder(tmp_path).predict(windows)
    assert np.array_equal(before.probability, after.probability)
    assert np.array_equal(before.start, after.start)
    assert np.isfinite(after.span_score).all()
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".json", ".safetensors"}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({**AVERAGED, "finetune.inputs": "encoding"}, "leave finetune.inputs out"),
        ({**AVERAGED, "finetune.freeze": False}, "finetune.reader=averaged reads the encodings of frozen encoders"),
        ({"finetune.head": "averaged"}, "finetune.head='averaged' is unknown"),
    ],
)
def test_what_cannot_be_averaged_is_refused_with_the_cure(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        setting([encoder_with_heads()], **keys)


def test_an_averaged_head_needs_an_encoding_beside_the_price_path_features() -> None:
    with pytest.raises(ValueError, match="56 price-path features, not 56"):
        AveragedHead(56, 2, (5, 12), 105)
