"""Names of windows that are cut from bars: the instrument and the time of the first bar."""

from __future__ import annotations

from collections import Counter

import numpy as np

from moola_mlflow.bars import Bars


def instrument_of_rows(bars: Bars, rows: np.ndarray) -> np.ndarray:
    """Return the instrument of some bars: its symbol, with the key behind it if two instruments share one.

    Keys can share a symbol: a continuous contract and its months.

    Shapes: int64 [N] -> text [N].
    """
    repeated = {symbol for symbol, count in Counter(bars.symbols.values()).items() if count > 1}
    named = {key: f"{name}.{key}" if name in repeated else name for key, name in bars.symbols.items()}
    return np.array([named[key] for key in bars.instrument[rows].tolist()])


def window_ids(instrument: np.ndarray, start_ns: np.ndarray) -> list[str]:
    """Return a name for each window. Shapes: text [N], int64 [N]. Units: ns since 1970 UTC."""
    stamps = np.datetime_as_string(start_ns.view("datetime64[ns]"), unit="s").tolist()
    return [
        f"{name}-{stamp.replace('-', '').replace(':', '')}Z"
        for name, stamp in zip(instrument.tolist(), stamps, strict=True)
    ]
