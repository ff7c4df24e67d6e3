"""Folds: each window tested once, overlap groups whole, and a gap in time after each test span."""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from moola_mlflow.core import CvConfig, FinetuneKeys, make_config
from moola_mlflow.core.errors import UserError
from moola_mlflow.evaluation.folds import Fold, inner_split, make_folds
from moola_mlflow.labels.labelled_set import LabelledSet
from moola_mlflow.windows.windows import MINUTE_NS

DAY = 24 * 60
EMBARGO_NS = 105 * MINUTE_NS
KINDS = ("stratified", "time")
TIMED = (True, False)


def labelled_set(
    label: np.ndarray, start_ns: np.ndarray | None = None, end_ns: np.ndarray | None = None, num_instruments: int = 1
) -> LabelledSet:
    """A set of windows whose prices say nothing: folds are cut by classes, groups and times."""
    n = len(label)
    return LabelledSet(
        window_id=np.arange(n).astype(str),
        ohlc=np.zeros((n, 105, 4)),
        label=label,
        classes=tuple("abcd"[: int(label.max(initial=1)) + 1]),
        start=np.full(n, 20),
        end=np.full(n, 30),
        start_ns=start_ns,
        end_ns=end_ns,
        instrument=np.array(["ES", "NQ", "YM"])[np.arange(n) % num_instruments],
    )


def apart(n: int, minutes: int = DAY, times: bool = True) -> LabelledSet:
    """Windows at equal steps, classes alternating."""
    start = np.arange(n) * minutes * MINUTE_NS
    label = np.arange(n) % 2
    return labelled_set(label, start, start + 104 * MINUTE_NS) if times else labelled_set(label)


def overlap_groups(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Connected components of overlap, by merging until nothing changes: the definition, not a fast way."""
    group = np.arange(len(start))
    meets = (start[:, None] <= end) & (start <= end[:, None])
    while True:
        merged = np.array([group[row].min() for row in meets])
        if np.array_equal(merged, group):
            return group
        group = merged


@st.composite
def labelled(draw: st.DrawFn, with_times: bool = True) -> tuple[LabelledSet, np.ndarray]:
    """A labelled set and its groups on a grid of 35 minutes: spans that overlap, touch, contain or miss each other.

    Some sets carry no groups of their own, so that the purge alone must keep the sides apart.
    """
    n = draw(st.integers(8, 60))
    seed = draw(st.integers(0, 2**20))
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.arange(n) % draw(st.integers(2, 3)))
    if not with_times:
        return labelled_set(label), rng.integers(0, draw(st.integers(2, n)), n)
    steps = rng.choice(draw(st.sampled_from([[0, 35], [35, 105, 140], [105, 140, 210, DAY]])), n)
    start = rng.permutation(np.cumsum(steps)) * MINUTE_NS
    end = start + rng.choice(draw(st.sampled_from([[105], [35, 105, 350]])), n) * MINUTE_NS
    groups = overlap_groups(start, end) if draw(st.booleans()) else rng.permutation(n)
    return labelled_set(label, start, end, draw(st.integers(1, 3))), groups


def folds_or_refusal(data: tuple[LabelledSet, np.ndarray], cv: CvConfig, seed: int) -> list[Fold]:
    try:
        return make_folds(*data, cv, seed)
    except UserError:
        assume(False)
        raise


def sides_that_meet(labels: LabelledSet, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """For each training window, whether it overlaps a test span or starts in its embargo: the rule, word by word."""
    start, end = labels.start_ns, labels.end_ns
    assert start is not None
    assert end is not None
    return np.array(
        [
            any((start[i] <= end[j] and start[j] <= end[i]) or end[j] < start[i] <= end[j] + EMBARGO_NS for j in test)
            for i in train
        ],
        bool,
    )


@given(data=labelled(), num_folds=st.integers(2, 4), seed=st.integers(0, 99), kind=st.sampled_from(KINDS))
def test_exactly_the_training_windows_that_meet_a_test_span_or_its_embargo_are_purged(
    data: tuple[LabelledSet, np.ndarray], num_folds: int, seed: int, kind: Any
) -> None:
    labels, _ = data
    for fold in folds_or_refusal(data, CvConfig(folds=num_folds, repeats=2, kind=kind), seed):
        rest = np.setdiff1d(np.arange(len(labels)), fold.test)
        meets = sides_that_meet(labels, rest, fold.test)
        np.testing.assert_array_equal(fold.train, rest[~meets])
        assert fold.num_purged == meets.sum()


@given(
    data=st.one_of(labelled(), labelled(with_times=False)),
    num_folds=st.integers(2, 4),
    repeats=st.integers(1, 3),
    seed=st.integers(0, 99),
    kind=st.sampled_from(KINDS),
)
def test_every_window_is_tested_once_a_repeat_and_no_group_is_on_both_sides(
    data: tuple[LabelledSet, np.ndarray], num_folds: int, repeats: int, seed: int, kind: Any
) -> None:
    labels, groups = data
    kind = kind if labels.start_ns is not None else "stratified"
    folds = folds_or_refusal(data, CvConfig(folds=num_folds, repeats=repeats, kind=kind), seed)
    assert [(fold.repeat, fold.index) for fold in folds] == list(product(range(repeats), range(num_folds)))
    for repeat in range(repeats):
        tested = np.concatenate([fold.test for fold in folds if fold.repeat == repeat])
        np.testing.assert_array_equal(np.sort(tested), np.arange(len(labels)))
    for fold in folds:
        assert len(fold.test)
        assert not set(groups[fold.train]) & set(groups[fold.test])
        assert set(labels.label[fold.train]) == set(labels.label)
        for part in (fold.train, fold.test):
            assert part.dtype == np.int64
            assert (np.diff(part) > 0).all()


@given(data=labelled(), num_folds=st.integers(2, 4), seed=st.integers(0, 99))
def test_time_blocks_are_contiguous_in_the_order_of_the_groups(
    data: tuple[LabelledSet, np.ndarray], num_folds: int, seed: int
) -> None:
    labels, groups = data
    assert labels.start_ns is not None
    first = {g: labels.start_ns[groups == g].min() for g in set(groups)}
    spans = []
    for fold in folds_or_refusal(data, CvConfig(folds=num_folds, kind="time"), seed):
        begins = [first[g] for g in groups[fold.test]]
        spans.append((min(begins), max(begins)))
    assert spans == sorted(spans)
    assert all(earlier[1] <= later[0] for earlier, later in pairwise(spans))


def test_each_time_block_tests_a_group_even_where_one_group_is_larger_than_a_block() -> None:
    groups = np.array([0] * 2 + [1] * 30 + [2] * 2 + [3] * 2)
    for seed in range(20):
        folds = make_folds(apart(36), groups, CvConfig(folds=4), seed)
        assert [set(groups[fold.test]) for fold in folds] == [{0}, {1}, {2}, {3}]


def test_the_embargo_holds_for_105_bars_after_a_test_span_and_not_before_it() -> None:
    for gap, lost in ((105, 1), (106, 0)):
        for fold in make_folds(apart(40, minutes=104 + gap), np.arange(40), CvConfig(folds=4), 0):
            last = fold.test.max()
            assert fold.num_purged == (lost if last < 39 else 0)
            assert (last + 1 in fold.train) == (lost == 0 and last < 39)
            assert fold.test.min() == 0 or fold.test.min() - 1 in fold.train


def test_the_same_minutes_of_another_instrument_are_purged_too() -> None:
    one = apart(40)
    assert one.start_ns is not None
    assert one.end_ns is not None
    both = labelled_set(np.repeat(one.label, 2), np.repeat(one.start_ns, 2), np.repeat(one.end_ns, 2), 2)
    folds = make_folds(both, np.arange(80), CvConfig(folds=4, repeats=3, kind="stratified"), 0)
    assert sum(fold.num_purged for fold in folds) > 50
    for fold in folds:
        assert not set(fold.train // 2) & set(fold.test // 2)


def test_time_blocks_cost_fewer_windows_than_stratified_folds() -> None:
    data = apart(100, minutes=105), np.arange(100)
    lost = {kind: sum(fold.num_purged for fold in make_folds(*data, CvConfig(kind=kind), 0)) for kind in KINDS}
    assert lost["time"] <= 5
    assert lost["stratified"] > 50


def test_folds_are_blocks_of_time_unless_the_labels_have_no_times() -> None:
    for times, kind in ((True, "time"), (False, "stratified")):
        data = apart(40, times=times), np.arange(40)
        auto, chosen = (make_folds(*data, CvConfig(kind=k), 3) for k in ("auto", kind))
        assert all(np.array_equal(a.test, b.test) for a, b in zip(auto, chosen, strict=True))


def class_shares(label: np.ndarray, tests: list[np.ndarray]) -> np.ndarray:
    """Each fold's share of each class. Shapes: [K, C]."""
    return np.array([[(label[t] == c).sum() / (label == c).sum() for c in np.unique(label)] for t in tests])


@given(seed=st.integers(0, 200), num_folds=st.integers(2, 6), num_classes=st.integers(2, 4))
def test_without_groups_the_classes_of_stratified_folds_differ_by_one_window_at_most(
    seed: int, num_folds: int, num_classes: int
) -> None:
    rng = np.random.default_rng(seed)
    label = np.concatenate([rng.integers(0, num_classes, 60), np.repeat(np.arange(num_classes), 12)])
    folds = make_folds(labelled_set(label), np.arange(len(label)), CvConfig(folds=num_folds), seed)
    counts = np.array([np.bincount(label[fold.test], minlength=num_classes) for fold in folds])
    assert (np.ptp(counts, axis=0) <= 1).all()


def test_stratified_folds_are_on_average_at_least_as_even_as_those_of_scikit_learn() -> None:
    ours, theirs = [], []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        groups = rng.choice(30, 174, p=rng.dirichlet(np.ones(30)))
        label = (rng.random(174) < np.where(groups % 3 == 0, 0.8, 0.3)).astype(int)
        folds = make_folds(labelled_set(label), groups, CvConfig(), seed)
        ours.append(class_shares(label, [fold.test for fold in folds]).std(0).mean())
        splitter = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        theirs.append(class_shares(label, [test for _, test in splitter.split(label, label, groups)]).std(0).mean())
    assert np.mean(ours) <= np.mean(theirs)


def test_time_blocks_hold_both_classes_as_far_as_the_order_allows() -> None:
    times = apart(174)
    label = (np.random.default_rng(0).random(174) < 0.4).astype(int)
    labels = labelled_set(label, times.start_ns, times.end_ns)
    for seed in range(5):
        folds = make_folds(labels, np.arange(174), CvConfig(repeats=2), seed)
        shares = class_shares(label, [fold.test for fold in folds])
        assert shares.min() > 0.08
        assert shares.max() < 0.35


@pytest.mark.parametrize("kind", KINDS)
def test_repeats_and_seeds_give_different_folds_and_the_same_seed_the_same(kind: Any) -> None:
    def tests(seed: int) -> list[tuple[int, ...]]:
        folds = make_folds(apart(100), np.arange(100), CvConfig(repeats=3, kind=kind), seed)
        return [tuple(fold.test) for fold in folds]

    assert tests(17) == tests(17)
    assert len({tuple(tests(17)[i : i + 5]) for i in (0, 5, 10)}) == 3
    assert tests(17) != tests(23)


@pytest.mark.parametrize(
    ("labels", "groups", "cv", "message"),
    [
        (
            apart(40), np.arange(40), {"folds": 11},
            r"class 'a' has 20 windows, and 11 folds need 2 x 11 = 22 of each class \(20 of class 'a', 20 of class "
            r"'b'\); lower cv\.folds to 10",
        ),
        (
            apart(40), np.arange(40) // 10, {},
            r"40 labelled windows form 4 groups .* 5 folds need 5 .* cv\.folds to 4",
        ),
        (apart(40), np.zeros(40, int), {}, r"form 1 groups .* label windows further apart"),
        (
            apart(40, times=False), np.arange(40), {"kind": "time"},
            r"time-blocked folds need start_time and end_time, and the 40 .* none",
        ),
        (labelled_set(np.zeros(40, int)), np.arange(40), {}, r"class 'b' has 0 windows.*; label more windows of it"),
        (labelled_set(np.zeros(0, int)), np.zeros(0, int), {}, r"class 'a' has 0 windows"),
    ],
)  # fmt: skip
def test_a_set_that_cannot_be_folded_is_refused_with_its_arithmetic(
    labels: LabelledSet, groups: np.ndarray, cv: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        make_folds(labels, groups, CvConfig(**cv), 0)


@pytest.mark.parametrize(("key", "value"), [("cv.folds", "1"), ("cv.repeats", "0")])
def test_fewer_than_two_folds_or_one_repeat_are_refused(key: str, value: str) -> None:
    with pytest.raises(UserError, match=rf"{key}='{value}'"):
        make_config(FinetuneKeys, {}, {key: value})


def test_a_training_part_that_lost_a_class_to_the_purge_is_refused_with_its_arithmetic() -> None:
    times = apart(40, minutes=105)
    label = (np.arange(40) < 4).astype(int)  # one block holds them all
    with pytest.raises(UserError) as caught:
        make_folds(labelled_set(label, times.start_ns, times.end_ns), np.arange(40), CvConfig(folds=2), 0)
    assert "fold 1 of 2 (repeat 1): 40 windows - " in str(caught.value)
    assert "none of class 'b' (4 in the set - 4 tested - 0 purged)" in str(caught.value)


@given(data=labelled(), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_the_inner_split_stays_inside_the_training_part_and_is_purged_alike(
    data: tuple[LabelledSet, np.ndarray], seed: int
) -> None:
    labels, groups = data
    cv = CvConfig(folds=2)
    for fold in folds_or_refusal(data, cv, seed):
        try:
            fit, held = inner_split(labels, groups, fold.train, cv, seed)
        except UserError:
            continue
        assert not set(fit) & set(held)
        assert set(fit) | set(held) <= set(fold.train)
        assert not set(groups[fit]) & set(groups[held])
        assert not sides_that_meet(labels, fit, held).any()
        left_out = np.setdiff1d(fold.train, np.concatenate([fit, held]))
        assert sides_that_meet(labels, left_out, held).all()
        for part in (fit, held):
            assert set(labels.label[part]) == set(labels.label[fold.train])


@pytest.mark.parametrize("times", TIMED)
def test_the_inner_split_holds_out_about_a_fifth_and_follows_its_seed(times: bool) -> None:
    labels, groups, train = apart(174, times=times), np.arange(174), np.arange(20, 160)
    splits = [inner_split(labels, groups, train, CvConfig(), seed) for seed in range(6)]
    for fit, held in splits:
        assert len(held) == pytest.approx(28, abs=14 if times else 0)
        assert len(fit) + len(held) == 140
    assert len({tuple(held) for _, held in splits}) == 6
    again = inner_split(labels, groups, train[::-1], CvConfig(), 0)
    np.testing.assert_array_equal(again[1], splits[0][1])


def test_an_inner_split_without_times_is_stratified_and_keeps_groups_whole() -> None:
    labels, groups = apart(60, times=False), np.arange(60) // 4
    fit, held = inner_split(labels, groups, np.arange(60), CvConfig(), 17)
    assert len(fit) + len(held) == 60
    assert not set(groups[fit]) & set(groups[held])
    assert abs(int(labels.label[held].sum()) * 2 - len(held)) == 0


def test_an_inner_split_that_cannot_hold_every_class_on_both_sides_is_refused() -> None:
    labels = labelled_set(np.array([0] * 20 + [1]))
    with pytest.raises(UserError, match=r"21 windows in 21 overlap groups .* \(20 of class 'a', 1 of class 'b'\)"):
        inner_split(labels, np.arange(21), np.arange(21), CvConfig(), 0)


@pytest.mark.parametrize("times", TIMED)
def test_the_inner_split_holds_out_one_of_the_nearest_whole_number_of_parts(times: bool) -> None:
    labels = apart(240, times=times)
    for share, parts in ((0.5, 2), (0.4, 2), (0.3, 3), (0.2, 5), (0.1, 10)):
        fit, held = inner_split(labels, np.arange(240), np.arange(240), CvConfig(inner_share=share), 0)
        assert len(fit) + len(held) == 240
        assert len(held) == pytest.approx(240 / parts, rel=0.5 if times else 0)


@pytest.mark.parametrize("share", [0.51, 0.9, 1.0, 0.0, -0.2, float("nan")])
def test_a_share_that_no_number_of_parts_gives_is_refused_with_what_is_allowed(share: float) -> None:
    with pytest.raises(
        UserError, match=r"cv.inner_share='.*allowed: float > 0 <= 0.5.*one of round\(1 / inner_share\)"
    ):
        make_config(FinetuneKeys, {}, {"cv.inner_share": str(share)})


def test_a_share_too_small_for_its_inverse_holds_out_one_group() -> None:
    labels, groups = apart(40, times=False), np.arange(40) // 4
    _, held = inner_split(labels, groups, np.arange(40), CvConfig(inner_share=1e-320), 0)
    assert len(held) == 4
