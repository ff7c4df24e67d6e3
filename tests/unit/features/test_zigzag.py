"""The zigzag on series whose swings are known by hand; test_relativity.py compares it with a plain one."""

from __future__ import annotations

import numpy as np
import pytest

from moola_mlflow.features.zigzag import PRIMARY, Hybrid, Swings, walk


def walked(close: list[float], hybrid: Hybrid = PRIMARY, atr: float = 1.0) -> Swings:
    """Walk one window whose bars have no wicks."""
    c_TN = np.array(close, float)[:, None]
    return walk(c_TN, c_TN, c_TN, np.full_like(c_TN, atr), hybrid)


def test_legs_turn_where_the_move_against_them_reaches_its_limit() -> None:
    swings = walked([0, 1, 2, 1, 0, 1, 2])
    assert swings.leg[:, 0].tolist() == [0, 0, 1, 1, -1, -1, 1]
    assert np.flatnonzero(swings.flip[:, 0]).tolist() == [2, 4, 6]
    assert (swings.sh[4, 0], swings.t_sh[4, 0]) == (2, 2)
    assert (swings.sl[6, 0], swings.t_sl[6, 0]) == (0, 4)


def test_before_the_first_leg_there_is_no_swing() -> None:
    swings = walked([0, 0.5, 1, 0.5, 0])
    assert not swings.flip.any()
    assert not swings.leg.any()
    assert (swings.t_sh.max(), swings.t_sl.max(), swings.sh.max(), swings.sl.max()) == (-1, -1, 0, 0)


def test_a_move_that_equals_the_limit_but_for_rounding_counts() -> None:
    swings = walked([0, 1.2 - 1e-12])
    assert swings.leg[:, 0].tolist() == [0, 1]


def test_an_infinite_atr_is_never_reached() -> None:
    assert not walked([0, 100, 0, 100], atr=np.inf).flip.any()


def test_a_bar_sees_only_the_bars_before_it() -> None:
    close = np.cumsum(np.random.default_rng(3).normal(size=200)).tolist()
    whole, cut = walked(close), walked(close[:120])
    for name in ("leg", "sh", "t_sh", "sl", "t_sl", "flip"):
        np.testing.assert_array_equal(getattr(whole, name)[:120], getattr(cut, name))


def test_windows_walk_together_as_each_does_alone() -> None:
    c_TN = np.cumsum(np.random.default_rng(4).normal(size=(80, 6)), axis=0)
    together = walk(c_TN, c_TN, c_TN, np.ones_like(c_TN), PRIMARY)
    for i in range(6):
        np.testing.assert_array_equal(together.leg[:, i], walked(c_TN[:, i].tolist()).leg[:, 0])


@pytest.mark.parametrize(("lookback", "turns"), [(0, False), (1, True)])
def test_a_small_retracement_soon_after_the_extreme_ends_a_leg_only_where_it_is_asked_for(
    lookback: int, turns: bool
) -> None:
    swings = walked([0, 2, 4, 3.4], Hybrid(lookback, 0.5))
    assert bool(swings.flip[3, 0]) is turns
    assert not walked([0, 2, 4, 3.9, 3.4], Hybrid(1, 0.5)).flip[4, 0]  # two bars after the extreme: too late


def test_the_bar_of_the_extreme_may_end_its_leg_only_where_that_is_allowed() -> None:
    h_TN, l_TN, c_TN = (np.array(row, float)[:, None] for row in ([0, 2, 5], [0, 2, 4], [0, 2, 4.9]))
    for same_bar in (False, True):
        swings = walk(h_TN, l_TN, c_TN, np.ones_like(c_TN), Hybrid(5, 0.5, same_bar))
        assert bool(swings.flip[2, 0]) is same_bar
