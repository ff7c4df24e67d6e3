"""Spans and classes of rules in the windows of batches: computed once for each window, then looked up.

Shape legend: B windows, T steps, K rules.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from moola_mlflow.labels import Rule, apply_rules, draw_rules, find_rule, rules_version
from moola_mlflow.models.objectives import rule_cache
from moola_mlflow.models.objectives.rule_cache import KeptTargets
from moola_mlflow.windows import Batch

CHUNK = 1024
"""Windows that all rules read at a time. With small batches they take twice as long."""
JUDGED = 1000
"""Fewest windows that rules are drawn on, if there are so many."""


class RuleTargets:
    """Start, end and class of each rule in each window, looked up by the window's number; -1 if it finds no span.

    A window upside down has the targets of the window itself. If a number comes with other prices than before, its
    targets are computed again.
    """

    def __init__(self, rules: Sequence[Rule], kept: KeptTargets | None = None) -> None:
        self.rules = tuple(rules)
        self.note = ""
        """A line for the console if the targets were read from disk."""
        self._marks = np.zeros((0, 3, len(rules)), np.int16) if kept is None else kept.marks.copy()
        self._prices = np.zeros((0, 3)) if kept is None else kept.prices.copy()
        """Three closes of each known window, without their sign; NaN for an unknown one."""
        self._lock = Lock()

    def __call__(self, batch: Batch) -> np.ndarray:
        """Return start, end and class of a batch's windows. Shapes: int16 [B, 3, K]."""
        seen, index = _three_closes(batch), batch.index
        with self._lock:  # the parts of a batch call this from several threads
            self._grow(int(index.max()) + 1)
            unknown = np.flatnonzero((self._prices[index] != seen).any(axis=1))
            if len(unknown):
                prices = batch.prices_BT4.cpu().double().numpy()[unknown]
                self._marks[index[unknown]] = self._computed(prices, index[unknown])
                self._prices[index[unknown]] = seen[unknown]
            return self._marks[index]

    def known(self) -> KeptTargets:
        """Return the targets of all known windows, up to the last one."""
        num = int(np.flatnonzero(~np.isnan(self._prices[:, 0]))[-1]) + 1
        return KeptTargets(tuple(rule.name for rule in self.rules), self._marks[:num], self._prices[:num])

    def _grow(self, num: int) -> None:
        if num > len(self._marks):
            more = max(num, 2 * len(self._marks)) - len(self._marks)
            self._marks = np.concatenate([self._marks, np.zeros((more, *self._marks.shape[1:]), np.int16)])
            self._prices = np.concatenate([self._prices, np.full((more, 3), np.nan)])

    def _computed(self, prices: np.ndarray, index: np.ndarray) -> np.ndarray:
        marked = apply_rules(self.rules, prices, index)
        columns = [np.where(one.found, np.stack([one.start, one.end, one.outcome]), -1) for one in marked]
        return np.stack(columns, axis=-1).transpose(1, 0, 2).astype(np.int16)


def _three_closes(batch: Batch) -> np.ndarray:
    close_BT = batch.prices_BT4[..., 3]
    return close_BT[:, [0, close_BT.shape[1] // 2, -1]].abs().cpu().double().numpy()


_LATEST: dict[str, RuleTargets] = {}
"""The latest targets, by a hash of windows and rules. The trials of a sweep share them."""


def make_targets(batches: Iterable[Batch], num: int, family: str, seed: int) -> RuleTargets:
    """Draw rules on windows and compute their targets in each of them, or read the targets that an earlier run kept.

    ``batches`` is iterated over twice, or once if the targets of the same windows are known.

    Raises: TrainingError if too few rules find enough in the windows.
    """
    digest = hashlib.sha256(f"{num} {family} {seed} {rules_version()} ".encode() + Path(__file__).read_bytes())
    kept, step, seen = [], 1, 0
    for batch in batches:
        prices = batch.prices_BT4.cpu().double().numpy()
        digest.update(np.ascontiguousarray(prices).tobytes() + batch.index.tobytes())
        kept += [window for i, window in enumerate(prices, seen) if i % step == 0]
        seen += len(prices)
        while len(kept) > 2 * JUDGED:  # stays bounded, and evenly spaced
            kept, step = kept[::2], 2 * step
    key = digest.hexdigest()
    if key not in _LATEST:
        targets = _read(key, num)
        if targets is None:
            targets = RuleTargets(draw_rules(np.stack(kept), num, family, seed))
            for batch in _merged(batches):
                targets(batch)
            if num * seen >= rule_cache.LEAST:
                rule_cache.write_targets(key, targets.known())
        _LATEST.clear()
        _LATEST[key] = targets
    return _LATEST[key]


def _read(key: str, num: int) -> RuleTargets | None:
    """Return the targets that an earlier run kept, or None."""
    kept = rule_cache.read_targets(key, num)
    if kept is None:
        return None
    targets = RuleTargets([find_rule(name) for name in kept.names], kept)
    targets.note = f"Targets of {num} rules: read from {rule_cache.path_of(key)}"
    return targets


def _merged(batches: Iterable[Batch]) -> Iterable[Batch]:
    """Yield batches of ``CHUNK`` windows or more. The last one may have fewer."""
    waiting: list[Batch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(len(one.index) for one in waiting) >= CHUNK:
            yield _joined(waiting)
            waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(batches: list[Batch]) -> Batch:
    index = np.concatenate([one.index for one in batches])
    x, prices = (torch.cat([getattr(one, name) for one in batches]) for name in ("x_BTF", "prices_BT4"))
    return Batch(x, prices, index, batches[0].warmup)


def as_tensor(marks: np.ndarray, rules: Tensor, device: torch.device) -> Tensor:
    """Return the targets of some rules. Shapes: int16 [B, 3, K], rules int64 [k] -> int64 [3, B, k]."""
    chosen = marks[:, :, rules.cpu().numpy()].transpose(1, 0, 2)
    return torch.from_numpy(chosen.astype(np.int64)).to(device)
