"""Windows for the feature tests: hypothesis strategies, adversarial shapes and the real bars."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from paths import REAL_DATA

REAL_BARS = REAL_DATA / "es_front_1min.parquet"
WHY_SKIPPED = "real ES bars are not there: ../shared/data/es_front_1min.parquet, beside the project"


def random_ticks(seed: int, num_bars: int, flat: int, jump: int, busy: float, num_windows: int = 1) -> np.ndarray:
    """Return windows of whole ticks, int64 [N, T, 4]: quiet and busy bars, a flat run, and a single-bar jump.

    In a flat run all four prices are the previous close. ``busy`` is the largest half body in ticks; small values
    make bars of zero range and many ties.
    """
    rng = np.random.default_rng(seed)
    windows = np.empty((num_windows, num_bars, 4), np.int64)
    for window in windows:
        flat_at, jump_at = rng.integers(0, num_bars, 2)
        close = 0
        for t in range(num_bars):
            if flat_at <= t < flat_at + flat:
                window[t] = close
                continue
            o = close + rng.integers(-1, 2) + (jump if t == jump_at else 0)
            scale = rng.choice([0, 1, busy])
            c = o + rng.integers(-scale, scale + 1)
            h, low = max(o, c) + rng.integers(0, scale + 1), min(o, c) - rng.integers(0, scale + 1)
            window[t] = o, h, low, c
            close = c
    return windows


@st.composite
def tick_windows(draw, num_windows: int = 1) -> np.ndarray:
    """Draw windows of whole ticks, int64 [N, T, 4]."""
    return random_ticks(
        seed=draw(st.integers(0, 2**32 - 1)),
        num_bars=draw(st.integers(2, 105)),
        flat=draw(st.sampled_from([0, 0, 12, 15, 40])),
        jump=draw(st.sampled_from([0, 0, 1, -7, 60, -200])),
        busy=draw(st.integers(1, 8)),
        num_windows=num_windows,
    )


def in_prices(ticks: np.ndarray, tick: float, base: int) -> np.ndarray:
    """Return float64 prices; each is the product nearest to tick times a whole number, as a file would hold it."""
    return (ticks + base) * tick


def adversarial_windows() -> dict[str, np.ndarray]:
    """Return named windows, int64 [105, 4] in ticks, that hit one rule each."""
    t = np.arange(105)

    def bars(close: np.ndarray, wick: int = 0) -> np.ndarray:
        o = np.concatenate([close[:1], close[:-1]])
        return np.stack([o, np.maximum(o, close) + wick, np.minimum(o, close) - wick, close], axis=1)

    jump = bars(np.where(t < 50, 0, 1000))
    spike = bars(np.zeros(105, int))
    spike[30, 1] = 500
    both = bars(np.zeros(105, int))
    both[1:, 1], both[1:, 2] = 3, -3  # every close half-way between the candidates: no first leg, ever
    late = np.where((t < 20)[:, None], 0, bars(np.where(t % 2 == 0, 6, -6), 1))
    return {
        "all bars flat": np.zeros((105, 4), int),
        "jump out of a flat run": jump,
        "one spike": spike,
        "tie of the two candidates": both,
        "steady rise": bars(t),
        "steady fall": bars(-t),
        "saw, flips every bar": bars(np.where(t % 2 == 0, 5, -5)),
        "triangle": bars(np.abs(t % 24 - 12) * 3, 1),
        "flat start, then saw": late,
        "equal highs": bars(np.where(t % 6 < 3, 4, 0), 0),
        "alternating zero-range bars": np.repeat(np.where(t % 2 == 0, 7, 8)[:, None], 4, axis=1),
    }


def real_windows() -> np.ndarray:
    """Return the ES windows, float64 [328, 105, 4]: stride 52, none across a gap above five minutes or a roll."""
    import pandas as pd

    bars = pd.read_parquet(REAL_BARS)
    new = (bars.index.to_series().diff() > pd.Timedelta("5min")) | (bars["instrument_id"].diff() != 0)
    windows = []
    for _, segment in bars.groupby(new.cumsum().to_numpy()):
        ohlc = segment[["open", "high", "low", "close"]].to_numpy(np.float64)
        windows += [ohlc[start : start + 105] for start in range(0, len(ohlc) - 104, 52)]
    return np.stack(windows)
