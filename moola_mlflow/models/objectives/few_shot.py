"""The few-shot loss: how well the prior reader learns rules that training did not use, from 60 windows of each."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch

from moola_mlflow.core import TrainingError
from moola_mlflow.labels import apply_rules, draw_rules
from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.prior_reader import Prior, SpanLabels, fit_prior_reader, reader_loss
from moola_mlflow.models.task_heads import NUM_CLASSES, TaskHeads
from moola_mlflow.windows import Batch

NUM_RULES = 6
NUM_LABELS = 60
MOST_WINDOWS = 512
"""Validation windows that are read. More would make the loss more certain and the epochs longer."""
ITERATIONS = 30
"""Iterations of L-BFGS. More change the loss in its third digit only."""


class FewShot:
    """Measures the few-shot loss of encoders, each time on the same windows, rules and labels.

    The rules are drawn on these windows, with a seed that no training uses.
    """

    def __init__(self, family: str, seed: int) -> None:
        self.family, self.seed = family, seed
        self._ohlc = np.zeros((0, 0, 4))
        self._tasks: list[tuple[SpanLabels, np.ndarray, np.ndarray]] = []

    @torch.no_grad()
    def loss(self, encoder: Encoder, heads: TaskHeads, batches: Iterable[Batch]) -> float:
        """Return the mean loss (CE of start, end and class) over all rules.

        It is taken on windows that the reader was not fitted on. It is NaN if there are too few windows, or if too few
        rules find enough in them.
        """
        encodings, prices = [], []
        for batch in batches:
            encodings.append(encoder(batch.x_BTF).float().cpu())
            prices.append(batch.prices_BT4.cpu().double().numpy())
            if sum(map(len, prices)) >= MOST_WINDOWS:
                break
        h_NTD, ohlc = torch.cat(encodings)[:MOST_WINDOWS], np.concatenate(prices)[:MOST_WINDOWS]
        if not np.array_equal(ohlc, self._ohlc):
            self._ohlc, self._tasks = ohlc, self._label(ohlc)
        prior = Prior.of(TaskHeads(heads.names, heads.pointers.cpu(), heads.classes.cpu()))
        losses = []
        for labels, few, rest in self._tasks:
            reader = fit_prior_reader([prior], h_NTD[few], labels.at(few), NUM_CLASSES, iterations=ITERATIONS)
            losses.append(reader_loss(reader, h_NTD[rest], labels.at(rest)))
        return float(np.mean(losses)) if losses else math.nan

    def _label(self, ohlc: np.ndarray) -> list[tuple[SpanLabels, np.ndarray, np.ndarray]]:
        """Return, for each fresh rule, its labels, the windows to fit on and the others."""
        try:
            rules = draw_rules(ohlc, NUM_RULES, self.family, self.seed)
        except TrainingError:
            return []
        tasks = []
        for i, marked in enumerate(apply_rules(rules, ohlc)):
            found = np.random.default_rng([self.seed, i]).permutation(np.flatnonzero(marked.labelled))
            num = min(NUM_LABELS, len(found) // 2)
            if num >= NUM_CLASSES:
                labels = SpanLabels.of(marked.outcome, marked.start, marked.end)
                tasks.append((labels, found[:num], found[num:]))
        return tasks
