"""The base class of pre-training objectives, and the check that hidden input does not leak into encodings.

An objective draws the random part of a batch (a mask), turns encodings into errors, and errors into a loss. Errors
are sums and counts for each target, so any grouping of batches gives the same mean. The loss, the skills and the
Huber that chooses the epoch follow from summed errors alone.

Shape legend: B windows, T steps, F features, D encoding size, K targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.task_heads import TaskHeads
from moola_mlflow.windows import Batch


@dataclass(frozen=True)
class Errors:
    """Summed errors over the loss positions of a batch.

    Shapes: huber_K (carries the gradient, loss units), absolute_K (reporting units), count_K.
    """

    huber_K: Tensor
    absolute_K: Tensor
    count_K: Tensor

    def huber(self) -> Tensor:
        """Return the mean Huber over all targets and positions; 0 without any position."""
        return self.huber_K.sum() / self.count_K.sum().clamp(min=1)

    def at(self, positions: slice | list[int]) -> Errors:
        """Return the errors of some targets."""
        return Errors(self.huber_K[positions], self.absolute_K[positions], self.count_K[positions])

    def detach(self) -> Errors:
        """Return the same errors without their graph."""
        return Errors(self.huber_K.detach(), self.absolute_K.detach(), self.count_K)

    def __add__(self, other: Errors) -> Errors:
        return Errors(self.huber_K + other.huber_K, self.absolute_K + other.absolute_K, self.count_K + other.count_K)


class Objective(nn.Module):
    """Base class of objectives."""

    targets: tuple[str, ...]
    """Names of the K targets."""
    groups: dict[str, list[int]]
    """Positions of the targets that are reported together, by the group's name."""
    identity: bool = False
    """Whether the encoder sees what it must reconstruct."""
    per_step: bool = True
    """Whether each loss belongs to one step; else it belongs to a whole window, warm-up steps included."""
    drawn_type: torch.dtype = torch.bool
    """Type of what is drawn: a mask, or numbers."""
    checks_leak: bool = False
    """Whether there are hidden steps, which must not reach the encoder."""

    def draw(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the random part of a batch, apart from jitter: mask_BT of a masked objective."""
        raise NotImplementedError

    def encoder_input(self, encoder: Encoder, batch: Batch, drawn: Tensor, generator: torch.Generator) -> Tensor:
        """Return the encoder's input, in z units. Shapes: [B, T, F]."""
        raise NotImplementedError

    def errors(self, encoder: Encoder, h_BTD: Tensor, batch: Batch, drawn: Tensor) -> Errors:
        """Return the errors of predictions from encodings."""
        raise NotImplementedError

    def total(self, huber: Tensor) -> Tensor:
        """Return the loss that is minimised, from the mean Huber."""
        return huber

    def huber(self, errors: Errors) -> Tensor:
        """Return the Huber that chooses the epoch."""
        return errors.huber()

    def loss(self, errors: Errors) -> Tensor:
        """Return the loss that is minimised."""
        return self.total(self.huber(errors))

    def skills(self, model: Errors, baselines: dict[str, Errors]) -> dict[str, float]:
        """Return 1 - H(model) / H(best baseline): overall (``""``), by group and by target.

        Each set of targets has its own best baseline, so that each skill faces its strongest competitor.
        """
        sets = {"": list(range(len(self.targets))), **self.groups}
        sets |= {name: [i] for i, name in enumerate(self.targets)}
        out = {}
        for name, positions in sets.items():
            if not positions:
                continue
            best = min(float(errors.at(positions).huber()) for errors in baselines.values())
            out[name] = 1.0 - float(model.at(positions).huber()) / best if best > 0 else 0.0
        return out

    def parts(self) -> tuple[Objective, ...]:
        """Return the parts of a sum; any other objective is its only part."""
        return (self,)

    def sigma(self) -> float | None:
        """Return the learned s of an uncertainty-weighted loss, or None without one."""
        return None

    def jittered(self, z_BTF: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
        """Return the input with Gaussian noise in training, and unchanged otherwise. Units: z."""
        if not (self.training and sigma):
            return z_BTF
        return z_BTF + sigma * torch.randn(z_BTF.shape, generator=generator, device=generator.device).to(z_BTF.device)

    def drawn_size(self, num_steps: int) -> int:
        """Return the size of the last axis of what is drawn for a batch: a mask's steps by default."""
        return num_steps

    def task_heads(self) -> TaskHeads | None:
        """Return heads that are saved with the encoder; None by default."""
        return None

    def notes(self) -> list[str]:
        """Return lines for the console that say how the targets were made; none by default."""
        return []

    def epoch_scores(self, encoder: Encoder, heads: TaskHeads | None, batches: Iterable[Batch]) -> dict[str, float]:
        """Return further scores of an encoder and its heads, by their metric names, on validation windows.

        None by default.
        """
        return {}

    def fit_targets(self, batches: Iterable[Batch]) -> None:
        """Fit the scale of the targets on training windows; by default there is none.

        Here and in ``fit_baselines``, ``batches`` can be iterated over several times.
        """

    def fit_baselines(self, encoder: Encoder, batches: Iterable[Batch], generator: torch.Generator) -> None:
        """Fit the baselines of the skill on training windows. They need neither labels nor a network."""
        raise NotImplementedError

    def baseline_errors(self, encoder: Encoder, batch: Batch, drawn: Tensor) -> dict[str, Errors]:
        """Return the errors of each baseline on the same positions."""
        raise NotImplementedError

    def shown(self, encoder: Encoder, h_BTD: Tensor, batch: Batch, drawn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return prediction, target (in reporting units) and loss positions, for pictures. Shapes: [B, T, K] each."""
        raise NotImplementedError

    def forward(self, encoder: Encoder, batch: Batch, generator: torch.Generator) -> Errors:
        drawn = self.draw(batch, generator)
        return self.errors(encoder, encoder.encode(self.encoder_input(encoder, batch, drawn, generator)), batch, drawn)


@torch.no_grad()
def leak(objective: Objective, encoder: Encoder, batch: Batch, make_generator: Callable[[], torch.Generator]) -> float:
    """Return how far encodings move when features and prices at hidden steps are replaced by noise; 0 = same bits.

    Encodings are compared in evaluation and in training mode, with equal jitter and dropout. The result is infinite
    if the mask depends on what it hides, or an encoding is not finite. For a sum it is the largest over its parts.

    ``make_generator`` gives equal generators, so that all passes draw the same numbers.
    """
    hiding = [part for part in objective.parts() if part.checks_leak]
    return max((_leak(part, encoder, batch, make_generator) for part in hiding), default=0.0)


def _leak(objective: Objective, encoder: Encoder, batch: Batch, make_generator: Callable[[], torch.Generator]) -> float:
    drawn = objective.draw(batch, make_generator())
    hidden_BT1 = drawn[..., None]
    noise_BTF = encoder.mean + 3 * encoder.std * torch.randn_like(batch.x_BTF)
    moved_BT4 = batch.prices_BT4 * (1 + 0.1 * torch.randn_like(batch.prices_BT4))
    prices_BT4 = torch.where(hidden_BT1, moved_BT4, batch.prices_BT4)
    changed = Batch(torch.where(hidden_BT1, noise_BTF, batch.x_BTF), prices_BT4, batch.index, batch.warmup)
    modes, moved = (encoder.training, objective.training), 0.0
    for training in (False, True):
        encoder.train(training), objective.train(training)
        encodings = []
        for seen in (batch, changed):
            generator = make_generator()
            if not torch.equal(objective.draw(seen, generator), drawn):
                moved = math.inf
            with torch.random.fork_rng():
                torch.manual_seed(0)  # dropout
                h_BTD = encoder.encode(objective.encoder_input(encoder, seen, drawn, generator))
                encodings.append(h_BTD.cpu().double())  # on the CPU: MPS has no float64
        difference = float((encodings[0] - encodings[1]).abs().max())
        moved = max(moved, difference if math.isfinite(difference) else math.inf)
    encoder.train(modes[0]), objective.train(modes[1])
    return moved
