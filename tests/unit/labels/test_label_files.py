"""The labels file: both layouts, what is kept when it is rewritten, and bad rows refused by row and cure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moola_mlflow.bars.reader import Bars, read_bars
from moola_mlflow.core import BarsConfig
from moola_mlflow.core.errors import UserError
from moola_mlflow.labels.label_files import read_span_labels, write_labels
from moola_mlflow.labels.labelled_set import LabelledSet
from moola_mlflow.labels.weak import weak_labels


@pytest.fixture(scope="module")
def bars() -> Bars:
    return read_bars(BarsConfig(sample_bars=12_000, sample_seed=5))


@pytest.fixture(scope="module")
def labels(bars: Bars) -> LabelledSet:
    return weak_labels(bars, 30, 17)


def assert_same(one: LabelledSet, other: LabelledSet) -> None:
    for name in ("window_id", "ohlc", "label", "start", "end", "start_ns", "end_ns", "instrument"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    for name in ("classes", "weak", "sha256", "rule", "bars_sha256"):
        assert getattr(one, name) == getattr(other, name), name


@pytest.mark.parametrize("bare", [False, True], ids=["with times", "without times"])
def test_what_is_written_is_read_back_equal(labels: LabelledSet, tmp_path: Path, bare: bool) -> None:
    given = replace(labels, start_ns=None, end_ns=None, instrument=None, weak=False, rule="") if bare else labels
    write_labels(given, tmp_path / "new" / "labels.parquet")
    back = read_span_labels(tmp_path / "new" / "labels.parquet")
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
    back = read_span_labels(written(frame_of(labels), tmp_path))
    np.testing.assert_array_equal(back.ohlc, labels.ohlc)
    np.testing.assert_array_equal(back.label, labels.label)
    assert (back.start_ns, back.end_ns, back.instrument, back.weak) == (None, None, None, False)


def test_nested_lists_categories_and_float_pointers_are_read(labels: LabelledSet, tmp_path: Path) -> None:
    frame = frame_of(labels).assign(features=[window.tolist() for window in labels.ohlc])
    frame = frame.astype({"label": "category", "expansion_start": float, "expansion_end": "int32"})
    back = read_span_labels(written(frame, tmp_path))
    np.testing.assert_array_equal(back.ohlc, labels.ohlc)
    np.testing.assert_array_equal(back.start, labels.start)
    assert back.classes == labels.classes


def test_a_weak_set_stays_weak_when_pandas_rewrites_its_file(labels: LabelledSet, tmp_path: Path) -> None:
    write_labels(labels, tmp_path / "weak.parquet")
    frame = pd.read_parquet(tmp_path / "weak.parquet")
    back = read_span_labels(written(frame, tmp_path))
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
    back = read_span_labels(written(frame, tmp_path))
    np.testing.assert_array_equal(back.start_ns, labels.start_ns)
    np.testing.assert_array_equal(back.end_ns, labels.end_ns)


def test_any_set_of_class_names_is_taken_from_the_file(labels: LabelledSet, tmp_path: Path) -> None:
    names = ["pause", "breakout", "trap"]
    frame = frame_of(labels).assign(label=[names[i % 3] for i in range(len(labels))])
    back = read_span_labels(written(frame, tmp_path))
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
    "a window that stands still": (
        with_cell("features", lambda w: [[7.5] * 4] * 105),
        ROW_3 + "all prices of the window are 7.5: nothing moves in it",
    ),
    "zeros among prices": (
        with_cell("features", lambda w: [*w[:7], np.zeros(4), *w[8:]]),
        ROW_3 + r"bar 7 of features \(from 0\): open 0 is more than 1,000 of the window's usual bar ranges away",
    ),
    "a price of 1e300": (with_price(9, 1, 1e300), ROW_3 + r"bar 9 of features \(from 0\): high 1e\+300 is more than"),
    "both ends of float64": (
        with_cell("features", lambda w: [*w[:7], [0, 1.7e308, -1.7e308, 0], *w[8:]]),
        ROW_3 + r"bar 7 of features .*: high 1.7e\+308 is too large .*; allowed: -1e\+306 to 1e\+306; correct it",
    ),
    "a window at both ends of float64": (
        with_cell("features", lambda w: [[sign * 1e308] * 4 for sign in (1, -1) * 52 + (1,)]),
        ROW_3 + r"bar 0 of features .*: open 1e\+308 is too large",
    ),
    "a thousand ranges that are infinite": (
        with_cell("features", lambda w: [[0, 9e305, -9e305, 0]] * 104 + [[0, 1.1e306, 0, 0]]),
        ROW_3 + r"bar 104 of features .*: high 1.1e\+306 is too large",
    ),
    "one window, two classes": (
        lambda f: f.assign(
            features=[*f["features"][:2], f["features"][0], *f["features"][3:]],
            label=["retracement", f["label"][1], "consolidation", *f["label"][3:]],
        ),
        ROW_3 + r"the same prices are row 1 \(window_id 'SYN[^']*'\), labelled 'retracement' there and 'consolidation'",
    ),
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
    "a window of five minutes": (
        with_times(["2024-03-01 09:30"] * 3, ["2024-03-01 11:14"] * 2 + ["2024-03-01 09:35"]),
        ROW_3 + "end_time is 5 minutes after start_time; .* 105 one-minute bars start 104 minutes apart or more; give",
    ),
    "a bar too few between the times": (
        with_times(["2024-03-01 09:30"] * 3, ["2024-03-01 11:14"] * 2 + ["2024-03-01 11:13"]),
        ROW_3 + "end_time is 103 minutes after start_time",
    ),
    "some instruments": (
        lambda f: f.assign(instrument=["ES", "ES", None, *["ES"] * (len(f) - 3)]),
        ROW_3 + "instrument is empty",
    ),
}


@pytest.mark.parametrize("kind", BAD_FILES)
@pytest.mark.filterwarnings("error")
def test_a_bad_file_is_refused_by_row_and_cure(labels: LabelledSet, tmp_path: Path, kind: str) -> None:
    change, message = BAD_FILES[kind]
    with pytest.raises(UserError, match=message):
        read_span_labels(written(change(frame_of(labels)), tmp_path))


def test_a_window_may_last_longer_than_its_bars_and_be_stamped_within_its_minutes(
    labels: LabelledSet, tmp_path: Path
) -> None:
    ends = ["2024-03-01 11:14:00", "2024-03-01 11:15:00", "2024-03-01 11:13:01", "2024-03-01 18:00:00"]
    frame = with_times(["2024-03-01 09:30:00"] * 4, ends)(frame_of(labels))
    frame = frame.assign(
        **{name: pd.to_datetime(frame[name], format="ISO8601", utc=True) for name in ("start_time", "end_time")}
    )
    assert read_span_labels(written(frame, tmp_path)).end_ns is not None


LISTS = {
    "windows and bars of fixed size": pa.list_(pa.list_(pa.float64(), 4), 105),
    "windows of fixed size": pa.list_(pa.list_(pa.float64()), 105),
    "bars of fixed size": pa.list_(pa.list_(pa.float64(), 4)),
}


@pytest.mark.parametrize("kind", LISTS)
@pytest.mark.parametrize("empty", ["nothing", "a window", "a bar"])
def test_an_empty_window_or_bar_is_refused_by_row_also_among_lists_of_fixed_size(
    labels: LabelledSet, tmp_path: Path, kind: str, empty: str
) -> None:
    windows = labels.ohlc.tolist()
    if empty == "a bar":
        windows[2][7] = None
    elif empty == "a window":
        windows[2] = None
    write_labels(labels, tmp_path / "labels.parquet")
    table = pq.read_table(tmp_path / "labels.parquet").drop_columns("features")
    table = table.append_column("features", pa.array(windows, LISTS[kind]))
    pq.write_table(table, tmp_path / "labels.parquet", row_group_size=2)
    if empty == "nothing":
        np.testing.assert_array_equal(read_span_labels(tmp_path / "labels.parquet").ohlc, labels.ohlc)
        return
    said = "features is empty, or one|features holds 0 bars|bar 7 of features .* does not hold 4 prices"
    with pytest.raises(UserError, match=ROW_3 + f"({said})"):
        read_span_labels(tmp_path / "labels.parquet")


def test_a_doubled_column_is_refused_by_name_and_columns_of_no_use_are_not_read(
    labels: LabelledSet, tmp_path: Path
) -> None:
    path = tmp_path / "labels.parquet"
    write_labels(labels, path)
    table = pq.read_table(path)
    for name in ("label", "features", "weak", "start_time"):
        pq.write_table(table.append_column(name, table[name]), path)
        with pytest.raises(UserError, match=f"has 2 columns '{name}'; allowed: one; keep the right one") as caught:
            read_span_labels(path)
        assert "__" not in str(caught.value)
    unfilled = pa.array([None, *[[1.0, 2.0]] * (len(labels) - 1)], pa.list_(pa.float64(), 2))
    for _ in range(2):
        table = table.append_column("embedding", unfilled)
    pq.write_table(table, path)
    assert_same(labels, read_span_labels(path))


@pytest.mark.parametrize("scale", [1e-300, 1e-7, 1e7, 1e300])
def test_the_scale_of_prices_is_no_fault_and_neither_are_a_wild_bar_or_equal_twins(
    labels: LabelledSet, tmp_path: Path, scale: float
) -> None:
    ohlc = labels.ohlc.copy()
    ohlc[0, 50, 1] += 300 * np.median(ohlc[0, :, 1] - ohlc[0, :, 2])  # a limit move
    ohlc[1] = ohlc[2]
    twins = replace(
        labels, ohlc=ohlc * scale, label=np.where(np.arange(len(labels)) == 1, labels.label[2], labels.label)
    )
    write_labels(twins, tmp_path / "scaled.parquet")
    np.testing.assert_array_equal(read_span_labels(tmp_path / "scaled.parquet").ohlc, twins.ohlc)


def test_what_is_no_parquet_file_is_refused(labels: LabelledSet, tmp_path: Path) -> None:
    write_labels(labels, tmp_path / "labels.parquet")
    (tmp_path / "text.parquet").write_text("window_id,label\n")
    (tmp_path / "empty.parquet").write_bytes(b"")
    with pytest.raises(UserError, match="cannot be read as parquet"):
        read_span_labels(tmp_path / "text.parquet")
    with pytest.raises(UserError, match="cannot be read as parquet"):
        read_span_labels(tmp_path / "empty.parquet")
    with pytest.raises(UserError, match=r"no file .*; did you mean '.*labels.parquet'\? 'moola label' makes one"):
        read_span_labels(tmp_path / "label.parquet")


@pytest.mark.parametrize("where", ["a column's name", "a cell"])
def test_text_that_is_not_utf8_is_refused_in_words(labels: LabelledSet, tmp_path: Path, where: str) -> None:
    path = tmp_path / "labels.parquet"
    frame_of(labels).assign(instrument="ESH4").to_parquet(path, compression="none")
    text = b"instrument" if where == "a column's name" else b"ESH4"
    content = path.read_bytes()
    assert text in content
    path.write_bytes(content.replace(text, b"\x80" + text[1:]))
    with pytest.raises(UserError, match=r"holds text that is not UTF-8 \(byte 0x80\); write it as UTF-8"):
        read_span_labels(path)


def test_labels_are_written_whole_or_not_at_all(labels: LabelledSet, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ends in .parquet"):
        write_labels(labels, tmp_path / "labels.csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_labels(labels, tmp_path / "file" / "labels.parquet")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
