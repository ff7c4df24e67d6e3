"""Rules: imitate many random labellers at once. The input stays visible.

Random rules find one span in each window and name a class of what follows it (``moola_mlflow.labels.rules``). Each rule
has two linear layers. One points at the span's start and end, from each step's encoding. The other names the class,
from the encoding averaged over the span, the 20 bars before it and the 20 bars after it.

This is weak supervision. It uses no label of a person or of the task, but the rules do know kinds of events.

Shape legend: B windows, T steps, D encoding size, K rules, k rules of a step, 3 targets: start, end, class.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from moola_mlflow.core import Metrics, ObjectiveConfig, TrainingError
from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.heads import CONTEXT
from moola_mlflow.models.objectives.base import Errors, Objective
from moola_mlflow.models.objectives.few_shot import FewShot
from moola_mlflow.models.objectives.rule_targets import RuleTargets, as_tensor, make_targets
from moola_mlflow.models.task_heads import NUM_CLASSES, NUM_PARTS, TaskHeads
from moola_mlflow.windows import Batch

FRESH = 2**32
"""Seed of the fresh rules, which no training draws: the same for all runs, so that their few-shot losses compare."""


class Rules(Objective):
    """Cross-entropy of start, end and class, averaged over the windows and rules that have a span.

    Each training step draws some of the rules. Evaluation takes all.
    """

    drawn_type = torch.int64
    per_step = False

    def __init__(
        self, encoding_size: int, num_rules: int, rules_per_step: int, family: str, seed: int, jitter_sigma: float
    ) -> None:
        super().__init__()
        self.targets = ("start", "end", "class")
        self.groups = {"span": [0, 1]}
        self.num_rules, self.rules_per_step = num_rules, min(rules_per_step, num_rules)
        self.family, self.seed, self.jitter_sigma = family, seed, jitter_sigma
        bound, size = encoding_size**-0.5, NUM_PARTS * encoding_size
        self.pointers = nn.Parameter(torch.empty(num_rules, 2, encoding_size).uniform_(-bound, bound))
        self.classes = nn.Parameter(torch.randn(num_rules, NUM_CLASSES, size) * size**-0.5)
        self.class_bias = nn.Parameter(torch.zeros(num_rules, NUM_CLASSES))
        self.rule_targets: RuleTargets | None = None
        self.few_shot = FewShot(family, FRESH)
        self.frequencies: list[Tensor] = []
        """Log share of each start, end and class among a rule's targets. Shapes: [K, T], [K, T], [K, 3]."""

    def draw(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the rules of this batch, the same for each window. Shapes: int64 [B, k]."""
        chosen = torch.arange(self.num_rules)
        if self.training:
            chosen = torch.randperm(self.num_rules, generator=generator, device=generator.device)[: self.rules_per_step]
        return chosen.to(batch.x_BTF.device).expand(len(batch.index), -1)

    def drawn_size(self, num_steps: int) -> int:
        return self.rules_per_step if self.training else self.num_rules

    def encoder_input(self, encoder: Encoder, batch: Batch, drawn: Tensor, generator: torch.Generator) -> Tensor:
        return self.jittered(encoder.standardise(batch.x_BTF), self.jitter_sigma, generator)

    def _marks(self, batch: Batch, drawn: Tensor) -> Tensor:
        """Return start, end and class, -1 if a rule finds no span. Shapes: int64 [3, B, k]."""
        if self.rule_targets is None:  # without fit_targets the first windows choose the rules
            self.fit_targets([batch])
        assert self.rule_targets is not None
        return as_tensor(self.rule_targets(batch), drawn[0], batch.x_BTF.device)

    def errors(self, encoder: Encoder, h_BTD: Tensor, batch: Batch, drawn: Tensor) -> Errors:
        marks_3Bk = self._marks(batch, drawn)
        with torch.autocast(h_BTD.device.type, enabled=False):  # a running sum needs more digits than bf16 has
            return self._errors(self._logits(h_BTD.float(), marks_3Bk, drawn[0]), marks_3Bk)

    def _logits(self, h_BTD: Tensor, marks_3Bk: Tensor, rules_k: Tensor) -> list[Tensor]:
        """Return the logits of start and end at each step, and of the class at the true span.

        Steps and classes come last, so that a softmax over them reads memory in order.

        Shapes: [B, k, T], [B, k, T], [B, k, 3].
        """
        weight_2kD = self.pointers.index_select(0, rules_k).transpose(0, 1).flatten(0, 1)
        start_BkT, end_BkT = (weight_2kD @ h_BTD.transpose(1, 2)).chunk(2, 1)
        pooled_kBQ = pooled_at(h_BTD, marks_3Bk[0].clamp(min=0), marks_3Bk[1].clamp(min=0)).transpose(0, 1)
        class_kB3 = torch.baddbmm(
            self.class_bias.index_select(0, rules_k)[:, None],
            pooled_kBQ,
            self.classes.index_select(0, rules_k).transpose(1, 2),
        )
        return [start_BkT, end_BkT, class_kB3.transpose(0, 1)]

    def _errors(self, logits: list[Tensor], marks_3Bk: Tensor) -> Errors:
        found_Bk = marks_3Bk[0] >= 0
        losses, missed = [], []
        for i, (logits_BkC, target_Bk) in enumerate(zip(logits, marks_3Bk, strict=True)):
            target = torch.where(found_Bk, target_Bk, -1).flatten()
            losses.append(functional.cross_entropy(logits_BkC.flatten(0, 1), target, ignore_index=-1, reduction="sum"))
            with torch.no_grad():  # start and end: by how many bars they are wrong; class: the share that is
                off_Bk = (logits_BkC.argmax(-1) - target_Bk).abs()
                missed.append((off_Bk.clamp(max=1 if i == 2 else logits_BkC.shape[-1]) * found_Bk).sum())
        return Errors(torch.stack(losses), torch.stack(missed).to(losses[0].dtype), found_Bk.sum().float().expand(3))

    def huber(self, errors: Errors) -> Tensor:
        """Return the sum of the mean CE of start, end and class. Rules have no Huber: this takes its place."""
        return (errors.huber_K / errors.count_K.clamp(min=1)).sum()

    def fit_targets(self, batches: Iterable[Batch]) -> None:
        self.rule_targets = make_targets(batches, self.num_rules, self.family, self.seed)

    def fit_baselines(self, encoder: Encoder, batches: Iterable[Batch], generator: torch.Generator) -> None:
        """Count how often each rule's start and end lie at each step, and its class is each class."""
        counts: list[Tensor] = []
        for batch in batches:
            drawn = torch.arange(self.num_rules).expand(len(batch.index), -1)
            marks_3Bk = self._marks(batch, drawn).cpu()
            sizes = (batch.x_BTF.shape[1],) * 2 + (NUM_CLASSES,)
            # Counts begin at 1, so that no share is 0.
            counts = counts or [torch.ones(self.num_rules, size) for size in sizes]
            for count_Kn, target_Bk in zip(counts, marks_3Bk, strict=True):
                found = (target_Bk >= 0).float().T
                count_Kn.scatter_add_(1, target_Bk.clamp(min=0).T.contiguous(), found.contiguous())
        if not counts:
            raise TrainingError("the rules objective has no training window to count targets in")
        self.frequencies = [(count / count.sum(1, keepdim=True)).log() for count in counts]

    def baseline_errors(self, encoder: Encoder, batch: Batch, drawn: Tensor) -> dict[str, Errors]:
        marks_3Bk, rules_k = self._marks(batch, drawn), drawn[0].cpu()
        num = len(batch.index)
        logits = [share[rules_k].to(marks_3Bk.device).expand(num, -1, -1) for share in self.frequencies]
        return {"frequencies": self._errors(logits, marks_3Bk)}

    def shown(self, encoder: Encoder, h_BTD: Tensor, batch: Batch, drawn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the first rule's probabilities and the truth: its start, its end and, within its span, its class."""
        first = drawn[:, :1]
        marks_3B1 = self._marks(batch, first)
        logits = self._logits(h_BTD.float(), marks_3B1, first[0])
        num_steps, found_B1 = h_BTD.shape[1], marks_3B1[0] >= 0
        start_B1, end_B1, class_B1 = marks_3B1.clamp(min=0)
        step_T = torch.arange(num_steps, device=h_BTD.device)
        right_B = logits[2][:, 0].softmax(-1).gather(1, class_B1)
        within_BT = (step_T >= start_B1) & (step_T <= end_B1)
        predicted = [*(x[:, 0].softmax(-1) for x in logits[:2]), right_B * within_BT]
        truth = [step_T == start_B1, step_T == end_B1, within_BT]
        there = found_B1[..., None].expand(-1, num_steps, 3)
        return torch.stack(predicted, -1), torch.stack(truth, -1).float(), there

    def task_heads(self) -> TaskHeads | None:
        """Return the heads of the rules. They are saved with the encoder."""
        if self.rule_targets is None:
            return None
        names = tuple(rule.name for rule in self.rule_targets.rules)
        return TaskHeads(names, self.pointers.detach(), self.classes.detach())

    def notes(self) -> list[str]:
        """Return whether targets of an earlier run were read."""
        return [self.rule_targets.note] if self.rule_targets is not None and self.rule_targets.note else []

    def epoch_scores(self, encoder: Encoder, heads: TaskHeads | None, batches: Iterable[Batch]) -> dict[str, float]:
        """Return the few-shot loss on validation windows, for rules that training did not use."""
        loss = math.nan if heads is None else self.few_shot.loss(encoder, heads, batches)
        return {} if math.isnan(loss) else {Metrics.FEW_SHOT: loss}


def pooled_at(h_BTD: Tensor, start_Bk: Tensor, end_Bk: Tensor) -> Tensor:
    """Return the encoding averaged over each span, the 20 bars before it and the 20 after; 0 without such bars.

    It takes differences of one running sum for all spans. ``heads.pooling`` computes the same for one span.

    Shapes: [B, k] each -> [B, k, 3 * D].
    """
    num, num_steps = h_BTD.shape[:2]
    sum_BTD = functional.pad(h_BTD.cumsum(1), (0, 0, 1, 0))
    edges_Bk4 = torch.stack([start_Bk - CONTEXT, start_Bk, end_Bk + 1, end_Bk + 1 + CONTEXT], -1).clamp(0, num_steps)
    flat = edges_Bk4 + (num_steps + 1) * torch.arange(num, device=h_BTD.device)[:, None, None]
    at_Bk4D = sum_BTD.flatten(0, 1).index_select(0, flat.flatten()).unflatten(0, flat.shape)
    before_BkD, span_BkD, after_BkD = (at_Bk4D.diff(dim=2) / edges_Bk4.diff(dim=-1).clamp(min=1)[..., None]).unbind(2)
    return torch.cat([span_BkD, before_BkD, after_BkD], -1)


def build(config: ObjectiveConfig, names: tuple[str, ...], encoding_size: int) -> Rules:
    """Return the objective of a configuration."""
    return Rules(
        encoding_size, config.num_rules, config.rules_per_step, config.family, config.rules_seed, config.jitter_sigma
    )
