"""Labelled sets: the file and its refusals, the weak rule against an exact reference, and overlap."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moola_mlflow.bars import Bars, read_bars
from moola_mlflow.config import BarsConfig, Config, resolve
from moola_mlflow.errors import UserError
from moola_mlflow.labelrule import CLASSES, NO_LABEL, NO_SURGE, apply_rule
from moola_mlflow.labels import (
    LabelledSet,
    check_enough,
    choose_labels,
    find_patterns,
    overlap_groups,
    read_labels,
    sample_labels,
    weak_labels,
    write_labels,
)
from moola_mlflow.windows import segments

CONSOLIDATION, RETRACEMENT = 0, 1
seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def bars() -> Bars:
    return read_bars(BarsConfig(sample_bars=12_000, sample_seed=5))


@pytest.fixture(scope="module")
def labels(bars: Bars) -> LabelledSet:
    return weak_labels(bars, 30, 17)


# The rule, in whole ticks ------------------------------------------------------------------------------------------


def tick_windows(seed: int, num: int = 30) -> np.ndarray:
    """Windows of whole ticks, some with one or two planted moves. Shapes: int64 [num, 105, 4]."""
    rng = np.random.default_rng(seed)
    step = rng.integers(-2, 3, (num, 105))
    for w in range(num):
        for _ in range(rng.integers(0, 3)):
            at, n = rng.integers(10, 95), rng.integers(3, 10)
            step[w, at : at + n] += rng.choice([-1, 1]) * rng.integers(1, 5)
    step[rng.random((num, 105)) < 0.2] = 0
    close = np.cumsum(step, axis=1) + 400
    open_ = close - step + rng.integers(-1, 2, (num, 105)) * (rng.random((num, 105)) < 0.3)
    high = np.maximum(open_, close) + rng.integers(0, 3, (num, 105)) * (step != 0)
    low = np.minimum(open_, close) - rng.integers(0, 3, (num, 105)) * (step != 0)
    return np.stack([open_, high, low, close], axis=2)


def reference(window: np.ndarray) -> tuple[int, int, int]:
    """The rule in exact arithmetic, bar by bar. Shapes: int [105, 4] -> outcome, start, end."""
    bars = window.tolist()
    true_range = [bars[0][1] - bars[0][2]]
    for (_, high, low, _), (*_, previous) in zip(bars[1:], bars, strict=False):
        true_range.append(max(high - low, abs(high - previous), abs(low - previous)))
    median = sorted(true_range)[52]
    best, found = Fraction(0), None
    for n in range(5, 13):
        for s in range(20, 105):
            e = s + n - 1
            if e + 20 > 104 or median == 0:
                continue
            net = abs(bars[e][3] - bars[s][0])
            squared = Fraction(net**2, median**2 * n)
            strong = squared >= Fraction(18, 10) ** 2
            straight = net >= Fraction(35, 100) * sum(true_range[s : e + 1])
            if strong and straight and squared > best:
                best, found = squared, (s, e)
    if found is None:
        return NO_SURGE, -1, -1
    s, e = found
    up = bars[e][3] > bars[s][0]
    top, bottom = max(bar[1] for bar in bars[s : e + 1]), min(bar[2] for bar in bars[s : e + 1])
    half = Fraction(top - bottom, 2)
    for _, high, low, _ in bars[e + 1 : e + 21]:
        if low <= top - half if up else high >= bottom + half:
            return RETRACEMENT, s, e
        if high >= top + half if up else low <= bottom - half:
            return NO_LABEL, s, e
    return CONSOLIDATION, s, e


@given(seed=seeds, tick=st.sampled_from([1.0, 0.25, 0.01, 0.005, 1 / 32, 0.1]))
@settings(max_examples=25)
def test_the_rule_agrees_with_exact_arithmetic_ties_included(seed: int, tick: float) -> None:
    windows = tick_windows(seed)
    outcome, start, end = apply_rule(windows * tick)
    for w, expected in enumerate(map(reference, windows)):
        found = (outcome[w], start[w], end[w]) if outcome[w] != NO_SURGE else (NO_SURGE, -1, -1)
        assert found == expected


def test_the_random_windows_of_these_tests_show_every_outcome() -> None:
    outcome = apply_rule(np.concatenate([tick_windows(seed) for seed in range(10)]) * 0.25)[0]
    assert np.bincount(outcome, minlength=4).min() > 3


@given(seed=seeds, axis=st.integers(-5000, 5000))
@settings(max_examples=40)
def test_mirrored_prices_give_the_same_label_and_span(seed: int, axis: int) -> None:
    windows = tick_windows(seed) * 0.01
    mirrored = axis * 0.01 - windows[:, :, [0, 2, 1, 3]]
    for one, other in zip(apply_rule(windows), apply_rule(mirrored), strict=True):
        np.testing.assert_array_equal(one, other)


@given(seed=seeds, exponent=st.floats(-7, 7))
@settings(max_examples=40)
def test_the_scale_of_prices_changes_nothing(seed: int, exponent: float) -> None:
    windows = tick_windows(seed) * 0.25
    for one, other in zip(apply_rule(windows), apply_rule(windows * 10**exponent), strict=True):
        np.testing.assert_array_equal(one, other)


@given(seed=seeds, level=st.integers(-100_000, 100_000))
@settings(max_examples=25)
def test_the_level_of_prices_changes_nothing_and_may_be_negative(seed: int, level: int) -> None:
    windows = tick_windows(seed)
    for one, other in zip(apply_rule(windows * 0.01), apply_rule((windows + level) * 0.01), strict=True):
        np.testing.assert_array_equal(one, other)


def quiet_window() -> np.ndarray:
    """A window that goes nowhere: every bar 0 0.5 -0.5 0."""
    return np.tile([0.0, 0.5, -0.5, 0.0], (105, 1))


def surge(window: np.ndarray, at: int, num_bars: int, size: float = 12.0, after: float = 0.0) -> np.ndarray:
    """Lay a straight rise over a window; what follows stays ``after`` above its end."""
    steps = np.linspace(0, size, num_bars + 1)
    window[at : at + num_bars] = np.stack([steps[:-1], steps[1:], steps[:-1], steps[1:]], axis=1)
    window[at + num_bars :] += size + after
    return window


def test_a_rise_whose_next_bars_stay_put_is_a_consolidation() -> None:
    outcome, start, end = apply_rule(surge(quiet_window(), 40, 6)[None])
    assert (outcome[0], start[0], end[0]) == (CONSOLIDATION, 40, 45)


@pytest.mark.parametrize(
    ("column", "price", "expected"),
    [
        (2, 6.0, RETRACEMENT),  # a low, not a close, that touches the middle of the leg
        (2, 6.01, CONSOLIDATION),
        (1, 18.0, NO_LABEL),
        (1, 17.99, CONSOLIDATION),
    ],
)
def test_the_first_touch_decides_to_the_tick(column: int, price: float, expected: int) -> None:
    window = surge(quiet_window(), 40, 6, after=-0.5)
    window[65, column] = price  # the last of the twenty bars
    assert apply_rule(window[None])[0][0] == expected
    window = surge(quiet_window(), 40, 6, after=-0.5)
    window[66, column] = price
    assert apply_rule(window[None])[0][0] == CONSOLIDATION


def test_a_bar_that_touches_both_sides_is_a_retracement() -> None:
    window = surge(quiet_window(), 40, 6)
    window[50, 1:3] = 18.0, 6.0
    assert apply_rule(window[None])[0][0] == RETRACEMENT


@pytest.mark.parametrize(
    ("at", "span"), [(20, (20, 25)), (79, (79, 84)), (19, (20, 24)), (80, (80, 84)), (14, None), (84, None)]
)
def test_a_surge_needs_twenty_bars_before_and_after_it(at: int, span: tuple[int, int] | None) -> None:
    outcome, start, end = apply_rule(surge(quiet_window(), at, 6)[None])
    assert (outcome[0] != NO_SURGE) == (span is not None)
    assert span is None or (start[0], end[0]) == span


def test_a_window_that_mostly_stands_still_has_no_label() -> None:
    window = surge(np.zeros((105, 4)), 40, 6)
    assert apply_rule(window[None])[0][0] == NO_SURGE


# Weak labels from bars ---------------------------------------------------------------------------------------------


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
    with pytest.raises(UserError, match=r"windows.length=40; the label rule needs 52"):
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
    config = resolve({}, {"bars.sample_bars": 12_000})
    labels = sample_labels(config, 20, 17)
    assert len(labels) == 20
    assert labels.path == "sample"
    assert labels.bars_sha256 != read_bars(config.bars).sha256
    assert Config().labels.sample_seed != Config().bars.sample_seed
    with pytest.raises(UserError, match=r"labels.sample_seed=1 is also bars.sample_seed"):
        sample_labels(resolve({}, {"labels.sample_seed": 1}), 20, 17)


# The file ----------------------------------------------------------------------------------------------------------


def assert_same(one: LabelledSet, other: LabelledSet) -> None:
    for name in ("window_id", "ohlc", "label", "start", "end", "start_ns", "end_ns", "instrument"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    for name in ("classes", "weak", "sha256", "rule", "bars_sha256"):
        assert getattr(one, name) == getattr(other, name), name


@pytest.mark.parametrize("bare", [False, True], ids=["with times", "without times"])
def test_what_is_written_is_read_back_equal(labels: LabelledSet, tmp_path: Path, bare: bool) -> None:
    given = replace(labels, start_ns=None, end_ns=None, instrument=None, weak=False, rule="") if bare else labels
    write_labels(given, tmp_path / "new" / "labels.parquet")
    back = read_labels(tmp_path / "new" / "labels.parquet")
    assert_same(replace(given, sha256=back.sha256), back)
    assert back.path == tmp_path / "new" / "labels.parquet"
    assert (back.sha256 == labels.sha256) is not bare
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["labels.parquet"]


def frame_of(labels: LabelledSet) -> pd.DataFrame:
    """The older layout, as people made it: no times, `features` as an array of 105 arrays of 4."""
    features = []
    for window in labels.ohlc:
        ragged = np.empty(105, object)
        for t, bar in enumerate(window):
            ragged[t] = bar
        features.append(ragged)
    return pd.DataFrame(
        {
            "window_id": labels.window_id,
            "label": [labels.classes[k] for k in labels.label],
            "expansion_start": labels.start,
            "expansion_end": labels.end,
            "features": features,
        }
    )


def written(frame: pd.DataFrame, folder: Path) -> Path:
    frame.to_parquet(folder / "labels.parquet")
    return folder / "labels.parquet"


def test_the_published_ragged_form_is_read_as_the_written_one(labels: LabelledSet, tmp_path: Path) -> None:
    back = read_labels(written(frame_of(labels), tmp_path))
    np.testing.assert_array_equal(back.ohlc, labels.ohlc)
    np.testing.assert_array_equal(back.label, labels.label)
    assert (back.start_ns, back.end_ns, back.instrument, back.weak) == (None, None, None, False)


def test_nested_lists_categories_and_float_pointers_are_read(labels: LabelledSet, tmp_path: Path) -> None:
    frame = frame_of(labels).assign(features=[window.tolist() for window in labels.ohlc])
    frame = frame.astype({"label": "category", "expansion_start": float, "expansion_end": "int32"})
    back = read_labels(written(frame, tmp_path))
    np.testing.assert_array_equal(back.ohlc, labels.ohlc)
    np.testing.assert_array_equal(back.start, labels.start)
    assert back.classes == labels.classes


def test_a_weak_set_stays_weak_when_pandas_rewrites_its_file(labels: LabelledSet, tmp_path: Path) -> None:
    write_labels(labels, tmp_path / "weak.parquet")
    frame = pd.read_parquet(tmp_path / "weak.parquet")
    back = read_labels(written(frame, tmp_path))
    assert back.weak
    assert_same(back, replace(labels, rule="", bars_sha256=""))


@pytest.mark.parametrize("form", ["utc", "clock", "text", "epoch"])
def test_times_are_read_in_any_form(labels: LabelledSet, tmp_path: Path, form: str) -> None:
    assert labels.start_ns is not None
    assert labels.end_ns is not None
    frame = frame_of(labels)
    for name, time_ns in (("start_time", labels.start_ns), ("end_time", labels.end_ns)):
        stamps = pd.to_datetime(time_ns, utc=form != "clock")
        frame[name] = stamps.strftime("%Y-%m-%d %H:%M") if form == "text" else time_ns if form == "epoch" else stamps
    back = read_labels(written(frame, tmp_path))
    np.testing.assert_array_equal(back.start_ns, labels.start_ns)
    np.testing.assert_array_equal(back.end_ns, labels.end_ns)


def test_any_set_of_class_names_is_taken_from_the_file(labels: LabelledSet, tmp_path: Path) -> None:
    names = ["pause", "breakout", "trap"]
    frame = frame_of(labels).assign(label=[names[i % 3] for i in range(len(labels))])
    back = read_labels(written(frame, tmp_path))
    assert back.classes == ("breakout", "pause", "trap")
    assert back.counts() == {"breakout": 10, "pause": 10, "trap": 10}


def with_cell(column: str, value: Any) -> Any:
    """A change of the third row."""

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        values = frame[column].tolist()
        values[2] = value(values[2]) if callable(value) else value
        return frame.assign(**{column: values})

    return change


def with_price(t: int, k: int, value: float | None) -> Any:
    def change(window: np.ndarray) -> Any:
        prices = [list(bar) for bar in window]
        prices[t][k] = value
        return prices

    return with_cell("features", change)


def with_times(start: list[str | None], end: list[str | None]) -> Any:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        rest = len(frame) - len(start)
        return frame.assign(
            start_time=[*start, *["2024-03-01 09:30"] * rest], end_time=[*end, *["2024-03-01 11:14"] * rest]
        )

    return change


ROW_3 = r"row 3 \(window_id 'SYN[^']*'\): "
BAD_FILES: dict[str, tuple[Any, str]] = {
    "104 bars": (with_cell("features", lambda w: w[:-1]), ROW_3 + "features holds 104 bars; a window has exactly 105"),
    "106 bars": (with_cell("features", lambda w: [*w, w[0]]), ROW_3 + "features holds 106 bars"),
    "no bars": (with_cell("features", None), ROW_3 + "features holds 0 bars"),
    "a bar of 3": (
        with_cell("features", lambda w: [*w[:7], w[7][:3], *w[8:]]),
        ROW_3 + r"bar 7 of features \(from 0\) does not hold 4 prices",
    ),
    "a NaN": (with_price(9, 3, np.nan), ROW_3 + r"bar 9 of features \(from 0\): close is not a finite number; correct"),
    "an empty price": (with_price(9, 0, None), ROW_3 + "bar 9 .* open is not a finite number"),
    "an infinite price": (with_price(9, 1, np.inf), ROW_3 + "bar 9 .* high is not a finite number"),
    "high below low": (with_price(104, 1, 1.0), ROW_3 + r"bar 104 .* high 1 is below max\(open, close\)"),
    "low above open": (with_price(0, 2, 9e9), ROW_3 + r"bar 0 .* low 9000000000 is above"),
    "end 105": (with_cell("expansion_end", 105), ROW_3 + "expansion_end 105 lies outside .* from 0 to 104"),
    "start -1": (with_cell("expansion_start", -1), ROW_3 + "expansion_start -1 lies outside"),
    "start 20.5": (with_cell("expansion_start", 20.5), ROW_3 + r"expansion_start is 20.5; give a bar's number"),
    "no end": (with_cell("expansion_end", None), ROW_3 + "expansion_end is empty"),
    "reversed pointers": (
        lambda f: f.rename(columns={"expansion_start": "expansion_end", "expansion_end": "expansion_start"}),
        r"row 1 .*expansion_start \d+ is not before expansion_end \d+.*the first of 30 such rows",
    ),
    "a span of one bar": (
        lambda f: f.assign(expansion_end=f["expansion_start"]),
        "row 1 .*is not before",
    ),
    "an empty class": (with_cell("label", " "), ROW_3 + "label is empty"),
    "no class": (with_cell("label", None), ROW_3 + "label is empty"),
    "a class in capitals": (
        with_cell("label", "Retracement"),
        ROW_3 + "label 'Retracement' is an unknown class; write 'retracement'",
    ),
    "one class only": (lambda f: f.assign(label="retracement"), "every row is 'retracement'; a detector needs two"),
    "classes as fractions": (lambda f: f.assign(label=0.5), "column 'label' is of type double; allowed: text"),
    "a repeated id": (
        lambda f: f.assign(window_id=[*f["window_id"][:2], f["window_id"][0], *f["window_id"][3:]]),
        ROW_3 + "window_id repeats that of row 1",
    ),
    "an empty id": (with_cell("window_id", None), r"row 3 \(window_id ''\): window_id is empty"),
    "a missing column": (
        lambda f: f.rename(columns={"expansion_start": "expansion_strat"}),
        "no column 'expansion_start'; did you mean 'expansion_strat'",
    ),
    "prices in one list": (
        lambda f: f.assign(features=[np.zeros(420)] * len(f)),
        "column 'features' is of type list.*needed: a list of 105 bars",
    ),
    "prices as text": (
        lambda f: f.assign(features=[[["1"] * 4] * 105] * len(f)),
        "column 'features' holds string; allowed: numbers",
    ),
    "no rows": (lambda f: f[:0], "holds no rows"),
    "one time": (lambda f: f.assign(end_time="2024-03-01 09:30"), "end_time without start_time; give both"),
    "an empty time": (
        with_times(["2024-03-01 09:30"] * 2 + [None], ["2024-03-01 11:14"] * 3),
        ROW_3 + "start_time is empty or no time",
    ),
    "reversed times": (
        with_times(["2024-03-01 09:30"] * 2 + ["2024-03-01 12:00"], ["2024-03-01 11:14"] * 3),
        ROW_3 + "start_time is not before end_time",
    ),
    "some instruments": (
        lambda f: f.assign(instrument=["ES", "ES", None, *["ES"] * (len(f) - 3)]),
        ROW_3 + "instrument is empty",
    ),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_refused_by_row_and_cure(labels: LabelledSet, tmp_path: Path, kind: str) -> None:
    change, message = BAD_FILES[kind]
    with pytest.raises(UserError, match=message):
        read_labels(written(change(frame_of(labels)), tmp_path))


def test_what_is_no_parquet_file_is_refused(labels: LabelledSet, tmp_path: Path) -> None:
    write_labels(labels, tmp_path / "labels.parquet")
    (tmp_path / "text.parquet").write_text("window_id,label\n")
    (tmp_path / "empty.parquet").write_bytes(b"")
    with pytest.raises(UserError, match="cannot be read as parquet"):
        read_labels(tmp_path / "text.parquet")
    with pytest.raises(UserError, match="cannot be read as parquet"):
        read_labels(tmp_path / "empty.parquet")
    with pytest.raises(UserError, match=r"no file .*; did you mean '.*labels.parquet'\? 'moola label' makes one"):
        read_labels(tmp_path / "label.parquet")


def test_labels_are_written_whole_or_not_at_all(labels: LabelledSet, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ends in .parquet"):
        write_labels(labels, tmp_path / "labels.csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_labels(labels, tmp_path / "file" / "labels.parquet")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_too_few_windows_of_a_class_for_the_folds_are_refused(labels: LabelledSet) -> None:
    scarce = min(labels.counts().values())
    check_enough(labels, scarce // 2)
    with pytest.raises(UserError, match=rf"{scarce // 2 + 1} folds need {2 * (scarce // 2 + 1)} of each class"):
        check_enough(labels, scarce // 2 + 1)


DOCS = Path(__file__).resolve().parents[1] / "docs" / "labels.md"


@pytest.mark.parametrize("code", re.findall(r"^```python\n(.*?)^```", DOCS.read_text(), re.MULTILINE | re.DOTALL))
def test_every_python_example_of_the_docs_prints_what_its_comment_says(
    code: str, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exec(compile(code, str(DOCS), "exec"), {})
    *_, comment = re.findall(r"print\(.*\)  # (.*)$", code, re.MULTILINE)
    assert comment.startswith(capsys.readouterr().out.strip())


# Overlap -----------------------------------------------------------------------------------------------------------


def cut(starts: list[int], times: bool, series: np.ndarray | None = None) -> LabelledSet:
    """Windows of one made-up series, from given bars on."""
    first = np.array(starts)
    if series is None:
        series = np.random.default_rng(0).normal(size=(5000, 4))
    num = len(starts)
    zeros = np.zeros(num, np.int64)
    return LabelledSet(
        np.arange(num).astype(str), series[first[:, None] + np.arange(105)], zeros, CLASSES, zeros, zeros + 5,
        first * 60 if times else None, (first + 104) * 60 if times else None,
    )  # fmt: skip


def brute_groups(starts: list[int], shared: int) -> list[int]:
    group = list(range(len(starts)))
    for _ in starts:
        for i, a in enumerate(starts):
            for j, b in enumerate(starts):
                if 105 - abs(a - b) >= shared:
                    group[i] = group[j] = min(group[i], group[j])
    return np.unique(group, return_inverse=True)[1].tolist()


@given(starts=st.lists(st.integers(0, 1500), min_size=1, max_size=14))
def test_groups_are_the_connected_overlaps_with_and_without_times(starts: list[int]) -> None:
    assert overlap_groups(cut(starts, times=True)).tolist() == brute_groups(starts, 1)
    assert overlap_groups(cut(starts, times=False)).tolist() == brute_groups(starts, 10)


def test_ten_shared_bars_are_found_without_times_and_nine_are_missed() -> None:
    assert overlap_groups(cut([0, 95], times=False)).tolist() == [0, 0]
    assert overlap_groups(cut([0, 96], times=False)).tolist() == [0, 1]
    assert overlap_groups(cut([0, 104], times=True)).tolist() == [0, 0]
    assert overlap_groups(cut([0, 105], times=True)).tolist() == [0, 1]


def test_runs_of_bars_must_be_equal_in_all_four_prices() -> None:
    labels = cut([0, 0], times=False)
    for k in range(4):
        ohlc = labels.ohlc.copy()
        ohlc[1, ::10, k] += 1e-9
        assert overlap_groups(replace(labels, ohlc=ohlc)).tolist() == [0, 1]
    shuffled = labels.ohlc.copy()
    shuffled[1] = shuffled[1, ::-1]
    assert overlap_groups(replace(labels, ohlc=shuffled)).tolist() == [0, 1]


def test_windows_of_two_instruments_at_one_time_do_not_overlap() -> None:
    labels = replace(cut([0, 50, 0, 50], times=True), instrument=np.array(["ESZ3", "ESZ3", "ESH4", "ESH4"]))
    assert overlap_groups(labels).tolist() == [0, 0, 1, 1]


def test_found_windows_group_alike_by_time_and_by_bars(bars: Bars) -> None:
    labels = weak_labels(bars, 10_000, 17, overlap=True)
    timeless = replace(labels, start_ns=None, end_ns=None)
    np.testing.assert_array_equal(overlap_groups(labels), overlap_groups(timeless))
