"""Whether labels ask for an event detector: they do if a window holds none or several events."""

from __future__ import annotations

from pathlib import Path

import pytest
from event_files import some_events
from small_labels import small_labels

from moola_mlflow.cli import steps
from moola_mlflow.core import FinetuneKeys, make_config
from moola_mlflow.labels import write_labels


@pytest.mark.parametrize(("rejects", "wanted"), [(False, False), (True, True)])
def test_sample_labels_ask_for_events_if_rejects_are_kept(rejects: bool, wanted: bool) -> None:
    found = steps.labels_with_events(make_config(FinetuneKeys, {}, {"labels.rejects": rejects}))
    assert (found is not None) is wanted


def test_a_file_asks_for_events_if_a_window_has_not_exactly_one(tmp_path: Path) -> None:
    write_labels(small_labels(), tmp_path / "spans.parquet")
    write_labels(some_events(), tmp_path / "events.parquet")
    for name, wanted in (("spans", False), ("events", True)):
        config = make_config(FinetuneKeys, {}, {"labels.path": str(tmp_path / f"{name}.parquet")})
        assert (steps.labels_with_events(config) is not None) is wanted


def test_an_encoder_that_is_trained_asks_for_spans_unless_events_are_named(tmp_path: Path) -> None:
    write_labels(some_events(), tmp_path / "events.parquet")
    keys = {"labels.path": str(tmp_path / "events.parquet"), "finetune.freeze": False}
    assert steps.labels_with_events(make_config(FinetuneKeys, {}, keys)) is None
    assert steps.labels_with_events(make_config(FinetuneKeys, {}, {**keys, "finetune.head": "event"})) is not None
