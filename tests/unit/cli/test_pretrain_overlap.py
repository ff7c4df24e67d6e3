"""How much of the labelled windows an encoder has seen before, and what is said of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_labels import small_labels
from small_models import small_encoder

from moola_mlflow.cli import steps
from moola_mlflow.labels.labelled_set import LabelledSet
from moola_mlflow.models.encoders.base import Encoder


class Told:
    """A run that remembers its metrics."""

    def __init__(self) -> None:
        self.found: dict[str, float] = {}

    def metrics(self, metrics: dict[str, float]) -> None:
        self.found |= metrics


def trained(labels: LabelledSet, share: float, path: str = "bars.parquet", sha256: str = "a") -> tuple[str, Encoder]:
    """An encoder whose training ended within a share of the labelled windows."""
    assert labels.start_ns is not None
    until = int(labels.start_ns[int(share * len(labels)) - 1]) + 1 if share else int(labels.start_ns[0]) - 1
    stamps = [f"{np.datetime64(ns, 'ns').astype('datetime64[s]')}Z" for ns in (0, until + 10**9 if share else until)]
    encoder = small_encoder(data={"path": path, "sha256": sha256}, trained_from=stamps[0], trained_until=stamps[1])
    return "e", encoder


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_labelled_windows_within_an_encoders_training_time_are_counted_and_told(share: float) -> None:
    labels, run = small_labels(40), Told()
    found, warnings = steps.check_overlap(run, labels, [trained(labels, share)])  # type: ignore[arg-type]
    assert found == run.found["data/pretrain_overlap"] == share
    assert [f"{share:.0%} of the labelled windows lie within" in text for text in warnings] == [True] * bool(share)


def test_a_window_that_two_encoders_know_is_counted_once() -> None:
    labels, run = small_labels(40), Told()
    both = [trained(labels, 0.25), trained(labels, 0.5)]
    assert steps.check_overlap(run, labels, both)[0] == 0.5  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("labels_from", "encoder_from", "same_bars", "share"),
    [
        ("sample", "sample", False, 0.0),
        ("out/labels.parquet", "sample", False, 0.0),  # what `moola label` wrote of sample bars
        ("sample", "bars.parquet", False, 0.0),
        ("sample", "sample", True, 1.0),
        ("out/labels.parquet", "sample", True, 1.0),
        ("out/labels.parquet", "bars.parquet", False, 1.0),  # other bars of the same time may be the same market
    ],
)
def test_sample_bars_have_no_time_in_common_with_any_other_series(
    labels_from: str, encoder_from: str, same_bars: bool, share: float
) -> None:
    labels = replace(small_labels(40), path=labels_from, bars_sha256="l")
    encoder = trained(labels, 1.0, encoder_from, "l" if same_bars else "e")
    assert steps.check_overlap(Told(), labels, [encoder])[0] == share  # type: ignore[arg-type]


def test_an_encoder_of_bars_of_another_length_is_told() -> None:
    labels = small_labels(10)
    name, encoder = trained(labels, 0.0)
    encoder.card["data"]["bar_minutes"] = 15
    _, warnings = steps.check_overlap(Told(), labels, [(name, encoder)])  # type: ignore[arg-type]
    assert any("trained on bars of 15 minutes, and the labelled windows have bars of one minute" in w for w in warnings)
