"""Sliding a detector over bars: what a hit may cover, which of overlapping ones stays, and bars from a table."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from paths import ROOT
from small_models import small_detector, windows

from moola_mlflow import scan as detect
from moola_mlflow.bars.from_pandas import bars_from_table
from moola_mlflow.bars.reader import Bars, read_bars, segments
from moola_mlflow.bars.sample import generate_bars
from moola_mlflow.core import BarsConfig
from moola_mlflow.core.errors import UserError
from moola_mlflow.models import scanning
from moola_mlflow.models.detecting import detect_options
from moola_mlflow.models.detector import detector_inputs
from moola_mlflow.models.files.detector import save_detector
from moola_mlflow.models.heads import SpanHead
from moola_mlflow.windows.windows import MINUTE_NS

EVERYTHING: dict[str, Any] = {"min_probability": 0.0, "min_span_score": 0.0, "margin": 0}
DETECTOR = small_detector("price_path")


def sample(num: int, seed: int = 5) -> Bars:
    return read_bars(BarsConfig(sample_bars=num, sample_seed=seed), 1)


def cut(bars: Bars, cuts: dict[int, int | None]) -> Bars:
    """Put a gap of some minutes, or (None) a roll to another instrument, before some rows of gapless bars."""
    minutes = np.ones(len(bars), np.int64)
    instrument = np.zeros(len(bars), np.int64)
    for row, gap in cuts.items():
        if gap is None:
            instrument[row:] += 1
        else:
            minutes[row] = gap
    time_ns = bars.time_ns[0] + np.cumsum(minutes) * MINUTE_NS
    symbols = {int(key): f"M{key}" for key in np.unique(instrument)}
    return replace(bars, time_ns=time_ns, instrument=instrument, symbols=symbols)


def scanned(bars: Bars, **options: Any) -> scanning.Scan:
    return scanning.scan(bars, DETECTOR, detect_options({**EVERYTHING, **options}))


@settings(max_examples=30)
@given(
    cuts=st.dictionaries(st.integers(1, 499), st.one_of(st.none(), st.integers(2, 4000)), max_size=5),
    stride=st.integers(1, 130),
)
def test_no_hit_and_no_window_crosses_a_gap_or_a_roll(cuts: dict[int, int | None], stride: int) -> None:
    bars = cut(sample(500), cuts)
    long_enough = [(lo, hi) for lo, hi in segments(bars) if hi - lo >= 105]
    if not long_enough:
        with pytest.raises(UserError, match="no windows"):
            scanned(bars, stride=stride)
        return
    found = scanned(bars, stride=stride)
    first, last = found.rows(found.kept)
    starts = found.windows.starts
    for lows, highs in ((first, last), (starts, starts + 104)):
        for low, high in zip(lows.tolist(), highs.tolist(), strict=True):
            assert any(lo <= low <= high < hi for lo, hi in long_enough)
            assert len(set(bars.instrument[low : high + 1].tolist())) == 1
            assert np.diff(bars.time_ns[low : high + 1]).max(initial=0) <= 5 * MINUTE_NS
    assert found.num_bars_seen == sum(hi - lo for lo, hi in long_enough)
    assert len(found.kept) > 0


def test_the_last_bars_of_every_segment_are_read() -> None:
    bars = cut(sample(600), {300: 60})
    starts = scanned(bars, stride=50).windows.starts.tolist()
    assert starts == [0, 50, 100, 150, 195, 300, 350, 400, 450, 495]


def test_a_row_is_what_the_detector_says_of_its_window_alone() -> None:
    bars = sample(900)
    table = detect(bars, DETECTOR, **EVERYTHING)
    assert len(table) > 10
    at = {int(t): i for i, t in enumerate(bars.time_ns)}
    for hit in table.itertuples():
        start = at[hit.window_start.value]
        alone = DETECTOR.predict(bars.ohlc[start : start + 105][None])
        assert hit.label == alone.label[0]
        assert hit.probability == pytest.approx(alone.probability.max(), abs=1e-5)
        assert hit.span_score == pytest.approx(alone.span_score[0], abs=1e-5)
        assert (hit.expansion_start, hit.expansion_end) == (alone.start[0], alone.end[0])
        assert hit.start.value == bars.time_ns[start + alone.start[0]]
        assert hit.end.value == bars.time_ns[start + alone.end[0]]
        assert hit.window_end.value == bars.time_ns[start + 104]
    assert table.attrs == {"windows": len(scanned(bars).windows), "windows_above": len(scanned(bars).windows)}


@st.composite
def hits(draw: st.DrawFn) -> tuple[np.ndarray, ...]:
    num = draw(st.integers(0, 40))
    first = draw(hnp.arrays(np.int64, num, elements=st.integers(1000, 1150)))
    length = draw(hnp.arrays(np.int64, num, elements=st.integers(1, 14)))
    shares = st.sampled_from([0.5, 0.6, 0.75, 0.9, 1.0])  # few values, so that there are ties
    confidence, score = (draw(hnp.arrays(np.float64, num, elements=shares)) for _ in range(2))
    if draw(st.booleans()):
        score = np.full(num, np.nan)
    return first, first + length - 1, confidence, score


@given(hits())
def test_of_overlapping_hits_the_most_probable_stays_and_the_others_count_for_it(given_hits: tuple) -> None:
    first, last, confidence, score = given_hits
    kept, support = scanning.merge_overlaps(first, last, confidence, score)
    covered = [set(range(lo, hi + 1)) for lo, hi in zip(first.tolist(), last.tolist(), strict=True)]
    for i, a in enumerate(kept.tolist()):
        for b in kept.tolist()[:i]:
            assert not covered[a] & covered[b]
    for hit in set(range(len(first))) - set(kept.tolist()):
        meets = [k for k in kept.tolist() if covered[hit] & covered[k]]
        assert max((confidence[k] for k in meets), default=-1) >= confidence[hit]
    assert support.sum() == len(first)
    assert (support >= 1).all()


@given(hits(), st.randoms())
def test_the_order_in_which_hits_come_decides_nothing(given_hits: tuple, random: Any) -> None:
    first, confidence, score = given_hits[0], given_hits[2], given_hits[3]
    order = np.array(random.sample(range(len(first)), len(first)), np.int64)
    shuffled = tuple(column[order] for column in given_hits)

    def kept(columns: tuple) -> list[tuple]:
        index, _ = scanning.merge_overlaps(*columns)
        return sorted((columns[0][i], columns[2][i]) for i in index.tolist())

    spans = set(zip(first.tolist(), confidence.tolist(), np.nan_to_num(score).tolist(), strict=True))
    if len(spans) == len(first):  # two hits that differ in their last bar alone may change places
        assert kept(given_hits) == kept(shuffled)


def test_hits_of_two_instruments_that_share_minutes_do_not_meet() -> None:
    one = sample(300)
    both = replace(
        one,
        time_ns=np.concatenate([one.time_ns, one.time_ns]),
        ohlc=np.concatenate([one.ohlc, one.ohlc]),
        volume=np.concatenate([one.volume, one.volume]),
        instrument=np.repeat([1, 2], len(one)),
        symbols={1: "ES", 2: "ES"},
    )
    table, alone = detect(both, DETECTOR, **EVERYTHING), detect(one, DETECTOR, **EVERYTHING)
    assert sorted(table["instrument"].unique()) == ["ES.1", "ES.2"]
    for name in ("ES.1", "ES.2"):
        mine = table[table["instrument"] == name].reset_index(drop=True)
        pd.testing.assert_frame_equal(mine.drop(columns="instrument"), alone.drop(columns="instrument"))


def test_a_higher_probability_keeps_a_part_of_the_same_hits() -> None:
    bars = sample(3000)
    all_hits = detect(bars, DETECTOR, **EVERYTHING)
    threshold = float(all_hits["probability"].median())
    fewer = detect(bars, DETECTOR, **{**EVERYTHING, "min_probability": threshold})
    expected = all_hits[all_hits["probability"] >= threshold].reset_index(drop=True)
    pd.testing.assert_frame_equal(fewer.drop(columns="num_windows"), expected.drop(columns="num_windows"))
    assert 0 < len(fewer) < len(all_hits)


def test_a_span_too_near_to_its_windows_edge_or_too_vague_is_no_hit() -> None:
    bars = sample(3000)
    inner = detect(bars, DETECTOR, **{**EVERYTHING, "margin": 30})
    assert 0 < len(inner) < len(detect(bars, DETECTOR, **EVERYTHING))
    assert inner["expansion_start"].min() >= 30
    assert inner["expansion_end"].max() <= 74
    scores = scanned(bars).found.span_score
    sure = detect(bars, DETECTOR, **{**EVERYTHING, "min_span_score": float(np.quantile(scores, 0.8))})
    assert 0 < sure.attrs["windows_above"] < 0.3 * sure.attrs["windows"]
    assert sure["span_score"].min() >= np.quantile(scores, 0.8)


def test_the_span_score_is_the_belief_in_spans_within_three_bars() -> None:
    found = DETECTOR.predict(windows(3))
    with torch.no_grad():
        output = DETECTOR.head(detector_inputs(None, "price_path", windows(3)))
    start, end = (logits.double().softmax(-1).numpy() for logits in output.pointers)
    for i in range(3):
        belief = {(s, s + n - 1): start[i, s] * end[i, s + n - 1] for n in range(5, 13) for s in range(105 - n + 1)}
        centre = found.start[i] + found.end[i]
        near = sum(p for (s, e), p in belief.items() if abs(s + e - centre) <= 6)
        assert found.span_score[i] == pytest.approx(near / sum(belief.values()), rel=1e-5)


def test_a_head_without_spans_has_no_span_score_and_is_judged_by_its_probability_alone() -> None:
    pooled = small_detector("price_path", head="pooled")
    assert not isinstance(pooled.head.head, SpanHead)
    table = detect(sample(500), pooled, min_probability=0.0, min_span_score=1.0, margin=0)
    assert len(table) > 0
    assert table["span_score"].isna().all()


def test_detect_takes_a_folder_a_table_and_a_file_and_finds_the_same(tmp_path: Path) -> None:
    bars = sample(600)
    save_detector(DETECTOR, tmp_path / "detector")
    frame = generate_bars(600, 5).reset_index()
    frame.to_csv(tmp_path / "bars.csv", index=False)
    expected = detect(bars, DETECTOR, **EVERYTHING)
    assert len(expected) > 0
    assert list(expected.columns) == list(scanning.COLUMNS)
    for given_bars in (frame, generate_bars(600, 5), tmp_path / "bars.csv", str(tmp_path / "bars.csv")):
        pd.testing.assert_frame_equal(detect(given_bars, tmp_path / "detector", **EVERYTHING), expected)


def test_detect_needs_no_mlflow(tmp_path: Path) -> None:
    save_detector(DETECTOR, tmp_path / "detector")
    code = (
        "import sys, json; sys.modules['mlflow'] = None\n"
        "from moola_mlflow import BarsConfig, read_bars\n"
        "from moola_mlflow import scan as detect\n"
        "table = detect(read_bars(BarsConfig(sample_bars=400)), sys.argv[1], min_probability=0, min_span_score=0)\n"
        "print(json.dumps(len(table)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "detector")], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"detector": "models:/moola-detector@champion"}, r"give moola_mlflow.load_detector\('models:/moola-detector@"),
        ({"detector": "nowhere"}, "'nowhere' is not a detector folder"),
        ({"min_probability": 1.5}, r"detect.min_probability=1.5: .*allowed: float >= 0 <= 1"),
        ({"stride": 0}, "detect.stride=0"),
        ({"margin": 51}, "detect.margin=51 on both sides leaves no room for a span in windows of 105 bars"),
    ],
)
def test_what_detect_cannot_use_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        detect(sample(300), **{"detector": DETECTOR, **arguments})


def test_real_bars_give_no_hit_over_a_gap_or_a_roll(real_data: Path) -> None:
    bars = read_bars(BarsConfig(path=str(real_data / "es_front_1min.parquet"), instrument="front"))
    table = detect(bars, DETECTOR, **EVERYTHING)
    assert len(table) > 300
    assert table["instrument"].nunique() == 3
    at = {int(t): i for i, t in enumerate(bars.time_ns)}
    for hit in table.itertuples():
        rows = slice(at[hit.window_start.value], at[hit.window_end.value] + 1)
        assert rows.stop - rows.start == 105
        assert np.diff(bars.time_ns[rows]).max() <= 5 * MINUTE_NS
        assert {bars.symbols[key] for key in bars.instrument[rows].tolist()} == {hit.instrument}
        assert hit.window_start <= hit.start <= hit.end <= hit.window_end


FORMS: dict[str, Any] = {
    "as it was made": lambda frame: frame,
    "times as an index without a name": lambda frame: frame.set_index(frame["ts_event"].to_numpy()).drop(
        columns="ts_event"
    ),
    "text": lambda frame: frame.assign(ts_event=frame["ts_event"].map(lambda t: t.isoformat())),
    "text without offset": lambda frame: frame.assign(ts_event=frame["ts_event"].dt.strftime("%Y-%m-%dT%H:%M")),
    "epoch seconds": lambda frame: frame.assign(ts_event=frame["ts_event"].map(lambda t: int(t.timestamp()))),
    "date and time": lambda frame: frame.assign(
        date=frame["ts_event"].dt.strftime("%Y-%m-%d"), time=frame["ts_event"].dt.strftime("%H:%M")
    ).drop(columns="ts_event"),
    "other letters and a foreign column": lambda frame: frame.rename(columns={"open": "Open", "high": "HIGH"}).assign(
        mood=[{"a": 1}] * len(frame)
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_table_in_any_form_gives_the_bars_that_a_file_gives(form: str) -> None:
    frame = generate_bars(200, 5).reset_index()
    bars = bars_from_table(FORMS[form](frame))
    expected = read_bars(BarsConfig(sample_bars=200, sample_seed=5))
    np.testing.assert_array_equal(bars.time_ns, expected.time_ns)
    np.testing.assert_array_equal(bars.ohlc, expected.ohlc)
    assert bars.sha256 == expected.sha256


def broken(row: int, **cells: Any) -> pd.DataFrame:
    frame = generate_bars(200, 5).reset_index()[["ts_event", "open", "high", "low", "close"]].astype(object)
    for name, cell in cells.items():
        frame.at[row, name] = cell
    return frame


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (broken(6, high=0.0), "table: row 7: high 0 is below"),
        (broken(6, close="cheap"), "table: row 7: close is not a finite number .*close 'cheap'"),
        (broken(6, close=None), "table: row 7: close is not a finite number"),
        (broken(6, close=[1, 2]), "table: row 7: close is not a finite number"),
        (broken(6, ts_event="soon"), "table: row 7: time 'soon' does not parse"),
        (broken(6, ts_event=broken(0)["ts_event"][5]), "table: row 7: time .* repeats that of row 6"),
        (broken(0).head(104), "table: 104 bars, fewer than the 105 of a window"),
        (broken(0).drop(columns="low"), "table: no column low"),
        (broken(0).head(0), "table: holds no rows"),
        (pd.DataFrame(), "table: no time column"),
    ],
)
def test_a_bad_table_is_refused_with_the_row(frame: pd.DataFrame, message: str) -> None:
    with pytest.raises(UserError, match=message):
        bars_from_table(frame)
