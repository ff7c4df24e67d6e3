"""A picture is drawn to the same bytes here and in a worker."""

from __future__ import annotations

import numpy as np
from small_bars import bars_at

from moola_mlflow.bars import segments
from moola_mlflow.core import WorkerPool, result_of
from moola_mlflow.reports import draw_png
from moola_mlflow.reports.plots.bars import PricePicture

PNG = b"\x89PNG"


def test_a_worker_draws_the_same_bytes() -> None:
    bars = bars_at(np.r_[0:300, 400:900], np.repeat([1, 2], 400))
    picture = PricePicture.of(bars, segments(bars, 5), "ES", [(int(bars.time_ns[400]), "ESM4")])
    here, pool = draw_png(picture), WorkerPool(1)
    try:
        assert result_of(pool.submit(draw_png, picture)) == here
    finally:
        pool.close()
    assert here.startswith(PNG)
    assert draw_png(PricePicture.of(bars, segments(bars, 5), "ES", [])) != here
