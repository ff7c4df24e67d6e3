"""Minutes that a vendor filled in are found; a quiet market is not one of them."""

from __future__ import annotations

import numpy as np

from moola_mlflow.bars.filled import Filled, find_filled


def found(closes: list[float], volume: list[float], codes: list[int] | None = None) -> Filled | None:
    close = np.array(closes)
    return find_filled(np.stack([close] * 4), np.array(volume), np.array(codes or [0] * len(close)))


def test_a_run_that_repeats_the_price_without_volume_is_found() -> None:
    hit = found([1, 2, *[2] * 6, 3], [5, 5, *[0] * 6, 5])
    assert hit is not None
    assert (hit.rows.tolist(), hit.longest) == ([2, 3, 4, 5, 6, 7], (2, 7))


def test_traded_or_moving_bars_and_short_runs_are_not() -> None:
    assert found([2] * 9, [5] * 9) is None
    assert found([1, 2] * 9, [0] * 18) is None
    assert found([2] * 5, [5, 0, 0, 0, 0]) is None


def test_a_file_without_volumes_may_rest_for_half_an_hour() -> None:
    assert found([2.0] * 30, [0.0] * 30) is None
    assert found([2.0] * 31, [0.0] * 31) is not None


def test_each_instrument_begins_anew() -> None:
    assert found([2.0] * 12, [5.0, *[0.0] * 11], [0] * 5 + [1] * 4 + [2] * 3) is None
