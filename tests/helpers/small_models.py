"""Encoders and detectors with random weights, and cards and evidence by hand: what tests of models share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from moola_mlflow.bars.sample import generate_bars
from moola_mlflow.core import PretrainKeys, make_config
from moola_mlflow.features.quality import quality_report
from moola_mlflow.models.detector import PatternDetector, detector_inputs, num_inputs
from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.encoders.bilstm import BiLSTM
from moola_mlflow.models.encoders.ensemble import Ensemble
from moola_mlflow.models.files.encoder import describe_encoder, describe_training
from moola_mlflow.models.heads import Detector, Inputs

CLASSES = ("consolidation", "retracement")
GOOD_EVIDENCE: dict[str, Any] = {
    "f1_macro": 0.71,
    "joint_success_at_3": 0.52,
    "ece": 0.06,
    "recall": {"consolidation": 0.64, "retracement": 0.78},
    "delta_joint_success_at_3": {"mean": 0.15, "lo": 0.04, "hi": 0.26},
    "identity_encoder": False,
}


def windows(num: int = 5, seed: int = 3) -> np.ndarray:
    """Return windows of synthetic bars. Shapes: float64 [num, 105, 4]."""
    bars = generate_bars(105 * num, seed)[["open", "high", "low", "close"]].to_numpy(np.float64)
    return bars.reshape(num, 105, 4).copy()


def small_encoder(features: str = "relativity11", hidden: int = 4, seed: int = 0, **card: Any) -> Encoder:
    """Return a random encoder with the card of one that passed its gates, and ``card`` over it."""
    config = make_config(PretrainKeys, {}, {"features.set": features, "encoder.hidden": hidden, "encoder.layers": 1})
    torch.manual_seed(seed)
    size = int(features.removeprefix("relativity"))
    encoder = BiLSTM(size, hidden, layers=1)
    encoder.set_scaling(torch.randn(size) * 0.1, torch.rand(size) + 0.5)
    described = {**describe_encoder(config, encoder), **describe_training(config)}
    alive = np.random.default_rng(1).uniform(0.1, 0.9, (4, 105, size)).astype(np.float32)
    evidence = {
        "leak": 0.0,
        "probe": {"r2": 0.6, "r2_random": 0.42, "r2_gain": 0.18},
        "val_skill": 0.3,
        "quality": quality_report(alive, described["features"]["names"], 20, 0.1),
    }
    encoder.card = {**described, **evidence, **card}
    return encoder.eval()


def small_detector(
    inputs: Inputs = "both", members: int = 1, head: str = "span", seed: int = 0, **evidence: Any
) -> PatternDetector:
    """Return a detector with a random head, and ``GOOD_EVIDENCE`` with ``evidence`` over it."""
    encoders = [small_encoder(f"relativity{11 - i % 2}", 4 + i, seed + i) for i in range(members)]
    encoder = None if not encoders or inputs == "price_path" else encoders[0] if members == 1 else Ensemble(encoders)
    torch.manual_seed(seed)
    detector = Detector(head, num_inputs(encoder, inputs), len(CLASSES), (5, 12))
    detector.fit_scaling(detector_inputs(encoder, inputs, windows(20, seed=9)))
    card = {"model_id": "by hand", "evidence": {**GOOD_EVIDENCE, **evidence}}
    return PatternDetector(detector.eval(), encoder, inputs, CLASSES, 1.3, card)
