"""Events as columns beside bars, for vectorbt, backtesting.py and tools like them.

Shape legend: L bars, E events.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from moola_mlflow.bars import Bars
from moola_mlflow.core import UserError
from moola_mlflow.models.scanning import instrument_names

PRICE_COLUMNS = ("Open", "High", "Low", "Close", "Volume")
"""Names of the columns of bars, as backtesting.py wants them."""


def event_signals(bars: Bars, events: pd.DataFrame, instrument: str | None = None) -> pd.DataFrame:
    """Return bars with columns that say at which bar an event of each class is known.

    Nobody can trade an event before ``known_at``. The first price after it is the open of the next bar.

    Parameters
    ----------
    bars
        The bars that were scanned.
    events
        The table of an event detector's scan, or some of its rows. Rows that are not ``final`` give no signal.
    instrument
        The instrument, if the bars hold several.

    Returns
    -------
    pandas.DataFrame
        Index: start of each bar, UTC, without a time zone. Columns: ``Open``, ``High``, ``Low``, ``Close``, ``Volume``,
        and for each class of the events:

        - ``signal_<class>``: an event is known before the next bar opens. For tools that fill an order at the open of
          the next bar (backtesting.py).
        - ``entry_<class>``: this bar's open is the first price after an event is known. For tools that fill at a price
          of the same bar (vectorbt with ``price=Open``).
        - ``score_<class>``: the highest score of the events of the signal, else 0.

    Raises
    ------
    UserError
        If the bars hold several instruments and none is named, or not the named one, or if the table lacks a column.

    Examples
    --------
    >>> import pandas as pd
    >>> from moola_mlflow import BarsConfig, event_signals, read_bars
    >>> bars = read_bars(BarsConfig(path="sample", sample_bars=2000))
    >>> known = pd.Timestamp(bars.time_ns[99], tz="UTC") + pd.Timedelta("1min")
    >>> events = pd.DataFrame({"instrument": "SAMPLE", "label": ["retracement"], "score": [0.9], "known_at": [known]})
    >>> table = event_signals(bars, events)
    >>> [int(table[name].to_numpy().argmax()) for name in ("signal_retracement", "entry_retracement")]
    [99, 100]
    """
    if missing := [name for name in ("label", "score", "known_at") if name not in events]:
        raise UserError(f"events lack the columns {', '.join(missing)}; give the table of an event detector's scan")
    rows = _rows_of(bars, instrument)
    time_ns = bars.time_ns[rows]
    values = [*bars.ohlc[rows].T, bars.volume[rows]]
    table = pd.DataFrame(
        dict(zip(PRICE_COLUMNS, values, strict=True)), index=pd.DatetimeIndex(time_ns.view("datetime64[ns]"))
    )
    own = events[events["final"]] if "final" in events else events
    if instrument is not None and "instrument" in own:
        own = own[own["instrument"] == instrument]
    for label in sorted(set(events["label"])):
        of_class = own[own["label"] == label]
        known = pd.DatetimeIndex(of_class["known_at"]).as_unit("ns").asi8
        entry = np.searchsorted(time_ns, known)
        signal, first, best = np.zeros(len(rows), bool), np.zeros(len(rows), bool), np.zeros(len(rows))
        first[entry[(entry > 0) & (entry < len(rows))]] = True
        at = entry[entry > 0] - 1
        signal[at] = True
        np.maximum.at(best, at, of_class["score"].to_numpy(np.float64)[entry > 0])
        table[f"signal_{label}"], table[f"entry_{label}"], table[f"score_{label}"] = signal, first, best
    return table


def _rows_of(bars: Bars, instrument: str | None) -> np.ndarray:
    """Return the rows of one instrument. A series of rolled contracts is in order of time, and counts as one."""
    if instrument is None:
        if (np.diff(bars.time_ns) <= 0).any():
            names = ", ".join(sorted(set(bars.symbols.values()))[:12])
            raise UserError(f"the bars hold several instruments ({names}); name one: event_signals(..., instrument=)")
        return np.arange(len(bars))
    keys = [key for key, name in instrument_names(bars).items() if name == instrument]
    rows = np.flatnonzero(np.isin(bars.instrument, keys))
    if not len(rows):
        names = ", ".join(sorted(set(instrument_names(bars).values()))[:12])
        raise UserError(f"instrument='{instrument}' is not in the bars; there are: {names}")
    return rows
