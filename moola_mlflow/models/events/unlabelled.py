"""Learn from windows that nobody looked at: self-training, and positive-unlabelled learning if rejects are missing.

Both give the joint net soft targets on unlabelled windows: the probabilities of a net that was fitted before. If the
labels hold no window without an event, that net treats unlabelled windows as empty ones. Then its odds of none are
shifted until the mean probability of an event is the base rate.

Shape legend: U unlabelled windows, B windows of a batch, T steps, P inputs a step, K classes times spans, and none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from moola_mlflow.core import mixed_seed
from moola_mlflow.models.events.event_targets import EventTargets
from moola_mlflow.models.events.fitting import (
    EventInputs,
    EventSettings,
    fit_event_net,
    flipped,
    optimizer_of,
    take_step,
)
from moola_mlflow.models.events.nets import JointNet

STEPS = 300
FEWEST_EMPTY = 400
"""Unlabelled windows that the first net treats as empty: this many, or twice the number of labelled ones if more."""
SOFT_SHARE, SOFT_SHARE_OF_POSITIVES = 1.0, 1.5
"""Unlabelled windows of a batch for each labelled one: if the labels hold rejects, and if they do not."""
WEIGHTS, DRAWS = 52, 53
CHUNK = 256
LEAST_LOG = -50.0


@dataclass(frozen=True)
class Unlabelled:
    """Windows that nobody looked at. Shapes: ohlc float64 [U, T, 4]."""

    ohlc: np.ndarray
    base_rate: float | None = None
    """Share of windows that hold an event. Give it if the labels hold no window without an event, else None."""

    def __post_init__(self) -> None:
        if self.base_rate is not None and not 0 < self.base_rate < 1:
            raise ValueError(f"base_rate={self.base_rate}; allowed: above 0 and below 1")


def fit_with_unlabelled(
    labelled: tuple[EventInputs, EventTargets],
    index: np.ndarray,
    unlabelled: EventInputs,
    base_rate: float | None,
    settings: EventSettings,
    seed: int,
) -> JointNet:
    """Fit a joint net on the labelled windows of ``index`` and on unlabelled ones.

    Raises: TrainingError if a loss is not finite.
    Source: C. Elkan, K. Noto, Learning Classifiers from Only Positive and Unlabeled Data, 2008 (the first net treats
    unlabelled windows as empty ones); the shift of the odds is that of M. Saerens et al., Adjusting the Outputs of a
    Classifier to New a Priori Probabilities, 2002.
    """
    inputs, targets = labelled
    if base_rate is None:
        teacher = _joint(inputs, targets, index, settings, seed)
        soft = soft_targets(teacher, unlabelled.values)
    else:
        teacher = _first_of_positives(labelled, index, unlabelled, settings, seed)
        soft = at_base_rate(soft_targets(teacher, unlabelled.values), base_rate)
    return _refitted(teacher, (inputs, targets, index), (unlabelled, soft), base_rate is not None, settings, seed)


def _first_of_positives(
    labelled: tuple[EventInputs, EventTargets],
    index: np.ndarray,
    unlabelled: EventInputs,
    settings: EventSettings,
    seed: int,
) -> JointNet:
    """Fit a joint net that treats some unlabelled windows as empty ones."""
    inputs, targets = labelled
    num = min(len(unlabelled.values), max(FEWEST_EMPTY, 2 * len(index)))
    rows = torch.as_tensor(index)
    values = torch.cat([inputs.values[rows], unlabelled.values[:num]])
    turned = None
    if inputs.mirrored is not None and unlabelled.mirrored is not None:
        turned = torch.cat([inputs.mirrored[rows], unlabelled.mirrored[:num]])
    own = targets.at(rows)

    def filled(column: Tensor) -> Tensor:
        return torch.cat([column, column.new_zeros((num, column.shape[1]))])

    columns = (filled(own.label), filled(own.start), filled(own.end), filled(own.weight))
    both, joined = EventInputs(values, turned), EventTargets(*columns, own.num_classes, own.lengths)
    longer = replace(settings, epochs=1, min_steps=STEPS)
    return _joint(both, joined, np.arange(len(joined)), longer, seed)


def _joint(
    inputs: EventInputs, targets: EventTargets, index: np.ndarray, settings: EventSettings, seed: int
) -> JointNet:
    net = fit_event_net("joint", inputs, targets, index, settings, seed)
    assert isinstance(net, JointNet)
    return net


@torch.no_grad()
def soft_targets(net: JointNet, values_UTP: Tensor) -> Tensor:
    """Return the probability of every class and span, and last of none. Shapes: [U, T, P] -> [U, K]."""
    return torch.cat([net.logits(x_BTP)[0].softmax(1) for x_BTP in values_UTP.split(CHUNK)])


def at_base_rate(target_UK: Tensor, base_rate: float) -> Tensor:
    """Return probabilities whose mean probability of an event is the base rate: one factor changes the odds of none.

    Shapes: [U, K], none last.
    """
    none_U = target_UK[:, -1].double()
    low, high = -30.0, 30.0
    for _ in range(60):
        shift = (low + high) / 2
        events = (1 - none_U) * math.exp(shift)
        rate = float((events / (events + none_U)).mean())
        low, high = (shift, high) if rate < base_rate else (low, shift)
    shifted = target_UK.double()
    shifted[:, :-1] *= math.exp((low + high) / 2)
    return (shifted / shifted.sum(1, keepdim=True)).float()


def _refitted(
    teacher: JointNet,
    hard: tuple[EventInputs, EventTargets, np.ndarray],
    soft: tuple[EventInputs, Tensor],
    of_positives: bool,
    settings: EventSettings,
    seed: int,
) -> JointNet:
    """Fit a new net on labelled windows with their events and on unlabelled ones with soft targets."""
    (inputs, targets, index), (unlabelled, target_UK) = hard, soft
    index_N = torch.as_tensor(index)
    share = SOFT_SHARE_OF_POSITIVES if of_positives else SOFT_SHARE
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mixed_seed(seed, WEIGHTS))
        net = JointNet(teacher.shape, settings.hidden)
        net.fit_scaling(inputs.values[index_N])
        net.to(settings.device)
        inputs, unlabelled = inputs.to(settings.device), unlabelled.to(settings.device)
        targets, target_UK = targets.to(settings.device), target_UK.to(settings.device)
        draws = torch.Generator().manual_seed(mixed_seed(seed, DRAWS))
        optimizer, scheduler = optimizer_of(net, settings, STEPS)
        net.train()
        own, other = _Queue(index_N, draws), _Queue(torch.arange(len(target_UK)), draws)
        for _ in range(STEPS):
            batch_B, soft_B = own.take(settings.batch_size), other.take(int(share * settings.batch_size))
            loss = net.loss(flipped(inputs, batch_B, settings, draws), targets.at(batch_B))
            log_p = net.logits(flipped(unlabelled, soft_B, settings, draws))[0].log_softmax(1)
            loss = loss - (target_UK[soft_B] * log_p.clamp(min=LEAST_LOG)).sum(1).mean()
            take_step(net, loss, optimizer, settings)
            scheduler.step()
    return net.cpu().eval()


class _Queue:
    """Windows in random order. Each comes once before any comes again."""

    def __init__(self, index_N: Tensor, draws: torch.Generator) -> None:
        self.index_N, self.draws, self.left = index_N, draws, index_N[:0]

    def take(self, num: int) -> Tensor:
        while len(self.left) < num:
            order = torch.randperm(len(self.index_N), generator=self.draws)
            self.left = torch.cat([self.left, self.index_N[order]])
        taken, self.left = self.left[:num], self.left[num:]
        return taken
