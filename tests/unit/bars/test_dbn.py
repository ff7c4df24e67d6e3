"""Databento's binary files: true ones and larger ones made with its encoder are the bars that its own reader gives."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from moola_mlflow.bars.reader import Bars, read_bars
from moola_mlflow.core import BarsConfig
from moola_mlflow.core.errors import UserError

pytest.importorskip("databento_dbn", reason="the extra databento is not installed: pip install -e '.[databento]'")
import databento_dbn as dbn

PRICES = ["open", "high", "low", "close"]
START = pd.Timestamp("2024-03-04", tz="UTC")


def read(path: object, min_bars: int = 1, **keys: object) -> Bars:
    return read_bars(BarsConfig(path=str(path), **keys), min_bars)


def mapping(symbol: str, key: int, start: str, end: str) -> SimpleNamespace:
    first, last = dt.date.fromisoformat(start), dt.date.fromisoformat(end)
    interval = SimpleNamespace(start_date=first, end_date=last, symbol=str(key))
    return SimpleNamespace(raw_symbol=symbol, intervals=[interval])


def header(mappings: list[object], schema: str = "ohlcv-1m") -> bytes:
    return bytes(
        dbn.Metadata(
            dataset="GLBX.MDP3", start=START.value, stype_in=dbn.SType.PARENT, stype_out=dbn.SType.INSTRUMENT_ID,
            schema=dbn.Schema(schema), symbols=["NQ.FUT"], partial=[], not_found=[], mappings=mappings,
        )
    )  # fmt: skip


def records(num: int, key: int = 7, start: pd.Timestamp = START, price: int = 5000, publisher: int = 1) -> bytes:
    """Bars of one instrument as the encoder writes them; prices in units of 1e-9, negative for a spread."""
    rng = np.random.default_rng(key)
    ticks = price * 4 + np.cumsum(rng.integers(-3, 4, num))
    content = []
    for i, tick in enumerate(ticks.tolist()):
        ohlc = [int(t * 0.25e9) for t in (tick, tick + 2, tick - 3, tick + 1)]
        time = start.value + i * 60_000_000_000
        content.append(bytes(dbn.OHLCVMsg(33, publisher, key, time, *ohlc, 10 + i)))
    return b"".join(content)


def compress(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def test_true_databento_files_give_the_prices_and_symbols_they_hold(real_data: Path) -> None:
    es = read(real_data / "GLBX.MDP3__test_data.ohlcv-1m.dbn.zst")
    assert es.symbols == {5482: "ESH1"}
    assert es.ohlc[0].tolist() == [3702.75, 3704.75, 3702.5, 3704.75]
    assert es.volume.tolist() == [306, 214, 192, 158]
    assert pd.Timestamp(es.time_ns[0]) == pd.Timestamp("2020-12-28 00:00")
    assert read(real_data / "EQUS.MINI__test_data.ohlcv-1m.dbn.zst").symbols == {13340: "QQQ"}


def test_a_true_file_of_several_publishers_is_refused_with_their_numbers(real_data: Path) -> None:
    with pytest.raises(UserError, match=r"row 2: .*repeats that of row 1 .*publishers 31 and 33"):
        read(real_data / "OPRA.PILLAR__test_data.ohlcv-1m.dbn.zst")
    kept = read(real_data / "OPRA.PILLAR__test_data.ohlcv-1m.dbn.zst", repair="drop")
    assert len(kept) + kept.dropped["repeated time"] == 4


def test_the_bars_are_those_of_databentos_own_reader(tmp_path: Path) -> None:
    databento = pytest.importorskip("databento")
    mappings = [
        mapping("NQH4", 7, "2024-03-04", "2024-03-05"),
        mapping("NQM4", 7, "2024-03-05", "2024-03-09"),  # an id that is used again
        mapping("NQH4-NQM4", 9, "2024-03-04", "2024-03-09"),
    ]
    content = header(mappings) + records(3000) + records(400, 9, price=-20)
    (tmp_path / "a.dbn").write_bytes(content)
    frame = databento.DBNStore.from_file(tmp_path / "a.dbn").to_df()
    bars = read(tmp_path / "a.dbn", instrument="all")
    source = frame.sort_values(["instrument_id", "ts_event"], kind="stable")
    assert np.array_equal(bars.time_ns, source.index.as_unit("ns").asi8)
    assert np.array_equal(bars.ohlc, source[PRICES].to_numpy())
    assert np.array_equal(bars.volume, source["volume"].to_numpy())
    assert bars.symbols == {7: "NQM4", 9: "NQH4-NQM4"}
    assert (bars.ohlc < 0).any()
    frame.to_parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", instrument="all").sha256 == bars.sha256


@pytest.mark.parametrize("name", ["a.dbn", "a.dbn.zst"])
def test_two_hundred_thousand_bars_come_out_as_they_went_in_compressed_or_not(tmp_path: Path, name: str) -> None:
    one = np.frombuffer(records(1), np.dtype(dbn.OHLCVMsg._dtypes))
    many = np.repeat(one, 200_000)
    many["ts_event"] += np.arange(len(many), dtype=np.uint64) * np.uint64(60_000_000_000)
    many["close"] = many["low"] + 250_000_000 * np.random.default_rng(0).integers(0, 6, len(many))
    content = header([mapping("NQH4", 7, "2024-03-04", "2025-01-01")]) + many.tobytes()
    (tmp_path / name).write_bytes(compress(content) if name.endswith("zst") else content)
    bars = read(tmp_path / name)
    assert np.array_equal(bars.ohlc[:, 3], many["close"] / 1e9)
    assert np.array_equal(bars.time_ns, many["ts_event"].astype(np.int64))


def test_months_and_instruments_in_files_of_mixed_forms_make_one_table(tmp_path: Path) -> None:
    april = START + pd.Timedelta(days=30)
    spans = mapping("NQH4", 7, "2024-03-01", "2024-05-01"), mapping("ESH4", 9, "2024-03-01", "2024-05-01")
    for folder, key in (("nq", 7), ("es", 9)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "march.dbn.zst").write_bytes(compress(header(list(spans)) + records(300, key)))
        (tmp_path / folder / "april.dbn").write_bytes(header(list(spans)) + records(300, key, april))
    read(tmp_path / "nq" / "april.dbn").symbols  # noqa: B018 - it reads alone
    frame = pd.DataFrame(
        {"instrument_id": 7, "open": 1.0, "high": 1.0, "low": 1.0, "close": 1.0, "volume": 1, "symbol": "NQH4"},
        index=pd.date_range(START + pd.Timedelta(days=40), periods=200, freq="min", name="ts_event"),
    )
    frame.to_parquet(tmp_path / "nq" / "may.parquet")
    bars = read(tmp_path, instrument="all")
    assert len(bars) == 1400
    assert sorted(bars.symbols.values()) == ["ESH4", "NQH4"]
    assert len(bars.files) == 5
    assert read(tmp_path / "**" / "*.dbn*", instrument="NQH4").symbols == {7: "NQH4"}


BAD = {
    "cut.dbn": (lambda: (header([]) + records(5))[:-9], "ends in the middle of a record, after 4 bars"),
    "cut.dbn.zst": (lambda: compress(header([]) + records(500))[:-40], "cannot be read as DBN"),
    "seconds.dbn": (lambda: header([], "ohlcv-1s") + records(5), "holds ohlcv-1s, not one-minute bars"),
    "trades.dbn": (lambda: header([]) + bytes(range(56)) * 4, "holds records that are not bars"),
    "hours.dbn": (lambda: header([]) + records(5).replace(bytes([14, 33]), bytes([14, 34])), "rtype 34 is not"),
    "empty.dbn": (lambda: header([]), "holds no rows"),
    "header.dbn": (lambda: b"DBN\x03\xff\xff\xff\x7f" + bytes(100), "its header is damaged"),
    "text.dbn": (lambda: b"time,open,high,low,close\n", "is not DBN in spite of its name"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_damaged_or_other_dbn_file_is_refused_in_words(tmp_path: Path, name: str) -> None:
    make, words = BAD[name]
    (tmp_path / name).write_bytes(make())
    with pytest.raises(UserError, match=words) as e:
        read(tmp_path / name)
    assert name in str(e.value)


def test_an_undefined_price_or_time_is_a_bad_row_and_not_a_huge_one(tmp_path: Path) -> None:
    rows = np.frombuffer(records(5), np.dtype(dbn.OHLCVMsg._dtypes)).copy()
    rows["high"][2], rows["ts_event"][3] = 2**63 - 1, 2**64 - 1
    (tmp_path / "a.dbn").write_bytes(header([]) + rows.tobytes())
    with pytest.raises(UserError, match=r"row 3: high is not a finite number"):
        read(tmp_path / "a.dbn")
    assert read(tmp_path / "a.dbn", repair="drop").dropped == {"unreadable time": 1, "unreadable price": 1}


def test_without_the_package_the_message_names_the_extra(tmp_path: Path) -> None:
    (tmp_path / "a.dbn").write_bytes(header([]) + records(5))
    code = (
        "import sys; sys.modules['databento_dbn'] = None\n"
        "from moola_mlflow.bars import read_bars; from moola_mlflow.core import BarsConfig\n"
        f"try: read_bars(BarsConfig(path={str(tmp_path / 'a.dbn')!r}))\n"
        "except Exception as e: print(type(e).__name__, e)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("UserError")
    assert "pip install -e '.[databento]'" in done.stdout
