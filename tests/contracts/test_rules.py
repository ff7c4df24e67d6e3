"""The contract of labelling rules: every selector family, every outcome and every named rule passes all of it."""

from __future__ import annotations

import numpy as np
import pytest
from market_windows import in_prices, random_ticks

from moola_mlflow.core.errors import TrainingError, UserError
from moola_mlflow.labels.rules import (
    FAMILIES,
    OUTCOMES,
    RULES,
    SELECTORS,
    Marked,
    Rule,
    RuleWindows,
    apply_rules,
    draw_rules,
    find_rule,
)
from moola_mlflow.labels.rules.drawing import LEAST_FOUND, MOST_OF_ONE_CLASS
from moola_mlflow.labels.rules.outcomes import Sized
from moola_mlflow.labels.rules.parameters import Range, Real, drawn, ranges
from moola_mlflow.labels.rules.rule import DrawnRule, Selector

TICK = 0.25
FIELDS = ("found", "start", "end", "direction", "outcome")


@pytest.fixture(scope="module")
def windows() -> np.ndarray:
    """Windows of whole ticks, so that every sum of prices is exact: quiet and busy, with flat runs and jumps."""
    cases = [(0, 0, 5), (12, 0, 3), (0, -7, 4), (40, 60, 8), (0, 0, 1)]
    ticks = [random_ticks(seed, 105, flat, jump, busy, 12) for seed, (flat, jump, busy) in enumerate(cases)]
    return in_prices(np.concatenate(ticks), TICK, 4000)


def rules_of(selector: type[Selector], outcome: type[Sized], count: int = 4) -> list[DrawnRule]:
    made = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        chosen = drawn(selector, rng)
        parameters = {name: one.draw(rng) for name, one in ranges(outcome).items()}
        made.append(DrawnRule(f"test-{seed}", chosen, outcome(wait=chosen.wait, **parameters), seed))
    return made


def _cases() -> dict[str, list[Rule]]:
    kinds = list(OUTCOMES.values())
    cases: dict[str, list[Rule]] = {
        name: [rule for kind in kinds for rule in rules_of(selector, kind, 2)] for name, selector in SELECTORS.items()
    }
    return cases | {name: [rule] for name, rule in RULES.items()}


CASES = _cases()


@pytest.fixture(params=CASES)
def rules(request: pytest.FixtureRequest) -> list[Rule]:
    return CASES[request.param]


def same(one: Marked, other: Marked, flip: bool = False) -> None:
    np.testing.assert_array_equal(one.found, other.found)
    at = one.found
    for name in ("start", "end", "outcome"):
        np.testing.assert_array_equal(getattr(one, name)[at], getattr(other, name)[at], err_msg=name)
    np.testing.assert_array_equal(one.direction[at], -other.direction[at] if flip else other.direction[at])


def test_spans_and_classes_lie_within_their_bounds(rules: list[Rule], windows: np.ndarray) -> None:
    for rule in rules:
        marked = rule.apply(RuleWindows(windows))
        at = marked.found
        assert at.dtype == bool
        assert all(getattr(marked, name).shape == (len(windows),) for name in FIELDS)
        assert (marked.start[at] >= 0).all()
        assert (marked.start[at] < marked.end[at]).all()
        assert (marked.end[at] <= windows.shape[1] - 2).all()
        assert np.isin(marked.direction[at], (-1, 1)).all()
        assert (marked.outcome[at] < len(rule.classes)).all()
        assert (marked.outcome[~at] == -1).all()


def test_every_family_finds_spans_and_every_class(rules: list[Rule], windows: np.ndarray) -> None:
    marks = [rule.apply(RuleWindows(windows)) for rule in rules]
    assert max(marked.found.mean() for marked in marks) > 0.2
    assert any(len(np.unique(marked.outcome[marked.labelled])) > 1 for marked in marks)
    ways = np.concatenate([marked.direction[marked.found] for marked in marks])
    assert set(ways) == {-1, 1}


@pytest.mark.parametrize("scale", [2.0**-10, 64.0])
def test_the_scale_of_prices_changes_nothing(rules: list[Rule], windows: np.ndarray, scale: float) -> None:
    for rule in rules:
        same(rule.apply(RuleWindows(windows)), rule.apply(RuleWindows(windows * scale)))


@pytest.mark.parametrize("shift", [-5000.0, 1024.0])
def test_the_level_of_prices_changes_nothing(rules: list[Rule], windows: np.ndarray, shift: float) -> None:
    for rule in rules:
        same(rule.apply(RuleWindows(windows)), rule.apply(RuleWindows(windows + shift)))


def test_a_rule_of_rises_is_one_of_falls_in_mirrored_prices(rules: list[Rule], windows: np.ndarray) -> None:
    mirrored = -windows[..., [0, 2, 1, 3]]
    for rule in rules:
        same(rule.apply(RuleWindows(windows)), rule.apply(RuleWindows(mirrored)), flip=True)


def test_a_window_is_read_alone(rules: list[Rule], windows: np.ndarray) -> None:
    order = np.random.default_rng(0).permutation(len(windows))[:10]
    for rule in rules:
        whole = rule.apply(RuleWindows(windows))
        part = rule.apply(RuleWindows(windows[order], order))
        expected = Marked(*(getattr(whole, name)[order] for name in FIELDS))
        same(expected, part)


def test_a_window_that_never_moves_has_no_span(rules: list[Rule]) -> None:
    still = np.full((3, 105, 4), 4000.0)
    for rule in rules:
        assert not rule.apply(RuleWindows(still)).found.any()


def test_a_rule_has_a_name_classes_and_a_description(rules: list[Rule]) -> None:
    for rule in rules:
        assert rule.name
        assert len(set(rule.classes)) == len(rule.classes) >= 2
        assert rule.describe()


@pytest.mark.parametrize("kind", [*SELECTORS.values(), *OUTCOMES.values()])
def test_every_parameter_is_drawn_from_its_range_and_the_formula_is_written(kind: type) -> None:
    assert kind.__doc__
    for name, one in ranges(kind).items():
        values = [one.draw(np.random.default_rng(seed)) for seed in range(200)]
        assert all(one.holds(value) for value in values), name
        assert len(set(values)) > 1 or len(getattr(one, "values", "..")) == 1, name


def test_no_fraction_near_a_half_is_drawn() -> None:
    parts: list[Range] = [
        ranges(kind)[name] for kind in OUTCOMES.values() for name in ("fraction", "back", "on") if name in ranges(kind)
    ]
    parts.append(ranges(SELECTORS["displacement"])["power"])
    assert len(parts) == 6
    for one in parts:
        assert isinstance(one, Real)
        assert not one.holds(0.5)
        values = [one.draw(np.random.default_rng(seed)) for seed in range(500)]
        assert not any(0.4 < value < 0.6 for value in values)
        assert min(values) < 0.4 < 0.6 < max(values)


@pytest.mark.parametrize("family", FAMILIES)
def test_drawn_rules_are_kept_by_their_criteria_and_follow_from_the_seed(family: str, windows: np.ndarray) -> None:
    first, again = draw_rules(windows, 12, family, 3), draw_rules(windows, 12, family, 3)
    assert first == again
    assert first != draw_rules(windows, 12, family, 4)
    for rule, marked in zip(first, apply_rules(first, windows), strict=True):
        assert marked.found.mean() >= LEAST_FOUND
        shares = np.bincount(marked.outcome[marked.found]) / marked.found.sum()
        assert shares.max() <= MOST_OF_ONE_CLASS
        assert find_rule(rule.name) == rule


def test_the_families_leave_out_what_they_say() -> None:
    assert "displacement" not in FAMILIES["strict"].selectors
    assert "displacement" in FAMILIES["broad"].selectors
    assert not {"level_shift", "ema_gap", "displacement"} & set(FAMILIES["ultra"].selectors)
    assert "touch" not in FAMILIES["ultra"].outcomes
    assert {name for family in FAMILIES.values() for name in family.selectors} == set(SELECTORS)
    assert {name for family in FAMILIES.values() for name in family.outcomes} == set(OUTCOMES)


def test_noise_follows_from_key_and_salt_alone(windows: np.ndarray) -> None:
    w, part = RuleWindows(windows), RuleWindows(windows[5:9], np.arange(5, 9))
    noise = w.noise(7, 0.2, 50)
    assert isinstance(noise, np.ndarray)
    np.testing.assert_array_equal(noise[5:9], part.noise(7, 0.2, 50))
    assert not np.array_equal(noise, w.noise(8, 0.2, 50))
    assert not np.array_equal(noise, w.noise(7, 0.2, 50, stream=1))
    assert np.log(noise).std() == pytest.approx(0.2, rel=0.1)
    assert w.noise(7, 0.0, 50) == 1.0


def test_bars_that_never_move_keep_no_rule() -> None:
    with pytest.raises(TrainingError, match=r"lower objective\.num_rules"):
        draw_rules(np.full((4, 105, 4), 10.0), 2)


@pytest.mark.parametrize("name", ["surge-2", "strict", "strict-0", "strict-a-1", "calm-0-1", "strict-0-1-2"])
def test_an_unknown_rule_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"[Aa]llowed: "):
        find_rule(name)


def test_windows_too_short_for_a_rule_are_refused() -> None:
    with pytest.raises(UserError, match=r"windows\.length=80; the label rule strict-0-1 needs 90 bars"):
        find_rule("strict-0-1").apply(RuleWindows(np.ones((2, 80, 4))))


def test_prices_of_another_shape_are_refused() -> None:
    with pytest.raises(UserError, match=r"shape \[N, T, 4\]"):
        RuleWindows(np.ones((2, 105, 5)))
