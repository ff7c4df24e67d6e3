"""Ticks and seconds become the bars that pandas makes of them, instrument by instrument."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from moola_mlflow.bars.reader import read_bars
from moola_mlflow.core import BarsConfig, UserError


def trades(num: int, symbols: list[str], seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    times = pd.Timestamp("2024-03-04 14:30", tz="UTC") + pd.to_timedelta(np.sort(rng.integers(0, 7_200, num)), unit="s")
    columns = {"price": 100 + 0.25 * rng.integers(-3, 4, num).cumsum(), "size": rng.integers(1, 9, num)}
    return pd.DataFrame({"time": times, "symbol": rng.choice(symbols, num), **columns})


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_trades_become_the_bars_of_pandas(tmp_path: Path, suffix: str) -> None:
    frame = trades(20_000, ["A", "B"])
    path = tmp_path / f"t.{suffix}"
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    mine = frame[frame["symbol"] == "B"].set_index("time")
    made = mine["price"].resample("1min").ohlc().dropna()
    bars = read_bars(BarsConfig(path=str(path), instrument="B", resample="1min"), 1)
    assert np.array_equal(bars.time_ns, pd.DatetimeIndex(made.index).as_unit("ns").asi8)
    assert np.array_equal(bars.ohlc, made.to_numpy())
    assert np.array_equal(bars.volume, mine["size"].resample("1min").sum()[made.index].to_numpy())
    assert bars.files[0].rows == 20_000


def test_a_bad_trade_is_refused_or_left_out(tmp_path: Path) -> None:
    frame = trades(5_000, ["A"])
    frame.loc[777, "price"] = 0.0
    frame.to_csv(tmp_path / "t.csv", index=False)
    config = BarsConfig(path=str(tmp_path / "t.csv"), resample="1min")
    with pytest.raises(UserError, match=r"row 778 .*open 0, "):
        read_bars(config, 1)
    bars = read_bars(config.model_copy(update={"repair": "drop"}), 1)
    assert (bars.dropped, bars.ohlc.min() > 0) == ({"far price": 1}, True)
