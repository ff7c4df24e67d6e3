"""Every accepted form of a bars file gives the same bars; everything else is refused in words, never in a traceback."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from moola_mlflow.bars.reader import Bars, read_bars, write_parquet
from moola_mlflow.core import BarsConfig
from moola_mlflow.core.errors import UserError

PRICES = ["open", "high", "low", "close"]
SUFFIXES = [".parquet", ".pq", ".csv", ".csv.gz", ".csv.zst", ".txt", ".dbn", ".dbn.zst", ".xlsx", ""]
HEADER = "timestamp,open,high,low,close,volume\n"


def read(path: object, min_bars: int = 1, **keys: object) -> Bars:
    return read_bars(BarsConfig(path=str(path), **keys), min_bars)


def minutes(start: str, num: int, zone: str = "UTC") -> pd.DatetimeIndex:
    return pd.date_range(start, periods=num, freq="min", tz=zone)


def flat(index: pd.Index) -> pd.DataFrame:
    """Bars that rise by a tick a row, so that no two are alike."""
    close = 100 + 0.25 * np.arange(len(index))
    ohlc = {"open": close, "high": close + 0.5, "low": close - 0.25, "close": close}
    return pd.DataFrame({**ohlc, "volume": 10}, index=index.rename("timestamp"))


@st.composite
def databento(draw: st.DrawFn) -> pd.DataFrame:
    """Bars as to_df() gives them: a tick grid, gaps of minutes to days, negative prices, without a symbol's name."""
    num = draw(st.integers(2, 40))
    tick = draw(st.sampled_from([0.25, 0.01, 0.005, 0.0000005]))
    # Within a factor of four: a price further from its neighbours is a bad row.
    ticks = st.lists(
        draw(st.sampled_from([st.integers(150_000, 400_000), st.integers(-4_000, -1_500)])), min_size=num, max_size=num
    )
    open_, close = np.array(draw(ticks)), np.array(draw(ticks))
    wick = np.array(draw(st.lists(st.integers(0, 9), min_size=num, max_size=num)))
    ohlc = [open_, np.maximum(open_, close) + wick, np.minimum(open_, close) - wick, close]
    gaps = np.array(
        [0, 1, *draw(st.lists(st.sampled_from([1, 1, 1, 2, 7, 60, 4_000]), min_size=num - 2, max_size=num - 2))]
    )
    volume = draw(st.lists(st.integers(0, 10**6), min_size=num, max_size=num))
    # As if typed: the double nearest to the decimal number, which is what a file of text holds.
    prices = {name: [float(f"{v * tick:.9f}") for v in values] for name, values in zip(PRICES, ohlc, strict=True)}
    key = draw(st.integers(1, 2**32 - 1))
    return pd.DataFrame(
        {"rtype": 33, "publisher_id": 1, "instrument_id": key, **prices, "volume": volume, "symbol": str(key)},
        index=pd.DatetimeIndex(
            pd.Timestamp("2024-01-02") + pd.to_timedelta(np.cumsum(gaps), unit="min"), tz="UTC", name="ts_event"
        ),
    )


@settings(max_examples=40, deadline=None)
@given(databento())
def test_all_databento_forms_of_the_same_bars_hash_the_same(bars):
    ns = bars.index.as_unit("ns")
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        bars.to_parquet(here / "index.parquet")
        bars.reset_index().to_parquet(here / "column.parquet")
        bars.to_csv(here / "to_df.csv")
        pretty = bars.copy()
        pretty.index = ns.strftime("%Y-%m-%dT%H:%M:%S.%f000Z").rename("ts_event")
        pretty[PRICES] = pretty[PRICES].map("{:.9f}".format)
        pretty.to_csv(here / "pretty.csv")
        raw = bars.drop(columns="symbol")
        raw.index = pd.Index(ns.asi8, name="ts_event")
        raw[PRICES] = (raw[PRICES] * 1e9).round().astype("int64")
        if raw[PRICES].abs().max().max() >= 1e6:  # below a thousandth everywhere: no instrument trades there
            raw.to_csv(here / "raw.csv")
        bars.to_csv(here / "small.csv.gz")
        hashes = {path.name: read(path).sha256 for path in here.iterdir()}
        write_parquet(read(here / "to_df.csv"), here / "written.parquet")
        hashes["written"] = read(here / "written.parquet").sha256
    assert len(set(hashes.values())) == 1, hashes


@settings(max_examples=40, deadline=None)
@given(databento())
def test_all_plain_forms_of_the_same_bars_hash_the_same(bars):
    ns = bars.index.as_unit("ns").asi8
    columns = bars[[*PRICES, "volume"]]
    text = bars.index.strftime("%Y%m%d %H%M%S")

    def stamped(name: str, values: object) -> pd.DataFrame:
        return columns.set_axis(pd.Index(values, name=name), axis=0)

    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        for unit, scale in {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}.items():
            stamped("time", ns // scale).to_csv(here / f"epoch_{unit}.csv")
            stamped("ts", ns // scale).reset_index().to_parquet(here / f"epoch_{unit}.parquet")
        stamped("x", text).to_csv(here / "ninja.csv", sep=";", header=False)
        stamped("Date Time", text).rename_axis("DateTime").rename(columns=str.upper).to_csv(here / "upper.csv", sep=";")
        stamped("timestamp", bars.index.strftime("%m/%d/%Y %H:%M")).to_csv(here / "american.csv")
        split = columns.assign(date=bars.index.strftime("%Y-%m-%d"), time=bars.index.strftime("%H:%M"))
        split.to_csv(here / "split.csv", index=False)
        split.iloc[:, [5, 6, 0, 1, 2, 3, 4]].to_csv(here / "split_headerless.txt", index=False, header=False)
        integers = split.assign(Date=bars.index.year * 10_000 + bars.index.month * 100 + bars.index.day)
        integers["Time"] = bars.index.hour * 100 + bars.index.minute
        integers.drop(columns=["date", "time"]).to_parquet(here / "integers.parquet")
        bars.index.name = None
        columns.set_axis(bars.index.tz_localize(None), axis=0).to_parquet(here / "unnamed_index.parquet")
        columns.set_axis(bars.index, axis=0).to_csv(here / "unnamed_index.csv")
        hashes = {path.name: _hash(path) for path in here.iterdir()}
    hashes = {name: found for name, found in hashes.items() if found is not None}
    assert len(hashes) >= 14
    assert len(set(hashes.values())) == 1, hashes


def _hash(path: Path) -> str | None:
    try:
        return read(path).sha256
    except UserError as e:
        if "month first and day first" not in str(e):
            raise
        return None  # the first twelve days of a month read both ways


@settings(max_examples=30, deadline=None)
@given(
    day=st.sampled_from(["2024-03-10", "2024-11-03", "2013-11-03"]),
    before=st.integers(0, 500),
    num=st.integers(700, 1_500),
    stamp=st.sampled_from(["start", "end"]),
    split=st.booleans(),
)
def test_new_york_clock_times_across_a_dst_change_are_the_utc_original(day, before, num, stamp, split):
    local = pd.Timestamp(day, tz="America/New_York")
    utc = pd.date_range(local.tz_convert("UTC") - pd.Timedelta(minutes=before), periods=num, freq="min")
    shown = utc + pd.Timedelta(minutes=1 if stamp == "end" else 0)
    clock = shown.tz_convert("America/New_York").tz_localize(None)
    bars = flat(clock)
    if split:
        bars = bars.assign(date=clock.strftime("%Y-%m-%d"), time=clock.strftime("%H:%M:%S"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ny.csv"
        bars.to_csv(path, index=not split)
        assert np.array_equal(read(path, timezone="America/New_York", stamp=stamp).time_ns, utc.as_unit("ns").asi8)


def test_the_repeated_hour_is_told_apart_instrument_by_instrument(tmp_path):
    utc = minutes("2024-11-03 04:30", 180)
    clock = utc.tz_convert("America/New_York").tz_localize(None)
    order = np.argsort(np.tile(np.arange(180), 2), kind="stable")  # minute by minute, A before B
    both = pd.concat([flat(clock).assign(symbol=s) for s in ("A", "B")]).iloc[order]
    both.to_csv(tmp_path / "a.csv")
    bars = read(tmp_path / "a.csv", timezone="America/New_York", instrument="B")
    assert np.array_equal(bars.time_ns, utc.as_unit("ns").asi8)


def test_an_ambiguous_hour_without_a_clue_is_refused_with_its_row(tmp_path):
    clock = minutes("2024-11-03 04:30", 60).tz_convert("America/New_York").tz_localize(None)  # 00:30 to 01:29
    flat(clock).to_csv(tmp_path / "a.csv")
    with pytest.raises(
        UserError, match=r"row 31 \(line 32\): time '2024-11-03 01:00:00' comes twice in America/New_York"
    ):
        read(tmp_path / "a.csv", timezone="America/New_York")
    bars = read(tmp_path / "a.csv", timezone="America/New_York", repair="drop")
    assert bars.dropped == {"ambiguous time": 30}
    assert len(bars) == 30


def test_a_time_that_spring_skips_is_refused_with_its_row(tmp_path):
    clock = pd.date_range("2024-03-10 01:30", periods=60, freq="min")
    flat(clock).to_csv(tmp_path / "a.csv")
    with pytest.raises(UserError, match=r"row 31 .*'2024-03-10 02:00:00' does not exist in America/New_York"):
        read(tmp_path / "a.csv", timezone="America/New_York")


def test_times_with_an_offset_need_no_zone(tmp_path):
    local = minutes("2024-11-03 00:30", 240, "America/New_York")
    flat(local).to_csv(tmp_path / "a.csv")
    bars = read(tmp_path / "a.csv", timezone="Asia/Tokyo")
    assert np.array_equal(bars.time_ns, local.as_unit("ns").asi8)


def test_a_time_without_offset_among_times_with_one_is_refused(tmp_path):
    lines = flat(minutes("2024-03-04", 60)).to_csv().splitlines()
    lines[5] = lines[5].replace("+00:00", "")
    (tmp_path / "a.csv").write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"row 5 \(line 6\): time '2024-03-04 00:04:00' does not parse"):
        read(tmp_path / "a.csv")


def test_an_unknown_time_zone_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"'America/NewYork'.*did you mean 'America/New_York'"):
        read("sample", timezone="America/NewYork")


def test_dates_that_read_both_ways_are_refused_and_a_13th_settles_them(tmp_path):
    for days, form in ((3, None), (20, "%m/%d/%Y %H:%M"), (20, "%d/%m/%Y %H:%M")):
        index = pd.DatetimeIndex(np.concatenate([minutes(f"2024-04-{d:02}", 40) for d in range(1, days + 1)]), tz="UTC")
        flat(index.strftime(form or "%d/%m/%Y %H:%M")).to_csv(tmp_path / "a.csv")
        if form is None:
            with pytest.raises(UserError, match="'01/04/2024 00:00', read equally well month first and day first"):
                read(tmp_path / "a.csv")
        else:
            assert np.array_equal(read(tmp_path / "a.csv").time_ns, index.as_unit("ns").asi8)


def test_a_file_without_volume_has_zeros(tmp_path):
    flat(minutes("2024-03-04", 60)).drop(columns="volume").to_csv(tmp_path / "a.csv")
    assert not read(tmp_path / "a.csv").volume.any()


def test_integer_prices_without_databentos_columns_are_prices(tmp_path):
    bars = flat(minutes("2024-03-04", 60))
    bars[PRICES] = 20_000_000
    bars.to_csv(tmp_path / "a.csv")
    assert read(tmp_path / "a.csv").ohlc[0, 0] == 20_000_000


def test_an_undefined_databento_price_is_a_bad_price(tmp_path):
    bars = flat(minutes("2024-03-04", 60)).assign(rtype=33, instrument_id=1)
    bars[PRICES] = (bars[PRICES] * 1e9).astype("int64")
    bars.iloc[4, 1] = 2**63 - 1
    bars.to_csv(tmp_path / "a.csv")
    with pytest.raises(UserError, match=r"row 5 .*high is not a finite number"):
        read(tmp_path / "a.csv")


def test_row_and_line_are_right_below_blank_lines_and_without_a_header(tmp_path):
    lines = [f"2024-03-04 00:{m:02};1;1;1;1;0" for m in range(40)]
    lines[20] = "2024-03-04 00:20;1;0;1;1;0"
    (tmp_path / "a.csv").write_text("\n".join(["", lines[0], "", *lines[1:]]))
    with pytest.raises(UserError, match=r"row 21 \(line 23\): high 0 is below"):
        read(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(map(str.encode, ["time;o;h;l;c;v", *lines])))
    with pytest.raises(UserError, match=r"row 21 \(line 22\): high 0 is below"):
        read(tmp_path / "b.csv")


def test_a_row_with_too_many_or_too_few_fields_is_refused_by_row_and_line_or_dropped(tmp_path):
    lines = flat(minutes("2024-03-04", 60)).to_csv().splitlines()
    lines[8] += ",1"
    lines[30] = lines[30][:30]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"row 8 \(line 9\): 7 fields, not 6: '2024-03-04 00:07.*first of 2 bad rows"):
        read(tmp_path / "a.csv")
    bars = read(tmp_path / "a.csv", repair="drop")
    assert bars.dropped == {"wrong number of fields": 2}
    assert len(bars) == 58
    assert bars.files[0].rows == 60


REFUSED = {
    "empty.csv": (b"", "the file is empty"),
    "empty.parquet": (b"", "the file is empty"),
    "header.csv": (HEADER.encode(), "holds no rows"),
    "blank.csv": (b"\n\n\n", "cannot be read|no time column|holds no rows"),
    "text.parquet": (HEADER.encode() * 9, "is not parquet in spite of its name; if it is text, name it .csv"),
    "bars.xls": (b"PK", r"unknown suffix '\.xls'; known: \.parquet"),
    "bars.xlsx": (b"PK", "openpyxl|cannot be read as a workbook"),
    "bars.arrow": (b"ARROW1", "cannot be read as Arrow"),
    "bars.feather": (b"FEA1", "is Feather of version 1"),
    "bars.dbn.zst": (b"DBN", "cannot be read as DBN"),
    "named.dbn": (HEADER.encode(), "is not DBN in spite of its name"),
    "utf16.csv": ((HEADER + "2024").encode("utf-16"), "not plain text"),
    "latin.csv": (HEADER.encode() + b"2024-01-01 00:00,1,1,1,\xe9,1\n", "is not UTF-8 text"),
    "notime.csv": (b"open,high,low,close\n1,1,1,1\n", "no time column; looked for ts_event, timestamp"),
    "noclose.csv": (
        b"time,open,high,low,closs\n1,1,1,1,1\n",
        r"no column close; did you mean 'closs'\?.*Found: 'time'",
    ),
    "twice.csv": (b"time,Open,open,high,low,close\n1,1,1,1,1,1\n", "2 columns could be the open"),
    "narrow.csv": (b"1,2,3,4\n" * 200, "4 columns without a header"),
    "longline.csv": (b"x" * 70_000, "first line is longer than 65,536 bytes"),
    "hugefield.csv": (HEADER.encode() + b"2024-01-01 00:00,1,1,1,1," + b"1" * 3_000_000, "cannot be read as text"),
    "notgzip.csv.gz": (HEADER.encode(), "holds no rows"),
    "comma.csv": (b'time,open,high,low,close\n2024-01-01 00:00,"1,125",2,1,1\n', "open is not a finite.*open '1,125'"),
    "mapping.csv": (
        b"time,open,high,low,close,instrument_id\n2024-01-01 00:00,1,1,1,1,ES\n",
        "no instrument can be read from instrument_id 'ES'",
    ),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_file_that_is_not_bars_is_refused_by_name_with_a_cure(tmp_path, name):
    content, words = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words) as e:
        read(tmp_path / name)
    assert name in str(e.value)
    assert "\n" not in str(e.value)


def test_a_missing_path_is_refused_with_the_nearest_name(tmp_path):
    (tmp_path / "nq_2024.parquet").touch()
    with pytest.raises(UserError, match=r"no file '.*nq_2023\.parquet'; did you mean 'nq_2024\.parquet'"):
        read(tmp_path / "nq_2023.parquet")
    with pytest.raises(UserError, match="there is no folder"):
        read(tmp_path / "nowhere" / "nq.parquet")
    with pytest.raises(UserError, match="no file matches"):
        read(tmp_path / "*.csv")
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "README.txt").write_text("nothing here")
    with pytest.raises(UserError, match="holds no bars file"):
        read(tmp_path / "only")


def test_a_damaged_parquet_file_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    flat(minutes("2024-03-04", 200)).reset_index().to_parquet(path)
    content = bytearray(path.read_bytes())
    path.write_bytes(content[:-20])
    with pytest.raises(UserError, match="cannot be read as parquet"):
        read(path)


GOOD_CSV = (HEADER + "\n".join(f"2024-03-04 00:{m:02},1,1,1,1,0" for m in range(5))).encode()


@settings(max_examples=150, deadline=None)
@given(
    content=st.binary(max_size=300),
    suffix=st.sampled_from(SUFFIXES),
    magic=st.sampled_from([b"", b"PAR1", HEADER.encode()]),
)
@example(content=b"\xff\xfe", suffix=".csv", magic=b"")
@example(content=b"PAR1", suffix=".parquet", magic=b"PAR1")
def test_random_bytes_under_any_suffix_give_a_users_error(content, suffix, magic):
    _only_users_errors(magic + content, suffix)


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, len(GOOD_CSV) - 1), patch=st.binary(max_size=6), drop=st.booleans())
def test_a_csv_file_with_patched_bytes_gives_bars_or_a_users_error(at, patch, drop):
    _only_users_errors(GOOD_CSV[:at] + patch + GOOD_CSV[at + len(patch) :], ".csv", repair="drop" if drop else "refuse")


def _only_users_errors(content: bytes, suffix: str, **keys: object) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        path.write_bytes(content)
        with contextlib.suppress(UserError):  # bars may come out as well
            read(path, **keys)


def test_a_column_of_times_that_python_cannot_write_is_refused_in_words(tmp_path: Path) -> None:
    columns = {
        "when": pa.array([2**62] * 3, pa.timestamp("us")),
        **{n: [1.0] * 3 for n in ("open", "high", "low", "close")},
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="no time column"):
        read_bars(BarsConfig(path=str(tmp_path / "a.parquet")))
