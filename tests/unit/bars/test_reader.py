"""What `read_bars` promises: which bars it gives, which it refuses, and in which words."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import REAL_DATA

from moola_mlflow.bars.reader import Bars, read_bars, write_parquet
from moola_mlflow.core import BarsConfig
from moola_mlflow.core.errors import UserError

needs_real = pytest.mark.skipif(not REAL_DATA.is_dir(), reason=f"the real bars are not at {REAL_DATA}")
PRICES = ["open", "high", "low", "close"]


def read(path: object, min_bars: int = 1, **keys: object) -> Bars:
    return read_bars(BarsConfig(path=str(path), **keys), min_bars)


def frame(
    num: int = 120, start: str = "2024-03-04 12:00", symbol: str = "ESH4", key: int = 7, volume: int = 10
) -> pd.DataFrame:
    """Bars on a tick grid, one a minute, in the layout of databento's to_df()."""
    rng = np.random.default_rng(num + key)
    close = 5000 + 0.25 * np.cumsum(rng.integers(-3, 4, num))
    open_ = np.concatenate([close[:1], close[:-1]])
    ohlc = [open_, np.maximum(open_, close) + 0.25, np.minimum(open_, close) - 0.5, close]
    return pd.DataFrame(
        {"rtype": 33, "publisher_id": 1, "instrument_id": key, **dict(zip(PRICES, ohlc, strict=True)), "volume": volume}
        | {"symbol": symbol},
        index=pd.date_range(start, periods=num, freq="min", tz="UTC", name="ts_event"),
    )


def plain(bars: pd.DataFrame) -> pd.DataFrame:
    """The same bars as a spreadsheet would hold them."""
    times = pd.DatetimeIndex(bars.index).strftime("%Y-%m-%d %H:%M:%S")
    return bars[[*PRICES, "volume"]].set_axis(pd.Index(times, name="timestamp"), axis=0)


def save(bars: pd.DataFrame, path: Path) -> Path:
    # One layout for all tests: pandas' own index, as `to_df().to_parquet()` writes it.
    bars.to_csv(path) if ".csv" in path.name else bars.reset_index().to_parquet(path)
    return path


@needs_real
def test_the_real_front_month_file_is_read_whole():
    bars = read(REAL_DATA / "es_front_1min.parquet", instrument="front")
    source = pd.read_parquet(REAL_DATA / "es_front_1min.parquet")
    assert len(bars) == 19_083
    assert np.array_equal(bars.time_ns, source.index.as_unit("ns").asi8)
    assert np.array_equal(bars.ohlc, source[PRICES].to_numpy())
    assert bars.ohlc.flags.c_contiguous
    assert set(bars.symbols.values()) == {"ESZ3", "ESH4", "ESH0"}
    assert bars.files[0].rows == 19_083


@needs_real
def test_front_of_all_expiries_is_the_front_month_file():
    multi = read(REAL_DATA / "es_multi_expiry_1min.parquet", instrument="front")
    front = read(REAL_DATA / "es_front_1min.parquet", instrument="front")
    assert multi.sha256 == front.sha256
    assert (np.diff(multi.time_ns) > 0).all()


@needs_real
def test_several_expiries_are_refused_with_their_counts_and_the_three_choices():
    with pytest.raises(UserError) as e:
        read(REAL_DATA / "es_multi_expiry_1min.parquet")
    for word in ("es_multi_expiry_1min.parquet", "ESZ3 16,673", "ESH4 5,116", "front", "all", "--bars.instrument"):
        assert word in str(e.value)


@needs_real
def test_a_symbol_and_its_id_choose_the_same_bars():
    path = REAL_DATA / "es_multi_expiry_1min.parquet"
    by_symbol, by_id = read(path, instrument="ESH4"), read(path, instrument="201403")
    assert by_symbol.sha256 == by_id.sha256
    assert len(by_symbol) == 5_116
    assert by_symbol.symbols == {201403: "ESH4"}


@needs_real
def test_all_lays_instruments_behind_one_another_each_in_time_order():
    bars = read(REAL_DATA / "es_multi_expiry_1min.parquet", instrument="all")
    assert len(bars) == 23_948
    assert (np.diff(bars.instrument) >= 0).all()
    assert (np.diff(bars.time_ns)[np.diff(bars.instrument) == 0] > 0).all()


@needs_real
def test_end_stamped_ninjatrader_bars_start_a_minute_earlier():
    end = read(REAL_DATA / "spy_ninjatrader_1min.csv", stamp="end")
    start = read(REAL_DATA / "spy_ninjatrader_1min.csv")
    assert len(end) == 17_577
    assert (start.time_ns - end.time_ns == 60_000_000_000).all()
    assert pd.Timestamp(end.time_ns[0]) == pd.Timestamp("2011-03-01 09:00")
    assert end.ohlc[0].tolist() == [133.9, 134.01, 133.9, 133.98]
    assert end.volume[0] == 3778


def test_the_sample_is_read_as_a_front_month_series_and_depends_on_its_seed_only():
    one, same, other = (read_bars(BarsConfig(sample_bars=3_000, sample_seed=s)) for s in (1, 1, 2))
    assert len(one) == 3_000
    assert one.sha256 == same.sha256 != other.sha256
    assert str(one.files[0].path) == "sample"


def test_an_unknown_instrument_is_refused_with_the_nearest_and_all_that_there_are(tmp_path):
    path = save(frame(), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"no instrument 'ESH5'; did you mean 'ESH4'\?.*ESH4 120 bars"):
        read(path, instrument="ESH5")


def test_front_ignores_a_spread_even_where_it_trades_most(tmp_path):
    legs = [frame(symbol="NQH1", volume=5), frame(symbol="NQM1", key=8), frame(symbol="NQH1-NQM1", key=9, volume=99)]
    bars = read(save(pd.concat(legs), tmp_path / "a.parquet"), instrument="front")
    assert bars.symbols == {8: "NQM1"}


def test_front_takes_the_lower_id_of_equal_volumes(tmp_path):
    path = save(pd.concat([frame(symbol="B", key=8), frame(symbol="A", key=7)]), tmp_path / "a.parquet")
    assert read(path, instrument="front").symbols == {7: "A"}


@pytest.mark.parametrize(("opens", "zone"), [("2024-01-09 23:00", "winter"), ("2024-07-09 22:00", "summer")])
def test_a_trade_date_begins_at_18_00_new_york_time(tmp_path, opens, zone):
    start = pd.Timestamp(opens) - pd.Timedelta(minutes=60)
    near, far = frame(start=str(start), symbol="A", key=1), frame(start=str(start), symbol="B", key=2)
    near.iloc[60:, near.columns.get_loc("volume")] = 1  # from the opening on, the far contract trades more
    near.iloc[:60, near.columns.get_loc("volume")] = 100
    bars = read(save(pd.concat([near, far]).sort_index(), tmp_path / "a.parquet"), instrument="front")
    assert bars.instrument.tolist() == [1] * 60 + [2] * 60
    assert (np.diff(bars.time_ns) == 60_000_000_000).all()


def test_front_without_any_volume_is_refused(tmp_path):
    path = save(pd.concat([frame(volume=0), frame(volume=0, key=8, symbol="ESM4")]), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="front needs volumes"):
        read(path, instrument="front")


def test_one_symbol_over_a_roll_of_ids_is_kept_in_time_order(tmp_path):
    path = save(pd.concat([frame(key=9), frame(start="2024-03-05 12:00", key=3)]), tmp_path / "a.parquet")
    bars = read(path)
    assert bars.instrument.tolist() == [9] * 120 + [3] * 120
    assert bars.symbols == {9: "ESH4", 3: "ESH4"}


def test_one_symbol_with_two_ids_at_a_time_is_refused(tmp_path):
    path = save(pd.concat([frame(key=9), frame(key=3)]), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"ESH4 has the instrument ids \[3, 9\], and 120 times repeat"):
        read(path)


def test_months_in_a_folder_make_one_series_whatever_their_names(tmp_path):
    save(plain(frame(start="2024-04-01 12:00")), tmp_path / "apr.csv")
    save(plain(frame(start="2024-03-01 12:00")), tmp_path / "mar.csv")
    (tmp_path / "README.md").write_text("not bars")
    (tmp_path / "README.txt").write_text("not bars")
    bars = read(tmp_path)
    assert len(bars) == 240
    assert (np.diff(bars.time_ns) > 0).all()
    assert [f.path.name for f in bars.files] == ["apr.csv", "mar.csv"]
    assert read(tmp_path / "*.csv").sha256 == bars.sha256


def test_files_that_overlap_are_refused_by_file_and_row(tmp_path):
    save(plain(frame()), tmp_path / "a.csv")
    save(plain(frame(start="2024-03-04 13:30")), tmp_path / "b.csv")
    with pytest.raises(UserError, match=r"b\.csv: row 1 \(line 2\): time 2024-03-04 13:30.*inside .*a\.csv"):
        read(tmp_path)
    bars = read(tmp_path, repair="drop")
    assert bars.dropped == {"repeated time": 30}
    assert len(bars) == 210


def test_a_file_that_begins_with_the_last_bar_of_another_is_refused(tmp_path):
    save(plain(frame()), tmp_path / "a.csv")
    save(plain(frame(start="2024-03-04 13:59")), tmp_path / "b.csv")
    with pytest.raises(UserError, match=r"b\.csv: row 1 .*2024-03-04 13:59"):
        read(tmp_path)
    save(plain(frame(start="2024-03-04 14:00")), tmp_path / "b.csv")
    assert len(read(tmp_path)) == 240


def test_different_instruments_may_lie_in_different_files(tmp_path):
    for symbol in ("NQ", "ES"):
        save(plain(frame()).assign(symbol=symbol), tmp_path / f"{symbol}.csv")
    assert sorted(read(tmp_path, instrument="all").symbols.values()) == ["ES", "NQ"]
    alone = read(tmp_path / "NQ.csv")
    assert read(tmp_path, instrument="NQ").sha256 == alone.sha256  # the key does not depend on the company


def test_files_that_name_instruments_differently_are_refused(tmp_path):
    save(plain(frame()), tmp_path / "a.csv")
    save(frame(start="2024-04-01"), tmp_path / "b.csv")
    with pytest.raises(UserError, match=r"a\.csv has no column and .*b\.csv has instrument_id column"):
        read(tmp_path)


def test_fewer_bars_than_a_window_are_refused(tmp_path):
    with pytest.raises(UserError, match="104 bars, fewer than the 105"):
        read(save(frame(104), tmp_path / "a.parquet"), min_bars=105)
    assert len(read(save(frame(105), tmp_path / "a.parquet"), min_bars=105)) == 105


def test_negative_and_zero_prices_and_zero_volume_are_legal(tmp_path):
    bars = frame(volume=0)
    bars[PRICES] -= bars["close"].median()
    assert (read(save(bars, tmp_path / "a.csv")).ohlc < 0).any()


@pytest.mark.parametrize("step", ["30s", "5min", "1h", "1D"])
def test_bars_of_another_length_are_refused(tmp_path, step):
    bars = plain(frame().set_axis(pd.date_range("2024-01-01", periods=120, freq=step, tz="UTC"), axis=0))
    with pytest.raises(UserError, match="not one-minute bars"):
        read(save(bars, tmp_path / "a.csv"))


def test_rows_of_another_rtype_are_refused(tmp_path):
    with pytest.raises(UserError, match="rtype 32 is not one-minute"):
        read(save(frame().assign(rtype=32), tmp_path / "a.parquet"))


def test_thinly_traded_minutes_and_stamps_with_seconds_are_one_minute_bars(tmp_path):
    rng = np.random.default_rng(0)
    thin = frame().set_axis(frame(2_000).index[np.sort(rng.choice(2_000, 120, replace=False))], axis=0)
    late = frame().set_axis(frame().index + pd.to_timedelta(rng.integers(0, 5, 120), unit="s"), axis=0)
    for name, bars in {"thin.csv": thin, "late.csv": late}.items():
        assert len(read(save(plain(bars), tmp_path / name))) == 120


# kind of fault, column to change, its new value, what the message says beside the row
FAULTS = {
    "unreadable time": ("timestamp", "yesterday", "time 'yesterday' does not parse"),
    "unreadable price": ("high", np.nan, "high is not a finite number"),
    "high or low out of order": ("low", 1e5, r"low 100000 is above min\(open, close\)"),
    "bad volume": ("volume", -5, "volume '-5(.0)?' is not a number of 0 or more"),
    "backward time": (
        "timestamp",
        "2020-01-01 00:00:00",
        "time '2020-01-01 00:00:00' comes after the later time of row",
    ),
    "repeated time": ("timestamp", None, "repeats that of row"),
}


@settings(max_examples=60, deadline=None)
@given(row=st.integers(1, 118), kind=st.sampled_from(sorted(FAULTS)), suffix=st.sampled_from(["csv", "parquet"]))
def test_a_planted_bad_row_is_refused_by_its_number_or_dropped_alone(row, kind, suffix):
    column, value, words = FAULTS[kind]
    good = plain(frame()).reset_index()
    bad = good.copy()
    bad.loc[row, column] = good.loc[row - 1, column] if value is None else value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{suffix}"
        bad.to_csv(path, index=False) if suffix == "csv" else bad.to_parquet(path)
        line = rf" \(line {row + 2}\)" if suffix == "csv" else ""
        with pytest.raises(UserError, match=rf"a\.{suffix}: row {row + 1}{line}: .*{words}.*--bars\.repair drop"):
            read(path)
        dropped = read(path, repair="drop")
        good.drop(index=row).to_csv(path.with_suffix(".good.csv"), index=False)
        assert dropped.dropped == {kind: 1}
        assert dropped.sha256 == read(path.with_suffix(".good.csv")).sha256


def test_an_infinite_price_and_a_high_below_the_close_are_refused(tmp_path):
    bars = frame()
    for column, value, words in (("close", np.inf, "close is not a finite"), ("high", 1.0, "high 1 is below max")):
        bad = bars.copy()
        bad.iloc[3, bad.columns.get_loc(column)] = value
        with pytest.raises(UserError, match=f"row 4: {words}"):
            read(save(bad, tmp_path / "a.parquet"))


@pytest.mark.parametrize("column", ["high", "low"])
@pytest.mark.parametrize("beyond", ["open", "close"])
def test_open_and_close_lie_between_low_and_high_to_the_tick(tmp_path, column, beyond):
    bars = frame()
    bars.iloc[5, 3:7] = [5000, 5001, 4999, 5000]
    bars.iloc[5, bars.columns.get_loc(beyond)] = bars.iloc[5, bars.columns.get_loc(column)]
    assert len(read(save(bars, tmp_path / "a.parquet"))) == 120
    bars.iloc[5, bars.columns.get_loc(column)] += {"high": -0.25, "low": 0.25}[column]
    with pytest.raises(UserError, match=f"row 6: {column} "):
        read(save(bars, tmp_path / "a.parquet"))


def test_the_first_of_several_bad_rows_is_named_and_the_others_are_counted(tmp_path):
    bars = plain(frame())
    bars.iloc[10, 1] = bars.iloc[50, 1] = np.nan
    bars.iloc[30, 4] = -1
    with pytest.raises(UserError, match=r"row 11 .*first of 3 bad rows: 2 unreadable price, 1 bad volume"):
        read(save(bars, tmp_path / "a.csv"))


def test_one_time_far_ahead_costs_one_row_and_not_all_behind_it(tmp_path):
    for row in (0, 1, 60, 118):
        bars = plain(frame()).reset_index()
        bars.loc[row, "timestamp"] = "2099-01-01 00:00:00"
        bars.to_csv(tmp_path / "a.csv", index=False)
        assert read(tmp_path / "a.csv", repair="drop").dropped == {"backward time": 1}


def test_nothing_is_left_where_every_row_is_bad(tmp_path):
    with pytest.raises(UserError, match=r"0 bars \(120 bad rows were dropped\)"):
        read(save(frame().assign(high=np.nan), tmp_path / "a.parquet"), repair="drop")


def test_written_bars_are_read_by_pandas_in_databento_layout(tmp_path):
    source = frame()
    write_parquet(read(save(source, tmp_path / "a.parquet")), tmp_path / "new" / "b.parquet")
    back = pd.read_parquet(tmp_path / "new" / "b.parquet")
    assert list(back.columns) == list(source.columns)
    assert back.index.name == "ts_event"
    assert (back.index == source.index).all()
    assert back["volume"].dtype == np.uint64
    assert (back["symbol"] == "ESH4").all()


@pytest.mark.parametrize("choice", ["front", "all", "ESH4"])
def test_written_bars_read_back_with_the_same_hash(tmp_path, choice):
    months = [frame(volume=9), frame(key=8, symbol="ESM4", volume=5), frame(start="2024-03-05", key=8, symbol="ESM4")]
    bars = read(save(pd.concat(months), tmp_path / "a.parquet"), instrument=choice)
    write_parquet(bars, tmp_path / "b.parquet")
    back = read(tmp_path / "b.parquet", instrument=choice)
    assert back.sha256 == bars.sha256
    assert back.symbols == bars.symbols


def test_reading_bars_imports_neither_tracking_nor_torch():
    code = "import sys, moola_mlflow.bars; print({'mlflow', 'optuna', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_head_of_a_series_is_its_earliest_bars_with_a_hash_of_their_own() -> None:
    bars = read_bars(BarsConfig(sample_bars=3000))
    first = bars.head(1000)
    assert (first.time_ns == bars.time_ns[:1000]).all()
    assert first.sha256 != bars.sha256
    assert bars.head(5000).sha256 == bars.sha256


def test_a_written_front_month_series_is_read_again_without_choosing_again(real_data: Path, tmp_path: Path) -> None:
    bars = read_bars(BarsConfig(path=str(real_data / "es_multi_expiry_1min.parquet"), instrument="front"))
    write_parquet(bars, tmp_path / "chosen.parquet", "front")
    assert read_bars(BarsConfig(path=str(tmp_path / "chosen.parquet"))).sha256 == bars.sha256
    write_parquet(bars, tmp_path / "unsaid.parquet")
    with pytest.raises(UserError, match=r"bars\.instrument is unset"):
        read_bars(BarsConfig(path=str(tmp_path / "unsaid.parquet")))
