"""The order of windows: random ones first, fixed shares later, no window twice, the same after a restart."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moola_mlflow.annotate.suggestions import ordered
from moola_mlflow.annotate.window_queue import NextWindow, WindowQueue
from moola_mlflow.core import AnnotateConfig

STARTS = np.arange(0, 1000 * 105, 105)


def queue(num: int = 1000, **keys: Any) -> WindowQueue:
    return WindowQueue.of(AnnotateConfig(**keys), STARTS[:num])


def shown(made: WindowQueue, num: int, done: dict[int, NextWindow] | None = None) -> list[NextWindow]:
    """NextWindow and decide windows one after another."""
    mine = {} if done is None else done
    for _ in range(num):
        draw = made.draw(len(mine), mine, mine)
        if draw is None:
            break
        assert draw.row not in mine
        mine[draw.row] = draw
    return list(mine.values())


@given(
    num=st.integers(1, 200),
    seed=st.integers(0, 99),
    overlap=st.floats(0, 1),
    order=st.sampled_from(["random", "uncertain"]),
)
def test_every_window_comes_once_and_then_none(num: int, seed: int, overlap: float, order: str) -> None:
    made = queue(num, seed=seed, overlap=overlap, order=order)
    made.reorder(STARTS[:num][::-1].tolist())
    assert sorted(draw.row for draw in shown(made, 2 * num)) == STARTS[:num].tolist()


@pytest.mark.parametrize("order", ["uncertain", "top"])
def test_after_the_random_ones_half_are_ordered_and_one_in_five_is_blind(order: str) -> None:
    made = queue(order=order)
    made.reorder(STARTS[::-1].tolist())
    draws = shown(made, 160)
    assert {(draw.drawn, draw.blind) for draw in draws[:60]} == {("random", True)}
    kinds = Counter((draw.drawn, draw.blind) for draw in draws[60:])
    assert kinds == {(order, False): 50, ("random", True): 20, ("random", False): 30}
    for lo in range(60, 160, 10):
        assert sum(draw.blind for draw in draws[lo : lo + 10]) == 2


def test_before_a_detector_is_fitted_windows_are_random() -> None:
    assert {draw.drawn for draw in shown(queue(), 120)} == {"random"}


def test_a_restart_goes_on_with_the_same_random_windows() -> None:
    whole = [draw.row for draw in shown(queue(seed=5), 80)]
    done: dict[int, NextWindow] = {}
    shown(queue(seed=5), 33, done)
    assert [draw.row for draw in shown(queue(seed=5), 47, done)] == whole


def test_two_annotators_share_a_tenth_and_nothing_else() -> None:
    ann = shown(queue(annotator="ann"), 300)
    bob_queue, mine, everybody = queue(annotator="bob"), dict[int, NextWindow](), {draw.row: draw for draw in ann}
    for _ in range(300):
        draw = bob_queue.draw(len(mine), mine, everybody)
        assert draw is not None
        mine[draw.row] = draw
        everybody[draw.row] = draw
    common = {draw.row for draw in ann} & set(mine)
    assert len(common) == 30
    assert all(mine[row].blind and mine[row].drawn == "random" for row in common)


def test_another_seed_gives_other_windows() -> None:
    assert [draw.row for draw in shown(queue(seed=1), 20)] != [draw.row for draw in shown(queue(seed=2), 20)]


def test_a_list_is_shown_in_its_own_order_and_nothing_else() -> None:
    made = WindowQueue.of(AnnotateConfig(order="list"), STARTS, [420, 105, 210])
    draws = shown(made, 9)
    assert [(draw.row, draw.drawn, draw.blind) for draw in draws] == [(row, "listed", False) for row in (420, 105, 210)]


def test_windows_ahead_are_the_next_random_ones() -> None:
    made = queue(overlap=0)
    ahead = made.ahead({}, 10)
    assert [draw.row for draw in shown(made, 10)] == ahead


def test_uncertain_windows_are_those_nearest_to_a_half_and_top_ones_the_highest() -> None:
    rows, top = np.array([1, 2, 3, 4]), np.array([0.9, 0.45, 0.0, 0.6])
    assert ordered(rows, top, "uncertain").tolist() == [2, 4, 1, 3]
    assert ordered(rows, top, "top").tolist() == [1, 4, 2, 3]


def test_a_listed_window_with_a_hit_was_chosen_by_a_query_and_any_other_by_the_list() -> None:
    queue = WindowQueue.of(AnnotateConfig(order="list"), np.arange(0, 1050, 105), [210, 105], {210: []})
    assert queue.draw(0, (), ()) == NextWindow(210, "top", False)
    assert queue.draw(1, (210,), ()) == NextWindow(105, "listed", False)


def test_what_the_random_order_has_passed_is_a_fair_sample_although_queries_took_hard_windows_before() -> None:
    num, shares = 900, []
    for seed in range(40):
        hard = np.random.default_rng([seed, 5]).random(num) > 0.8
        queue = WindowQueue.of(AnnotateConfig(seed=seed), np.arange(num))
        mine: dict[int, NextWindow] = {}
        queue.reorder(sorted(queue.own, key=lambda row: not hard[row]))
        while len(mine) < 350:
            window = queue.draw(len(mine), mine, mine)
            assert window is not None
            mine[window.row] = window
        at_random = [row for row, window in mine.items() if window.drawn == "random"]
        fair = [*queue.fair(at_random, mine)]
        shares.append((hard[at_random].mean(), hard[fair].mean(), len(fair)))
    drawn, passed, size = np.mean(shares, 0)
    assert drawn < 0.17 < 0.19 < passed < 0.21
    assert size > 150


def test_the_random_order_of_another_seed_has_passed_nothing() -> None:
    queue = WindowQueue.of(AnnotateConfig(seed=1), np.arange(900))
    mine = set(WindowQueue.of(AnnotateConfig(seed=2), np.arange(900)).own[:200])
    assert len(queue.fair(mine, mine)) < 5
