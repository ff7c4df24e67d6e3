"""Folds of a labelled set: overlapping windows never sit on both sides, and time leaves a gap after each test span."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from moola_mlflow.core import CvConfig, UserError
from moola_mlflow.labels import LabelledSet, bar_minutes, overlap_groups
from moola_mlflow.windows import MINUTE_NS

Kind = Literal["stratified", "time"]
# Boundary sets drawn for a time-blocked repeat; the one most even in classes is taken.
DRAWS = 32
# Orders in which the parts of a training part are tried before the inner split is refused.
INNER_DRAWS = 8


@dataclass(frozen=True)
class Fold:
    """One fold of one repeat under one seed: positions of its windows, ascending. Purged windows are on neither side.

    Shapes: train int64 [N_train], test int64 [N_test].
    """

    seed: int
    repeat: int
    index: int
    num_folds: int
    train: np.ndarray
    test: np.ndarray
    num_purged: int

    @property
    def fit_seed(self) -> int:
        """Seed of everything that is fitted on this fold: the same for all methods, another one for each fold."""
        return int(np.random.SeedSequence([self.seed, self.repeat, self.index]).generate_state(1)[0])


@dataclass(frozen=True)
class NestedFold(Fold):
    """A fold whose training part is split once more: what is fitted, and what epoch and temperature are chosen on.

    Shapes: fit, held int64, parts of ``train``.
    """

    fit: np.ndarray
    held: np.ndarray


def plan_folds(labels: LabelledSet, cv: CvConfig, seeds: Sequence[int]) -> list[NestedFold]:
    """Return the folds of all seeds, ``cv.repeats`` x ``cv.folds`` each, with their inner splits.

    Raises: UserError with the arithmetic if the labels are too few for the folds or for an inner split.
    """
    groups = overlap_groups(labels)
    folds = []
    for seed in seeds:
        for fold in make_folds(labels, groups, cv, seed):
            fit, held = split_training_part(labels, groups, fold, cv)
            folds.append(NestedFold(**vars(fold), fit=fit, held=held))
    return folds


def make_folds(labels: LabelledSet, groups: np.ndarray, cv: CvConfig, seed: int) -> list[Fold]:
    """Return ``cv.repeats`` x ``cv.folds`` folds; every window is tested exactly once a repeat.

    Windows of one group stay together. With times, a training window is purged if its span overlaps a test span or if
    it starts within the embargo after one. The instrument does not matter: the same minutes of two contracts are the
    same market twice. ``stratified`` folds have each class in proportion; every test window then costs its neighbours.
    ``time`` folds are contiguous blocks of the time-ordered groups. Their boundaries move with seed and repeat. Only
    windows at the edges of blocks are purged, and classes are as even as the order allows. ``auto`` means ``time`` if
    the labels have times.

    Shapes: groups int [N].
    Raises: UserError with the arithmetic if a class or the groups are too few, or a training part lacks a class.
    Source: SPEC.md section 7; purge and embargo of M. López de Prado, Advances in Financial Machine Learning, 7.4.
    """
    kind = _default_kind(labels) if cv.kind == "auto" else cv.kind
    _check(labels, groups, cv, kind)
    folds = []
    for repeat in range(cv.repeats):
        rng = np.random.default_rng([seed, repeat])
        fold_N = _assign(kind, labels.label, groups, cv.folds, rng, labels.start_ns)
        for index in range(cv.folds):
            test = np.flatnonzero(fold_N == index)
            train = purge(np.flatnonzero(fold_N != index), test, labels, cv)
            fold = Fold(seed, repeat, index, cv.folds, train, test, len(labels) - len(test) - len(train))
            _check_training_part(fold, labels, cv)
            folds.append(fold)
    return folds


def split_training_part(
    labels: LabelledSet, groups: np.ndarray, fold: Fold, cv: CvConfig, part: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Split a fold's training part, or another part of it, into windows to fit and windows held out.

    Raises: UserError if the windows are too few.
    """
    part = fold.train if part is None else part
    # Not the sum of the numbers: that would give folds of neighbouring seeds the same split.
    seed = int(np.random.SeedSequence([fold.seed, fold.repeat, fold.index, len(part)]).generate_state(1)[0])
    return inner_split(labels, groups, part, cv, seed)


def inner_split(
    labels: LabelledSet, groups: np.ndarray, train: np.ndarray, cv: CvConfig, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Split a training part into a part to fit and a part held out for early stopping, temperature and choices.

    The held part is one of round(1 / cv.inner_share) parts of ``train`` (at most one a group). It is drawn by seed
    among those that leave every class of ``train`` on both sides. Groups stay whole and the fit part is purged as in
    ``make_folds``. If times are known the parts are blocks of time, for any ``cv.kind``: that costs fewer windows.

    Shapes: groups int [N]; train int [M] -> fit int64, held int64.
    Raises: UserError with the arithmetic if no such split is found.
    """
    train = np.sort(np.asarray(train, np.int64))
    label, starts = labels.label[train], None if labels.start_ns is None else labels.start_ns[train]
    num_groups, num_classes = len(np.unique(groups[train])), len(np.unique(label))
    num_parts = round(min(1 / cv.inner_share, num_groups))  # a share may be too small for its inverse to be a number
    rng = np.random.default_rng([seed, 1_000_003])  # no stream of make_folds
    for _ in range(INNER_DRAWS if num_groups > 1 else 0):
        part_M = _assign(_default_kind(labels), label, groups[train], num_parts, rng, starts)
        for index in rng.permutation(num_parts):
            held = train[part_M == index]
            fit = purge(train[part_M != index], held, labels, cv)
            if all(len(np.unique(labels.label[side])) == num_classes for side in (fit, held)):
                return fit, held
    raise UserError(
        f"a training part of {len(train)} windows in {num_groups} overlap groups cannot hold out one of {num_parts} "
        f"parts with every class on both sides ({_counts(label, labels.classes)}). Each class needs two groups far "
        "enough apart: label more windows, or lower cv.folds so that the training parts grow"
    )


def purge(train: np.ndarray, test: np.ndarray, labels: LabelledSet, cv: CvConfig) -> np.ndarray:
    """Return the training windows whose spans meet no test span, each test span stretched by the embargo.

    Without times all are returned.

    Shapes: train, test int [M], positions into the labelled set.
    """
    start_ns, end_ns = labels.start_ns, labels.end_ns
    if start_ns is None or end_ns is None:
        return train
    tested = test[np.argsort(start_ns[test])]
    # Among the test spans that begin before this window ends, does the one that lasts longest reach its start?
    before = np.searchsorted(start_ns[tested], end_ns[train], side="right")
    latest = np.maximum.accumulate(end_ns[tested])[np.maximum(before, 1) - 1]
    return train[(before == 0) | (latest < start_ns[train] - cv.embargo_bars * bar_minutes(labels) * MINUTE_NS)]


def _default_kind(labels: LabelledSet) -> Kind:
    return "stratified" if labels.start_ns is None else "time"


def _assign(
    kind: Kind,
    label: np.ndarray,
    groups: np.ndarray,
    num_folds: int,
    rng: np.random.Generator,
    start_ns: np.ndarray | None,
) -> np.ndarray:
    """Return the fold that tests each window. Shapes: int64 [N]."""
    _, class_N = np.unique(label, return_inverse=True)
    _, group_N = np.unique(groups, return_inverse=True)
    count_GC = np.zeros((group_N.max() + 1, class_N.max() + 1))
    np.add.at(count_GC, (group_N, class_N), 1)
    share_GC = count_GC / count_GC.sum(0)
    if kind == "stratified":
        return _deal(share_GC, num_folds, rng)[group_N]
    assert start_ns is not None
    first_G = np.full(len(count_GC), np.iinfo(np.int64).max)
    np.minimum.at(first_G, group_N, start_ns)
    return _blocks(count_GC, share_GC, first_G, num_folds, rng)[group_N]


def _deal(share_GC: np.ndarray, num_folds: int, rng: np.random.Generator) -> np.ndarray:
    """Deal groups out, the largest first, each to the fold that has least of its classes. Shapes: int64 [G].

    This is the greedy descent of the summed squares of the folds' class shares. An empty fold always wins, so none
    stays empty.
    """
    order = rng.permutation(len(share_GC))
    order = order[np.argsort(-np.round(np.linalg.norm(share_GC[order], axis=1), 12), kind="stable")]
    held_KC = np.zeros((num_folds, share_GC.shape[1]))
    fold_G = np.zeros(len(share_GC), np.int64)
    for group in order:
        # Rounded, or ties would be decided by the last bit instead of by the total.
        likeness_K, total_K = np.round(held_KC @ share_GC[group], 12), np.round(held_KC.sum(1), 12)
        fold_G[group] = np.lexsort((total_K, likeness_K))[0]
        held_KC[fold_G[group]] += share_GC[group]
    return fold_G


def _blocks(
    count_GC: np.ndarray, share_GC: np.ndarray, first_G: np.ndarray, num_folds: int, rng: np.random.Generator
) -> np.ndarray:
    """Cut the groups, in time order, into blocks whose inner boundaries are moved at random. Shapes: int64 [G]."""
    order, k = np.argsort(first_G, kind="stable"), np.arange(1, num_folds)
    size_G = count_GC.sum(1)[order]
    middle_G = np.cumsum(size_G) - size_G / 2
    share_before_GC = np.concatenate([np.zeros((1, share_GC.shape[1])), np.cumsum(share_GC[order], axis=0)])
    best, best_cuts = np.inf, k
    for _ in range(DRAWS):
        wanted = (k + rng.uniform(-0.25, 0.25, len(k))) / num_folds * size_G.sum()
        cuts = np.searchsorted(middle_G, wanted)
        # At least one group a block, also where one group is larger than a block.
        cuts = k + np.clip(np.maximum.accumulate(cuts - k), 0, len(order) - num_folds)
        share_KC = np.diff(share_before_GC[[0, *cuts, len(order)]], axis=0)
        unevenness = float(np.square(share_KC - 1 / num_folds).sum())
        if unevenness < best:
            best, best_cuts = unevenness, cuts
    fold_G = np.zeros(len(order), np.int64)
    fold_G[order] = np.searchsorted(best_cuts, np.arange(len(order)), side="right")
    return fold_G


def _check(labels: LabelledSet, groups: np.ndarray, cv: CvConfig, kind: Kind) -> None:
    if kind == "time" and labels.start_ns is None:
        raise UserError(
            f"time-blocked folds need start_time and end_time, and the {len(labels)} labelled windows carry none. "
            "Add the two columns, or use stratified folds (purged by equal rows alone, without an embargo)"
        )
    counts = labels.counts()
    scarce = min(counts, key=lambda name: counts[name])
    fewest = counts[scarce]
    if fewest < 2 * cv.folds:
        cure = f"lower cv.folds to {fewest // 2} or label more" if fewest >= 4 else "label more windows of it"
        raise UserError(
            f"class '{scarce}' has {fewest} windows, and {cv.folds} folds need 2 x {cv.folds} = {2 * cv.folds} of each "
            f"class ({_counts(labels.label, labels.classes)}); {cure}"
        )
    num_groups = len(np.unique(groups))
    if num_groups < cv.folds:
        cure = f"lower cv.folds to {num_groups} or label" if num_groups >= 2 else "label"
        raise UserError(
            f"{len(labels)} labelled windows form {num_groups} groups that overlap, and a group stays on one side, so "
            f"{cv.folds} folds need {cv.folds} groups or more; {cure} windows further apart"
        )


def _check_training_part(fold: Fold, labels: LabelledSet, cv: CvConfig) -> None:
    label = labels.label
    missing = np.setdiff1d(label, label[fold.train])
    if len(missing) == 0:
        return
    total, tested = int((label == missing[0]).sum()), int((label[fold.test] == missing[0]).sum())
    raise UserError(
        f"fold {fold.index + 1} of {cv.folds} (repeat {fold.repeat + 1}): {len(label)} windows - {len(fold.test)} "
        f"tested - {fold.num_purged} purged (span meets a test span, or starts within {cv.embargo_bars} minutes after "
        f"one) = {len(fold.train)} to train on, none of class '{labels.classes[missing[0]]}' ({total} in the set - "
        f"{tested} tested - {total - tested} purged). Use time-blocked folds, change cv.folds, or label windows "
        "further apart"
    )


def _counts(label: np.ndarray, classes: tuple[str, ...]) -> str:
    pairs = zip(*np.unique(label, return_counts=True), strict=True)
    return ", ".join(f"{count} of class '{classes[code]}'" for code, count in pairs)
