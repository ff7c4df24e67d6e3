"""Folds: each window tested once, overlap groups whole, and a gap in time after each test span."""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from moola_mlflow.core.config.presets import resolve
from moola_mlflow.core.errors import UserError
from moola_mlflow.evaluation.folds import EMBARGO_NS, Fold, inner_split, make_folds
from moola_mlflow.windows.windows import MINUTE_NS

DAY = 24 * 60
KINDS = ("stratified", "time")


def overlap_groups(start: np.ndarray, end: np.ndarray, instrument: np.ndarray) -> np.ndarray:
    """Connected components of overlap, by merging until nothing changes: the definition, not a fast way."""
    group = np.arange(len(start))
    meets = (start[:, None] <= end) & (start <= end[:, None]) & (instrument[:, None] == instrument)
    while True:
        merged = np.array([group[row].min() for row in meets])
        if np.array_equal(merged, group):
            return group
        group = merged


@st.composite
def labelled(draw: st.DrawFn, with_times: bool = True) -> dict[str, Any]:
    """A labelled set on a grid of 35 minutes: spans that overlap, touch, contain each other or lie far apart.

    Some sets carry no groups of their own, so that the purge alone must keep the sides apart.
    """
    n = draw(st.integers(8, 60))
    seed = draw(st.integers(0, 2**20))
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.arange(n) % draw(st.integers(2, 3)))
    if not with_times:
        return {"label": label, "groups": rng.integers(0, draw(st.integers(2, n)), n)}
    steps = rng.choice(draw(st.sampled_from([[0, 35], [35, 105, 140], [105, 140, 210, DAY]])), n)
    start = rng.permutation(np.cumsum(steps)) * MINUTE_NS
    end = start + rng.choice(draw(st.sampled_from([[105], [35, 105, 350]])), n) * MINUTE_NS
    instrument = rng.integers(0, draw(st.integers(1, 3)), n)
    groups = overlap_groups(start, end, instrument) if draw(st.booleans()) else rng.permutation(n)
    return {"label": label, "groups": groups, "start_ns": start, "end_ns": end, "instrument": instrument}


def folds_or_refusal(data: dict[str, Any], num_folds: int, repeats: int, seed: int, kind: Any) -> list[Fold]:
    try:
        return make_folds(**data, num_folds=num_folds, repeats=repeats, seed=seed, kind=kind)
    except UserError:
        assume(False)
        raise


def sides_that_meet(data: dict[str, Any], train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """For each training window, whether it overlaps a test span or starts in its embargo: the rule, word by word."""
    start, end, key = data["start_ns"], data["end_ns"], data["instrument"]
    return np.array(
        [
            any(
                key[i] == key[j]
                and ((start[i] <= end[j] and start[j] <= end[i]) or end[j] < start[i] <= end[j] + EMBARGO_NS)
                for j in test
            )
            for i in train
        ],
        bool,
    )


@given(data=labelled(), num_folds=st.integers(2, 4), seed=st.integers(0, 99), kind=st.sampled_from(KINDS))
def test_exactly_the_training_windows_that_meet_a_test_span_or_its_embargo_are_purged(
    data: dict[str, Any], num_folds: int, seed: int, kind: str
) -> None:
    for fold in folds_or_refusal(data, num_folds, 2, seed, kind):
        rest = np.setdiff1d(np.arange(len(data["label"])), fold.test)
        meets = sides_that_meet(data, rest, fold.test)
        np.testing.assert_array_equal(fold.train, rest[~meets])
        assert fold.purged == meets.sum()


@given(
    data=st.one_of(labelled(), labelled(with_times=False)),
    num_folds=st.integers(2, 4),
    repeats=st.integers(1, 3),
    seed=st.integers(0, 99),
    kind=st.sampled_from(KINDS),
)
def test_every_window_is_tested_once_a_repeat_and_no_group_is_on_both_sides(
    data: dict[str, Any], num_folds: int, repeats: int, seed: int, kind: str
) -> None:
    kind = kind if "start_ns" in data else "stratified"
    folds = folds_or_refusal(data, num_folds, repeats, seed, kind)
    assert [(fold.repeat, fold.index) for fold in folds] == list(product(range(repeats), range(num_folds)))
    for repeat in range(repeats):
        tested = np.concatenate([fold.test for fold in folds if fold.repeat == repeat])
        np.testing.assert_array_equal(np.sort(tested), np.arange(len(data["label"])))
    for fold in folds:
        assert len(fold.test)
        assert not set(data["groups"][fold.train]) & set(data["groups"][fold.test])
        assert set(data["label"][fold.train]) == set(data["label"])
        for part in (fold.train, fold.test):
            assert part.dtype == np.int64
            assert (np.diff(part) > 0).all()


@given(data=labelled(), num_folds=st.integers(2, 4), seed=st.integers(0, 99))
def test_time_blocks_are_contiguous_in_the_order_of_the_groups(data: dict[str, Any], num_folds: int, seed: int) -> None:
    first = {g: data["start_ns"][data["groups"] == g].min() for g in set(data["groups"])}
    spans = []
    for fold in folds_or_refusal(data, num_folds, 1, seed, "time"):
        begins = [first[g] for g in data["groups"][fold.test]]
        spans.append((min(begins), max(begins)))
    assert spans == sorted(spans)
    assert all(earlier[1] <= later[0] for earlier, later in pairwise(spans))


def test_each_time_block_tests_a_group_even_where_one_group_is_larger_than_a_block() -> None:
    groups = np.array([0] * 2 + [1] * 30 + [2] * 2 + [3] * 2)
    for seed in range(20):
        data = {**apart(36), "groups": groups}
        folds = make_folds(**data, num_folds=4, repeats=1, seed=seed, kind="time")
        assert [set(groups[fold.test]) for fold in folds] == [{0}, {1}, {2}, {3}]


def apart(n: int, minutes: int = DAY) -> dict[str, Any]:
    """Windows of one instrument at equal steps, classes alternating, each its own group."""
    start = np.arange(n) * minutes * MINUTE_NS
    return {"label": np.arange(n) % 2, "groups": np.arange(n), "start_ns": start, "end_ns": start + 104 * MINUTE_NS}


def test_the_embargo_holds_for_105_bars_after_a_test_span_and_not_before_it() -> None:
    for gap, lost in ((105, 1), (106, 0)):
        data = apart(40, minutes=104 + gap)
        for fold in make_folds(**data, num_folds=4, repeats=1, seed=0, kind="time"):
            last = fold.test.max()
            assert fold.purged == (lost if last < 39 else 0)
            assert (last + 1 in fold.train) == (lost == 0 and last < 39)
            assert fold.test.min() == 0 or fold.test.min() - 1 in fold.train


def test_another_instrument_at_the_same_time_is_not_purged() -> None:
    data = apart(40)
    doubled = {name: np.repeat(values, 2) for name, values in data.items()}
    doubled["groups"] = np.arange(80)
    doubled["instrument"] = np.arange(80) % 2
    folds = make_folds(**doubled, num_folds=4, repeats=3, seed=0, kind="stratified")
    assert all(fold.purged == 0 for fold in folds)


def test_time_blocks_cost_fewer_windows_than_stratified_folds() -> None:
    data = apart(100, minutes=105)
    lost = {
        kind: sum(fold.purged for fold in make_folds(**data, num_folds=5, repeats=1, seed=0, kind=kind))  # type: ignore[arg-type]
        for kind in KINDS
    }
    assert lost["time"] <= 5
    assert lost["stratified"] > 50


def class_shares(label: np.ndarray, tests: list[np.ndarray]) -> np.ndarray:
    """Each fold's share of each class. Shapes: [K, C]."""
    return np.array([[(label[t] == c).sum() / (label == c).sum() for c in np.unique(label)] for t in tests])


@given(seed=st.integers(0, 200), num_folds=st.integers(2, 6), num_classes=st.integers(2, 4))
def test_without_groups_the_classes_of_stratified_folds_differ_by_one_window_at_most(
    seed: int, num_folds: int, num_classes: int
) -> None:
    rng = np.random.default_rng(seed)
    label = np.concatenate([rng.integers(0, num_classes, 60), np.repeat(np.arange(num_classes), 12)])
    folds = make_folds(label, np.arange(len(label)), num_folds, 1, seed, kind="stratified")
    counts = np.array([np.bincount(label[fold.test], minlength=num_classes) for fold in folds])
    assert (np.ptp(counts, axis=0) <= 1).all()


def test_stratified_folds_are_on_average_at_least_as_even_as_those_of_scikit_learn() -> None:
    ours, theirs = [], []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        groups = rng.choice(30, 174, p=rng.dirichlet(np.ones(30)))
        label = (rng.random(174) < np.where(groups % 3 == 0, 0.8, 0.3)).astype(int)
        folds = make_folds(label, groups, 5, 1, seed, kind="stratified")
        ours.append(class_shares(label, [fold.test for fold in folds]).std(0).mean())
        splitter = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        theirs.append(class_shares(label, [test for _, test in splitter.split(label, label, groups)]).std(0).mean())
    assert np.mean(ours) <= np.mean(theirs)


def test_time_blocks_hold_both_classes_as_far_as_the_order_allows() -> None:
    data = apart(174)
    data["label"] = (np.random.default_rng(0).random(174) < 0.4).astype(int)
    for seed in range(5):
        folds = make_folds(**data, num_folds=5, repeats=2, seed=seed, kind="time")
        shares = class_shares(data["label"], [fold.test for fold in folds])
        assert shares.min() > 0.08
        assert shares.max() < 0.35


@pytest.mark.parametrize("kind", KINDS)
def test_repeats_and_seeds_give_different_folds_and_the_same_seed_the_same(kind: Any) -> None:
    def tests(seed: int) -> list[tuple[int, ...]]:
        return [tuple(fold.test) for fold in make_folds(**apart(100), num_folds=5, repeats=3, seed=seed, kind=kind)]

    assert tests(17) == tests(17)
    assert len({tuple(tests(17)[i : i + 5]) for i in (0, 5, 10)}) == 3
    assert tests(17) != tests(23)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_folds": 1}, r"cv\.folds=1; allowed: 2 or more"),
        ({"repeats": 0}, r"cv\.repeats=0; allowed: 1 or more"),
        (
            {"num_folds": 11},
            r"class 'a' has 20 windows, and 11 folds need 2 x 11 = 22 of each class \(20 of class 'a', 20 of class "
            r"'b'\); lower cv\.folds to 10",
        ),
        ({"groups": np.arange(40) // 10}, r"40 labelled windows form 4 groups .* 5 folds need 5 .* cv\.folds to 4"),
        ({"groups": np.zeros(40, int)}, r"form 1 groups .* label windows further apart"),
        ({"start_ns": None, "end_ns": None}, r"time-blocked folds need start_time and end_time, and the 40 .* none"),
        ({"label": np.zeros(0, int), "groups": np.zeros(0, int)}, r"every class has 0 windows"),
    ],
)
def test_a_set_that_cannot_be_folded_is_refused_with_its_arithmetic(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_folds(**{"num_folds": 5, "repeats": 1, "seed": 0, "kind": "time", **apart(40), "classes": "ab", **change})


def test_a_training_part_that_lost_a_class_to_the_purge_is_refused_with_its_arithmetic() -> None:
    data = apart(40, minutes=105)
    data["label"] = (np.arange(40) < 4).astype(int)  # one block holds them all
    with pytest.raises(UserError) as caught:
        make_folds(**data, num_folds=2, repeats=1, seed=0, kind="time", classes=["a", "b"])
    assert "fold 1 of 2 (repeat 1): 40 windows - " in str(caught.value)
    assert "none of class 'b' (4 in the set - 4 tested - 0 purged)" in str(caught.value)


@given(data=labelled(), seed=st.integers(0, 99), kind=st.sampled_from((None, *KINDS)))
@settings(max_examples=60)
def test_the_inner_split_stays_inside_the_training_part_and_is_purged_alike(
    data: dict[str, Any], seed: int, kind: Any
) -> None:
    for fold in folds_or_refusal(data, 2, 1, seed, "time"):
        rest = {name: values for name, values in data.items() if name not in ("label", "groups")}
        try:
            fit, held = inner_split(data["label"], data["groups"], fold.train, seed, kind=kind, **rest)
        except UserError:
            continue
        assert not set(fit) & set(held)
        assert set(fit) | set(held) <= set(fold.train)
        assert not set(data["groups"][fit]) & set(data["groups"][held])
        assert not sides_that_meet(data, fit, held).any()
        left_out = np.setdiff1d(fold.train, np.concatenate([fit, held]))
        assert sides_that_meet(data, left_out, held).all()
        for part in (fit, held):
            assert set(data["label"][part]) == set(data["label"][fold.train])


@pytest.mark.parametrize("kind", KINDS)
def test_the_inner_split_holds_out_about_a_fifth_and_follows_its_seed(kind: Any) -> None:
    data = apart(174)
    train = np.arange(20, 160)
    splits = [inner_split(train=train, seed=seed, kind=kind, **data) for seed in range(6)]
    for fit, held in splits:
        assert len(held) == pytest.approx(28, abs=0 if kind == "stratified" else 14)
        assert len(fit) + len(held) == 140
    assert len({tuple(held) for _, held in splits}) == 6
    again = inner_split(train=train[::-1], seed=0, kind=kind, **data)
    np.testing.assert_array_equal(again[1], splits[0][1])


def test_an_inner_split_without_times_is_stratified_and_keeps_groups_whole() -> None:
    label, groups = np.arange(60) % 2, np.arange(60) // 4
    fit, held = inner_split(label, groups, np.arange(60), 17)
    assert len(fit) + len(held) == 60
    assert not set(groups[fit]) & set(groups[held])
    assert abs(int(label[held].sum()) * 2 - len(held)) == 0


def test_an_inner_split_that_cannot_hold_every_class_on_both_sides_is_refused() -> None:
    label = np.array([0] * 20 + [1])
    with pytest.raises(UserError, match=r"21 windows in 21 overlap groups .* \(20 of class 0, 1 of class 1\)"):
        inner_split(label, np.arange(21), np.arange(21), 0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_inner_split_holds_out_one_of_the_nearest_whole_number_of_parts(kind: Any) -> None:
    data = apart(240)
    for share, parts in ((0.5, 2), (0.4, 2), (0.3, 3), (0.2, 5), (0.1, 10)):
        fit, held = inner_split(train=np.arange(240), seed=0, share=share, kind=kind, **data)
        assert len(fit) + len(held) == 240
        assert len(held) == pytest.approx(240 / parts, rel=0 if kind == "stratified" else 0.5)


@pytest.mark.parametrize("share", [0.51, 0.9, 1.0, 0.0, -0.2, float("nan")])
def test_a_share_that_no_number_of_parts_gives_is_refused_with_the_cure(share: float) -> None:
    data = apart(40)
    with pytest.raises(UserError, match=r"cv.inner_share=.*; allowed: above 0 and up to 0.5.*set cv.inner_share=0.2"):
        inner_split(train=np.arange(40), seed=0, share=share, **data)
    with pytest.raises(
        UserError, match=r"cv.inner_share='.*allowed: float > 0 <= 0.5.*one of round\(1 / inner_share\)"
    ):
        resolve({}, {"cv.inner_share": str(share)})


def test_a_share_too_small_for_its_inverse_holds_out_one_group() -> None:
    label, groups = np.arange(40) % 2, np.arange(40) // 4
    _, held = inner_split(label, groups, np.arange(40), 0, share=1e-320)
    assert len(held) == 4
