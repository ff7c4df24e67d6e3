"""A window is shown with its own bars, on the clock of the exchange."""

from __future__ import annotations

import numpy as np

from moola_mlflow.bars import read_bars
from moola_mlflow.core import BarsConfig
from moola_mlflow.reports.plots.interactive import ShownSpan
from moola_mlflow.reports.window_pictures import picture_of


def test_a_picture_has_the_bars_of_its_rows_at_the_times_of_new_york() -> None:
    bars = read_bars(BarsConfig(sample_bars=30_000))
    span = ShownSpan(3, 5, "surge", "#000000")
    shown = picture_of(bars, 700, 20, "mine", [span])
    assert (shown.ohlc == bars.ohlc[700:720]).all()
    assert shown.zone == "America/New_York"
    utc = bars.time_ns[700:720].view("datetime64[ns]")
    assert set(((utc - shown.times) / np.timedelta64(1, "h")).tolist()) == {5.0}
    assert shown.spans == (span,)
