"""Folds of a labelled set: overlapping windows never sit on both sides, and time leaves a gap after each test span."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from moola_mlflow.core import UserError
from moola_mlflow.windows import MINUTE_NS

EMBARGO_NS = 105 * MINUTE_NS
Kind = Literal["stratified", "time"]
# Boundary sets drawn for a time-blocked repeat, of which the most even in classes is taken.
DRAWS = 32


@dataclass(frozen=True)
class Fold:
    """Positions of the windows of one fold, ascending; ``purged`` windows are on neither side.

    Shapes: train int64 [N_train], test int64 [N_test].
    """

    train: np.ndarray
    test: np.ndarray
    repeat: int
    index: int
    purged: int


def make_folds(
    label: np.ndarray,
    groups: np.ndarray,
    num_folds: int,
    repeats: int,
    seed: int,
    *,
    kind: Kind,
    start_ns: np.ndarray | None = None,
    end_ns: np.ndarray | None = None,
    instrument: np.ndarray | None = None,
    embargo_ns: int = EMBARGO_NS,
    classes: Sequence[str] = (),
) -> list[Fold]:
    """Return ``repeats`` x ``num_folds`` folds; every window is tested exactly once a repeat.

    Windows of one group stay together. With times, a training window is purged where its span overlaps a test span of
    the same instrument or where it starts within the embargo after one ends. ``stratified`` deals groups out so that
    each fold has each class in proportion; every test window then costs its neighbours. ``time`` cuts the time-ordered
    groups into contiguous blocks whose boundaries move with seed and repeat: only blocks' edges are purged, and classes
    are even as far as the order allows. ``classes`` names the label codes in messages.

    Shapes: label, groups, start_ns, end_ns, instrument int [N].
    Units: ns since 1970 UTC; end_ns is the start of a window's last bar.
    Raises: UserError with the arithmetic where a class or the groups are too few, or a training part lacks a class.
    Source: SPEC.md section 7; purge and embargo of M. López de Prado, Advances in Financial Machine Learning, 7.4.
    """
    start_ns, end_ns, instrument = _times(kind, len(label), start_ns, end_ns, instrument)
    _check(label, groups, num_folds, repeats, classes)
    folds = []
    for repeat in range(repeats):
        block = _assign(kind, label, groups, num_folds, np.random.default_rng([seed, repeat]), start_ns)
        for index in range(num_folds):
            test = np.flatnonzero(block == index)
            train = purge(np.flatnonzero(block != index), test, start_ns, end_ns, instrument, embargo_ns)
            fold = Fold(train, test, repeat, index, len(label) - len(test) - len(train))
            _check_training_part(fold, label, num_folds, embargo_ns, classes)
            folds.append(fold)
    return folds


def inner_split(
    label: np.ndarray,
    groups: np.ndarray,
    train: np.ndarray,
    seed: int,
    share: float = 0.2,
    *,
    kind: Kind | None = None,
    start_ns: np.ndarray | None = None,
    end_ns: np.ndarray | None = None,
    instrument: np.ndarray | None = None,
    embargo_ns: int = EMBARGO_NS,
) -> tuple[np.ndarray, np.ndarray]:
    """Split a training part into a part to fit and a part held out for early stopping, temperature and choices.

    The held part is one of round(1 / share) parts of ``train`` (at most one a group), drawn by seed among those that
    leave every class of ``train`` on both sides. Groups stay whole and the fit part is purged as in ``make_folds``.
    The other arrays span the whole labelled set. ``kind`` defaults to ``time`` where there are times, for that costs
    fewer windows.

    Shapes: label, groups, start_ns, end_ns, instrument int [N]; train int [M] -> fit int64, held int64.
    Units: ns since 1970 UTC.
    Raises: UserError with the arithmetic where no such split is found, or where ``share`` is not above 0 and up to 0.5.
    """
    if not 0 < share <= 0.5:
        raise UserError(
            f"cv.inner_share={share:g}; allowed: above 0 and up to 0.5, for one of round(1 / share) parts is held out; "
            "set cv.inner_share=0.2"
        )
    kind = kind or ("stratified" if start_ns is None else "time")
    start_ns, end_ns, instrument = _times(kind, len(label), start_ns, end_ns, instrument)
    train = np.sort(np.asarray(train, np.int64))
    num_groups, needed = len(np.unique(groups[train])), np.unique(label[train])
    num_blocks = round(min(1 / share, num_groups))  # a share may be too small for its inverse to be a number
    rng = np.random.default_rng([seed, 1_000_003])  # no stream of make_folds
    for _ in range(8 if num_groups > 1 else 0):
        starts = None if start_ns is None else start_ns[train]
        block = _assign(kind, label[train], groups[train], num_blocks, rng, starts)
        for index in rng.permutation(num_blocks):
            held = train[block == index]
            fit = purge(train[block != index], held, start_ns, end_ns, instrument, embargo_ns)
            if all(len(np.unique(label[part])) == len(needed) for part in (fit, held)):
                return fit, held
    raise UserError(
        f"a training part of {len(train)} windows in {num_groups} overlap groups cannot hold out one of {num_blocks} "
        f"parts with every class on both sides ({_counts(label[train])}): each class needs two groups far enough "
        "apart; label more windows, or lower cv.folds so that the training parts grow"
    )


def purge(
    train: np.ndarray,
    test: np.ndarray,
    start_ns: np.ndarray | None,
    end_ns: np.ndarray | None,
    instrument: np.ndarray | None,
    embargo_ns: int = EMBARGO_NS,
) -> np.ndarray:
    """Return the training windows whose spans meet no test span of their instrument, stretched by the embargo.

    Without times all are returned.

    Shapes: train, test int [M], positions into the other arrays, int [N].
    """
    if start_ns is None or end_ns is None:
        return train
    keep = np.ones(len(train), bool)
    key = np.zeros(len(start_ns), np.int64) if instrument is None else instrument
    for one in np.unique(key[test]):
        tested = test[key[test] == one]
        tested = tested[np.argsort(start_ns[tested])]
        mine = np.flatnonzero(key[train] == one)
        # Of the test spans that begin before this window ends, does the one that lasts longest reach its start?
        before = np.searchsorted(start_ns[tested], end_ns[train[mine]], side="right")
        latest = np.maximum.accumulate(end_ns[tested])[np.maximum(before, 1) - 1]
        keep[mine] = (before == 0) | (latest < start_ns[train[mine]] - embargo_ns)
    return train[keep]


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


def _times(
    kind: Kind, n: int, start_ns: np.ndarray | None, end_ns: np.ndarray | None, instrument: np.ndarray | None
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    if (start_ns is None) != (end_ns is None):
        raise ValueError("start_ns and end_ns come together")
    if start_ns is None:
        if kind == "time":
            raise UserError(
                f"time-blocked folds need start_time and end_time, and the {n} labelled windows carry none; "
                "add the two columns, or use stratified folds (purged by equal rows alone, without an embargo)"
            )
        return None, None, None
    return start_ns, end_ns, instrument


def _check(label: np.ndarray, groups: np.ndarray, num_folds: int, repeats: int, classes: Sequence[str]) -> None:
    if num_folds < 2:
        raise UserError(
            f"cv.folds={num_folds}; allowed: 2 or more, for what tests a window must not have trained on it; "
            "set cv.folds=5"
        )
    if repeats < 1:
        raise UserError(f"cv.repeats={repeats}; allowed: 1 or more; set cv.repeats=1")
    codes, counts = np.unique(label, return_counts=True)
    if len(codes) == 0 or counts.min() < 2 * num_folds:
        fewest = int(counts.min(initial=len(label)))
        rarest = _name(codes[counts.argmin()], classes) if len(codes) else "every class"
        cure = f"lower cv.folds to {fewest // 2} or label more" if fewest >= 4 else "label more windows of it"
        raise UserError(
            f"{rarest} has {fewest} windows, and {num_folds} folds need 2 x {num_folds} = {2 * num_folds} of each "
            f"class ({_counts(label, classes)}); {cure}"
        )
    num_groups = len(np.unique(groups))
    if num_groups < num_folds:
        cure = f"lower cv.folds to {num_groups} or label" if num_groups >= 2 else "label"
        raise UserError(
            f"{len(label)} labelled windows form {num_groups} groups that overlap, and a group stays on one side, so "
            f"{num_folds} folds need {num_folds} groups or more; {cure} windows further apart"
        )


def _check_training_part(
    fold: Fold, label: np.ndarray, num_folds: int, embargo_ns: int, classes: Sequence[str]
) -> None:
    missing = np.setdiff1d(label, label[fold.train])
    if len(missing) == 0:
        return
    total, tested = int((label == missing[0]).sum()), int((label[fold.test] == missing[0]).sum())
    raise UserError(
        f"fold {fold.index + 1} of {num_folds} (repeat {fold.repeat + 1}): {len(label)} windows - {len(fold.test)} "
        f"tested - {fold.purged} purged (span meets a test span, or starts within {embargo_ns / MINUTE_NS:g} minutes "
        f"after one) = {len(fold.train)} to train on, none of {_name(missing[0], classes)} ({total} in the set - "
        f"{tested} tested - {total - tested} purged); use time-blocked folds, change cv.folds, or label windows "
        "further apart"
    )


def _name(code: int, classes: Sequence[str]) -> str:
    return f"class '{classes[code]}'" if 0 <= code < len(classes) else f"class {code}"


def _counts(label: np.ndarray, classes: Sequence[str] = ()) -> str:
    pairs = zip(*np.unique(label, return_counts=True), strict=True)
    return ", ".join(f"{count} of {_name(code, classes)}" for code, count in pairs) or "no windows"
