"""Windows that nobody looked at share no minute with labels, and the step that they serve depends on the rejects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_events import looked_at, sample

from moola_mlflow.core import FinetuneKeys, UserError, make_config
from moola_mlflow.evaluation.event_methods import (
    EventMethod,
    build_event_methods,
    ineffective_event_keys,
    make_event_setting,
)
from moola_mlflow.evaluation.unlabelled_windows import POSITIVES, SELF_TRAINING, draw_unlabelled
from moola_mlflow.labels import EventLabels


def keys(**given: object) -> FinetuneKeys:
    given = {"finetune.unlabelled": "bars", "bars.path": "mine.parquet", "labels.path": "l.parquet", **given}
    return make_config(FinetuneKeys, {}, given)


def positives() -> EventLabels:
    labels = looked_at()
    return labels.select(np.flatnonzero(labels.events_per_window() == 1))


def test_no_drawn_window_shares_a_minute_with_a_labelled_one_or_with_another() -> None:
    labels, bars = looked_at(), sample()
    found = draw_unlabelled(bars, labels, keys())
    assert labels.start_ns is not None
    assert labels.end_ns is not None
    close = {window[0].tobytes() for window in found.windows.ohlc}
    assert len(close) > 50
    first = {row.tobytes(): time for row, time in zip(bars.ohlc, bars.time_ns.tolist(), strict=True)}
    starts = np.sort([first[window[0].tobytes()] for window in found.windows.ohlc if window[0].tobytes() in first])
    for start, end in zip(labels.start_ns.tolist(), labels.end_ns.tolist(), strict=True):
        assert not ((starts <= end) & (starts + 104 * 60_000_000_000 >= start)).any()
    again, other = draw_unlabelled(bars, labels, keys()), draw_unlabelled(bars, labels, keys(**{"trainer.seed": 3}))
    np.testing.assert_array_equal(found.windows.ohlc, again.windows.ohlc)
    fewer = draw_unlabelled(bars, labels, keys(**{"finetune.unlabelled_windows": 60}))
    assert len(fewer.windows.ohlc) == 60
    assert len(other.windows.ohlc) == len(found.windows.ohlc)


def test_labelled_windows_without_times_are_not_drawn_either() -> None:
    labels = replace(looked_at(), start_ns=None, end_ns=None)
    drawn, timed = (draw_unlabelled(sample(), one, keys()).windows.ohlc for one in (labels, looked_at()))
    seen = {run.tobytes() for window in labels.ohlc for run in np.lib.stride_tricks.sliding_window_view(window, 10, 0)}
    for window in drawn:
        for run in np.lib.stride_tricks.sliding_window_view(window, 10, 0):
            assert run.tobytes() not in seen or len(np.unique(run.T, axis=0)) < 8
    assert abs(len(drawn) - len(timed)) <= 2


def test_the_step_and_the_base_rate_depend_on_the_rejects_and_are_said() -> None:
    with_rejects, without = (draw_unlabelled(sample(), one, keys()) for one in (looked_at(), positives()))
    assert (with_rejects.step, with_rejects.windows.base_rate) == (SELF_TRAINING, None)
    assert (without.step, without.windows.base_rate) == (POSITIVES, 0.4)
    assert "self-training" in with_rejects.said()
    assert "Assumed: 40% of windows hold an event" in without.said()
    assert without.described()["base_rate"] == 0.4
    given = draw_unlabelled(sample(), positives(), keys(**{"finetune.base_rate": 0.25}))
    assert given.windows.base_rate == 0.25


def test_labels_of_a_file_need_bars_and_enough_of_them() -> None:
    with pytest.raises(UserError, match=r"finetune\.unlabelled=bars needs bars of the market of the labelled windows"):
        draw_unlabelled(sample(), looked_at(), keys(**{"bars.path": "sample"}))
    few = sample().rows(slice(0, 4000))
    with pytest.raises(UserError, match=r"hold \d+ windows of 105 bars that share no minute with labels"):
        draw_unlabelled(few, looked_at(), keys())


def test_two_sample_series_share_no_bar_although_their_times_are_the_same() -> None:
    labels = replace(looked_at(), path="sample", bars_sha256="another series")
    assert len(draw_unlabelled(sample(), labels, keys()).windows.ohlc) > len(
        draw_unlabelled(sample(), looked_at(), keys()).windows.ohlc
    )


def test_every_detector_that_knows_none_learns_from_the_same_windows() -> None:
    config = keys(**{"finetune.inputs": "price_path+features"})
    found = draw_unlabelled(sample(), positives(), config)
    methods = build_event_methods(make_event_setting(positives(), [], config, found))
    given = {method.name: method.unlabelled for method in methods if isinstance(method, EventMethod)}
    assert given == {"detector": found.windows, "path_features": found.windows, "span_nets": None}


def test_keys_without_effect_are_named() -> None:
    plain = keys(**{"finetune.unlabelled": "none", "finetune.base_rate": 0.3})
    assert any("finetune.base_rate=0.3" in text for text in ineffective_event_keys(plain))
    with_rejects = keys(**{"finetune.base_rate": 0.3})
    assert any(
        "the labels hold windows without an event" in text for text in ineffective_event_keys(with_rejects, True)
    )
    assert ineffective_event_keys(with_rejects) == []
