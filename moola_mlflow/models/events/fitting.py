"""Fit one net of an event detector: a fixed number of steps, no early stopping, the same seed gives the same weights.

Shape legend: N windows, B windows of a batch, T steps, P inputs a step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from moola_mlflow.core import TrainingError, mixed_seed
from moola_mlflow.models.events.event_targets import EventTargets
from moola_mlflow.models.events.nets import BASELINE_NETS, HIDDEN, NETS, EventNet, NetShape

WARMUP_STEPS = 5
FINAL_FRACTION = 0.05
# Purposes of seeds, so that no two streams share one.
WEIGHTS, DRAWS = 50, 51


@dataclass(frozen=True)
class EventSettings:
    """How the nets of an event detector are fitted."""

    nets: tuple[str, ...] = ("joint", "none_class")
    """Nets that are averaged."""
    folds: int = 5
    """Number of folds. For each fold, each net is fitted on the windows outside of it. All fits are averaged."""
    epochs: int = 20
    min_steps: int = 100
    """With few windows there are more epochs, until there are this many steps."""
    batch_size: int = 32
    lr: float = 3e-3
    weight_decay: float = 1e-2
    """Decay of matrices; biases have none."""
    clip_norm: float = 1.0
    """Largest gradient norm."""
    mirror: bool = True
    """Turn half of the windows upside down in training, if mirrored inputs are given."""
    hidden: int = HIDDEN
    device: str = "cpu"
    """Where nets are fitted. Fitted nets are on the CPU."""
    precision: float = 0.8
    """Wanted precision: share of right events among the out-of-fold events at or above the threshold."""

    def num_epochs(self, num_windows: int) -> int:
        """Return the epochs of a fit on some windows."""
        return max(self.epochs, math.ceil(self.min_steps / math.ceil(num_windows / self.batch_size)))


@dataclass(frozen=True)
class EventInputs:
    """The inputs of all windows, and those of the same windows upside down.

    Shapes: values and mirrored float32 [N, T, P]; mirrored is None if no window is turned upside down.
    """

    values: Tensor
    mirrored: Tensor | None = None

    def to(self, device: str) -> EventInputs:
        """Return the inputs on a device."""
        return EventInputs(self.values.to(device), None if self.mirrored is None else self.mirrored.to(device))

    def columns(self, first: int, last: int) -> EventInputs:
        """Return some of the inputs of each step."""
        turned = None if self.mirrored is None else self.mirrored[..., first:last]
        return EventInputs(self.values[..., first:last], turned)


def fit_event_net(
    name: str, inputs: EventInputs, targets: EventTargets, index: np.ndarray, settings: EventSettings, seed: int
) -> EventNet:
    """Fit a net on the windows of ``index``. torch's global generator is left as it was.

    Raises: TrainingError if the loss is not finite.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mixed_seed(seed, WEIGHTS))
        num_steps, num_inputs = inputs.values.shape[1:]
        shape = NetShape(num_inputs, targets.num_classes, targets.lengths, num_steps, targets.max_events)
        net = {**NETS, **BASELINE_NETS}[name](shape, settings.hidden)
        index_N = torch.as_tensor(index)
        net.fit_scaling(inputs.values[index_N])
        train_event_net(net, inputs, targets, index_N, settings, seed)
    return net


def train_event_net(
    net: EventNet, inputs: EventInputs, targets: EventTargets, index_N: Tensor, settings: EventSettings, seed: int
) -> None:
    """Train a net and leave it on the CPU, ready to read. What it drops out comes from torch's global generator.

    Raises: TrainingError if the loss is not finite.
    """
    net.to(settings.device)
    inputs, targets = inputs.to(settings.device), targets.to(settings.device)
    draws = torch.Generator().manual_seed(mixed_seed(seed, DRAWS))
    num_epochs = settings.num_epochs(len(index_N))
    optimizer, scheduler = optimizer_of(net, settings, num_epochs * math.ceil(len(index_N) / settings.batch_size))
    net.train()
    for _ in range(num_epochs):
        total = 0.0
        for batch_B in index_N[torch.randperm(len(index_N), generator=draws)].split(settings.batch_size):
            loss = net.loss(flipped(inputs, batch_B, settings, draws), targets.at(batch_B))
            take_step(net, loss, optimizer, settings)
            scheduler.step()
            total += float(loss.detach())
        if not math.isfinite(total):
            raise TrainingError(
                f"the loss of an event detector is {total}; lower finetune.head_lr (now {settings.lr:g}), and look for "
                "inputs that are not finite"
            )
    net.cpu().eval()


def optimizer_of(
    net: EventNet, settings: EventSettings, num_steps: int
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
    """Return AdamW and its schedule: a short warm-up, then half a cosine down to 5 %."""
    groups = []
    for parameters, lr in net.learning_rates(settings.lr):
        groups += [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay, "lr": lr},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0, "lr": lr},
        ]
    optimizer = torch.optim.AdamW(groups, lr=settings.lr)

    def factor(step: int) -> float:
        cosine = 0.5 * (1 + math.cos(math.pi * step / max(1, num_steps)))
        return min(1.0, (step + 1) / WARMUP_STEPS) * (FINAL_FRACTION + (1 - FINAL_FRACTION) * cosine)

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def take_step(net: EventNet, loss: Tensor, optimizer: torch.optim.AdamW, settings: EventSettings) -> None:
    """Take one step down the gradient, clipped."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), settings.clip_norm)
    optimizer.step()


def flipped(inputs: EventInputs, batch_B: Tensor, settings: EventSettings, draws: torch.Generator) -> Tensor:
    """Return the inputs of a batch, half of the windows upside down. Shapes: [B, T, P]."""
    x_BTP = inputs.values[batch_B]
    if settings.mirror and inputs.mirrored is not None:
        flip_B = torch.rand(len(batch_B), generator=draws) < 0.5
        x_BTP[flip_B.to(x_BTP.device)] = inputs.mirrored[batch_B[flip_B]]
    return x_BTP
