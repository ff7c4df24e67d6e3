"""Weak labels from bars: chosen windows, what they are, and what is refused; the examples of the docs."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import ROOT

from moola_mlflow.bars.reader import Bars, read_bars, segments
from moola_mlflow.core import BarsConfig, FinetuneKeys, make_config
from moola_mlflow.core.errors import UserError
from moola_mlflow.labels import apply_rules, find_rule
from moola_mlflow.labels.labelled_set import LabelledSet
from moola_mlflow.labels.overlap import overlap_groups
from moola_mlflow.labels.surge_rule import CLASSES, apply_rule
from moola_mlflow.labels.weak import (
    choose_events,
    choose_labels,
    find_patterns,
    sample_labels,
    weak_labels,
)


@pytest.fixture(scope="module")
def bars() -> Bars:
    return read_bars(BarsConfig(sample_bars=12_000, sample_seed=5))


@pytest.fixture(scope="module")
def labels(bars: Bars) -> LabelledSet:
    return weak_labels(bars, 30, 17)


def test_weak_labels_are_windows_of_the_bars_inside_one_segment_in_order_of_time(bars: Bars) -> None:
    labels = weak_labels(bars, 30, 17)
    rows = np.searchsorted(bars.time_ns, labels.start_ns)
    np.testing.assert_array_equal(labels.ohlc, bars.ohlc[rows[:, None] + np.arange(105)])
    np.testing.assert_array_equal(labels.end_ns, bars.time_ns[rows + 104])
    segment = np.searchsorted(segments(bars)[:, 0], [rows, rows + 104], side="right")
    np.testing.assert_array_equal(segment[0], segment[1])
    assert (np.diff(labels.start_ns) > 0).all()
    assert labels.classes == CLASSES == tuple(sorted(CLASSES))
    np.testing.assert_array_equal(apply_rule(labels.ohlc)[0], labels.label)
    assert labels.weak
    assert labels.bars_sha256 == bars.sha256


@given(seed=st.integers(0, 1000))
@settings(max_examples=15)
def test_windows_never_share_a_bar_whatever_the_seed(bars: Bars, seed: int) -> None:
    labels = weak_labels(bars, 10_000, seed)
    assert labels.start_ns is not None
    assert labels.end_ns is not None
    assert (labels.start_ns[1:] > labels.end_ns[:-1]).all()
    assert len(set(overlap_groups(labels).tolist())) == len(set(labels.window_id.tolist())) == len(labels)


def test_windows_share_bars_where_that_is_asked_for(bars: Bars) -> None:
    apart, shared = find_patterns(bars, 17), find_patterns(bars, 17, overlap=True)
    assert len(shared.label) > 1.5 * len(apart.label)
    assert len(set(overlap_groups(choose_labels(shared, 10_000, 17)).tolist())) < len(shared.label)
    counted = len(shared.label) + shared.num_no_label + shared.num_no_surge
    assert counted == shared.num_candidates == apart.num_candidates


def test_the_same_seed_gives_the_same_labels_and_another_one_others(bars: Bars, labels: LabelledSet) -> None:
    assert weak_labels(bars, 30, 17).sha256 == labels.sha256
    assert weak_labels(bars, 30, 18).sha256 != labels.sha256


def test_chosen_labels_are_spread_over_the_found_ones(bars: Bars) -> None:
    patterns = find_patterns(bars, 17)
    for n in (2, 7, len(patterns.label) - 1, len(patterns.label)):
        try:
            labels = choose_labels(patterns, n, 3)
        except UserError:  # two of a kind
            continue
        assert not labels.warnings
        place = np.searchsorted(patterns.windows.start_ns, labels.start_ns)
        part = np.array_split(np.arange(len(patterns.label)), n)
        assert all(i in stretch for i, stretch in zip(place, part, strict=True))


def test_fewer_found_than_asked_are_all_used_and_a_warning_counts_them(bars: Bars) -> None:
    found = len(find_patterns(bars, 17).label)
    labels = weak_labels(bars, 174, 17)
    assert len(labels) == found < 174
    assert f"{found} labelled windows found, fewer than the 174" in labels.warnings[0]


def test_the_surge_stands_anywhere_in_its_window(bars: Bars) -> None:
    start = weak_labels(bars, 10_000, 17).start
    assert np.percentile(start, 25) < 40
    assert np.percentile(start, 75) > 55


def test_bars_without_a_surge_or_too_few_of_them_are_refused(bars: Bars) -> None:
    still = replace(bars, ohlc=np.full_like(bars.ohlc, 100.0))
    with pytest.raises(UserError, match=r"no labels: .* candidate windows in 12,000 bars"):
        weak_labels(still, 30, 17)
    with pytest.raises(UserError, match="a window needs 105"):
        weak_labels(bars.head(50), 30, 17)
    with pytest.raises(UserError, match=r"windows.length=40; the label rule surge-1 needs 52"):
        weak_labels(bars, 30, 17, length=40)
    patterns = find_patterns(bars, 17)
    with pytest.raises(UserError, match=r"all 30 labels are 'retracement', of \d+ found; .* raise n or give more bars"):
        choose_labels(replace(patterns, label=np.ones_like(patterns.label)), 30, 17)


def test_real_bars_hold_a_hundred_labels_and_no_window_crosses_the_roll(real_data: Path) -> None:
    bars = read_bars(BarsConfig(path=str(real_data / "es_front_1min.parquet"), instrument="front"))
    labels = weak_labels(bars, 174, 17)
    assert 80 <= len(labels) <= 160
    assert min(labels.counts().values()) >= 20
    assert labels.instrument is not None
    assert {"ESZ3", "ESH4"} <= set(labels.instrument.tolist())
    rows = np.searchsorted(bars.time_ns, labels.start_ns)
    np.testing.assert_array_equal(bars.instrument[rows], bars.instrument[rows + 104])


def test_windows_of_all_instruments_at_one_time_have_names_of_their_own(real_data: Path) -> None:
    bars = read_bars(BarsConfig(path=str(real_data / "es_multi_expiry_1min.parquet"), instrument="all"))
    labels = weak_labels(bars, 10_000, 17)
    assert len(set(labels.window_id.tolist())) == len(labels)
    same = replace(bars, symbols=dict.fromkeys(bars.symbols, "ES"))
    assert len(set(weak_labels(same, 10_000, 17).window_id.tolist())) == len(labels)


def test_sample_labels_come_from_other_bars_than_pre_training_sees() -> None:
    config = make_config(FinetuneKeys, {}, {"bars.sample_bars": 12_000})
    labels = sample_labels(config, 20, 17)
    assert len(labels) == 20
    assert labels.path == "sample"
    assert labels.bars_sha256 != read_bars(BarsConfig(sample_bars=12_000)).sha256
    assert FinetuneKeys().labels.sample_seed != FinetuneKeys().bars.sample_seed
    with pytest.raises(UserError, match=r"labels.sample_seed=1 is also bars.sample_seed"):
        sample_labels(make_config(FinetuneKeys, {}, {"labels.sample_seed": 1}), 20, 17)


DOCS = ROOT / "docs" / "reference" / "labels.md"


@pytest.mark.parametrize("code", re.findall(r"^```python\n(.*?)^```", DOCS.read_text(), re.MULTILINE | re.DOTALL))
def test_every_python_example_of_the_docs_prints_what_its_comment_says(
    code: str, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exec(compile(code, str(DOCS), "exec"), {})
    *_, comment = re.findall(r"print\(.*\)  # (.*)$", code, re.MULTILINE)
    assert comment.startswith(capsys.readouterr().out.strip())


def test_any_rule_labels_and_a_window_gets_the_same_label_in_a_longer_file(bars: Bars) -> None:
    patterns = find_patterns(bars, 17, overlap=True, rule="strict-0-3")
    assert set(np.unique(patterns.label)) <= set(range(len(patterns.classes)))
    labels = weak_labels(bars, 30, 17, rule="strict-0-3")
    assert (labels.rule, labels.weak) == ("strict-0-3", True)
    assert set(labels.classes) <= set(patterns.classes)
    first = find_patterns(bars.head(len(bars) // 2), 17, overlap=True, rule="strict-0-3")
    num = len(first.label)
    np.testing.assert_array_equal(first.windows.starts, patterns.windows.starts[:num])
    np.testing.assert_array_equal(first.label, patterns.label[:num])
    np.testing.assert_array_equal(first.start, patterns.start[:num])


def test_with_rejects_windows_that_the_rule_does_not_label_are_there_without_an_event(bars: Bars) -> None:
    patterns = find_patterns(bars, 17, rejects=True)
    labels = choose_events(patterns, 60, 17)
    assert len(labels) == 60
    assert labels.drawn is not None
    assert set(labels.drawn.tolist()) == {"random"}
    assert (labels.weak, labels.rule, labels.bars_sha256) == (True, "surge-1", bars.sha256)
    assert 10 < labels.counts()["none"] < 50
    (mark,) = apply_rules([find_rule("surge-1")], labels.ohlc, labels.start_ns)
    assert np.flatnonzero(mark.labelled).tolist() == labels.window.tolist()
    assert mark.start[labels.window].tolist() == labels.start.tolist()
    assert mark.end[labels.window].tolist() == labels.end.tolist()
    assert labels.start_ns is not None
    assert labels.end_ns is not None
    assert (labels.start_ns[1:] > labels.end_ns[:-1]).all()


def test_fewer_windows_than_asked_for_are_all_used_and_a_warning_says_so(bars: Bars) -> None:
    labels = choose_events(find_patterns(bars, 17, rejects=True), 10_000, 17)
    assert labels.warnings == (
        f"{len(labels)} windows that share no bar found, fewer than the 10,000 asked for (n): all are used.",
    )
