"""Bars with chosen times, and folders of small files of bars."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from moola_mlflow.bars import MINUTE_NS, Bars

PRICES = ["open", "high", "low", "close"]
START = int(np.datetime64("2024-01-01", "ns").astype(np.int64))


def bars_at(minutes: np.ndarray, instrument: np.ndarray | None = None) -> Bars:
    """Bars that start at the given minutes after 2024-01-01 UTC; each close is its row number."""
    n = len(minutes)
    keys = np.zeros(n, np.int64) if instrument is None else instrument
    ohlc = np.repeat(np.arange(n, dtype=np.float64)[:, None], 4, axis=1)
    time_ns = START + np.asarray(minutes, np.int64) * MINUTE_NS
    return Bars(time_ns, ohlc, np.ones(n), keys, {int(k): str(k) for k in set(keys)}, (), "", {})


def month(symbol: str | None, key: int, start: str, num: int = 300) -> pd.DataFrame:
    """One instrument's bars of one month, with a pause in the middle."""
    rng = np.random.default_rng([key, num])
    close = 5000 + 0.25 * np.cumsum(rng.integers(-3, 4, num))
    open_ = np.concatenate([close[:1], close[:-1]])
    ohlc = [open_, np.maximum(open_, close) + 0.25, np.minimum(open_, close) - 0.5, close]
    minutes = np.arange(num) + 90 * (np.arange(num) >= num // 2)
    index = pd.Timestamp(start, tz="UTC") + pd.to_timedelta(minutes, unit="min")
    frame = pd.DataFrame({"instrument_id": key, **dict(zip(PRICES, ohlc, strict=True)), "volume": 10.0}, index=index)
    frame.index.name = "ts_event"
    return frame if symbol is None else frame.assign(symbol=symbol)


def partitioned(folder: Path) -> Path:
    """Three instruments, three months each, a file a month, in folders named after the instrument."""
    for key, symbol in ((3, "NQ"), (1, "ES"), (2, "CL")):
        for at in ("2024-03-04", "2024-01-02", "2024-02-05"):
            path = folder / symbol / f"{at[:7]}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            month(symbol, key, at, 280 + key).to_parquet(path)
    return folder
