"""Small labelled sets for tests of cross-validation: random walks with spans, with and without times."""

from __future__ import annotations

from typing import Literal

import numpy as np

from moola_mlflow.labels.labelled_set import LabelledSet
from moola_mlflow.windows.windows import MINUTE_NS

Times = Literal["apart", "crowded", "none"]
FIRST_NS = 1_700_000_000 * 10**9


def small_labels(
    num: int = 36,
    seed: int = 0,
    num_classes: int = 2,
    times: Times = "apart",
    num_instruments: int = 1,
    steps: int = 105,
) -> LabelledSet:
    """Return ``num`` windows of random walks, with as many of each class as can be.

    ``apart``: a day between windows. ``crowded``: 20 to 400 minutes from start to start, so that some overlap and some
    are within the embargo of the next. ``none``: no times; every fifth window shares its last 40 bars with the next.
    """
    rng = np.random.default_rng([seed, num])
    close = 100 + np.cumsum(rng.normal(size=(num, steps)), axis=1)
    open_ = close - rng.normal(size=(num, steps))
    wick = np.abs(rng.normal(size=(2, num, steps)))
    ohlc = np.stack([open_, np.maximum(open_, close) + wick[0], np.minimum(open_, close) - wick[1], close], 2)
    start = rng.integers(20, steps - 40, num)
    start_ns = None
    if times == "none":
        for i in range(0, num - 1, 5):
            ohlc[i + 1, :40] = ohlc[i, -40:]
    else:
        gaps = np.full(num, 24 * 60) if times == "apart" else rng.integers(20, 400, num)
        start_ns = FIRST_NS + np.cumsum(gaps) * MINUTE_NS
    names = np.array(["ES", "NQ", "YM"])[rng.integers(0, num_instruments, num)]
    return LabelledSet(
        window_id=np.array([f"w{i}" for i in range(num)]),
        ohlc=ohlc,
        label=rng.permutation(np.arange(num) % num_classes),
        classes=("consolidation", "retracement", "reversal")[:num_classes],
        start=start,
        end=start + rng.integers(4, 12, num),
        start_ns=start_ns,
        end_ns=None if start_ns is None else start_ns + (steps - 1) * MINUTE_NS,
        instrument=None if times == "none" else names,
        sha256="of no file",
    )
