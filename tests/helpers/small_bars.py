"""Bars with chosen times, for tests of windows and splits."""

from __future__ import annotations

import numpy as np

from moola_mlflow.bars import MINUTE_NS, Bars

START = int(np.datetime64("2024-01-01", "ns").astype(np.int64))


def bars_at(minutes: np.ndarray, instrument: np.ndarray | None = None) -> Bars:
    """Bars that start at the given minutes after 2024-01-01 UTC; each close is its row number."""
    n = len(minutes)
    keys = np.zeros(n, np.int64) if instrument is None else instrument
    ohlc = np.repeat(np.arange(n, dtype=np.float64)[:, None], 4, axis=1)
    time_ns = START + np.asarray(minutes, np.int64) * MINUTE_NS
    return Bars(time_ns, ohlc, np.ones(n), keys, {int(k): str(k) for k in set(keys)}, (), "", {})
