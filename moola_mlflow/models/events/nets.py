"""Two nets that can say "no event here": one softmax over all spans and none, and a span head with a class none.

Shape legend: B windows, C classes, S allowed lengths, T steps, P inputs a step, H hidden size, E events of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from moola_mlflow.models.events.belief import class_logits, span_logits
from moola_mlflow.models.events.event_targets import EventTargets
from moola_mlflow.models.heads import SpanHead, best_span, pooling

HIDDEN = 32
NONE_SHARE = 0.25
"""Odds of none before training: a quarter of the number of spans. So an untrained net gives none a fifth."""
POINTER_WEIGHT = 0.5


@dataclass(frozen=True)
class NetShape:
    """The sizes of a net."""

    num_inputs: int
    num_classes: int
    lengths: tuple[int, int]
    """Shortest and longest span, in steps."""
    num_steps: int = 105
    max_events: int = 1
    """Most events that a window of the labels holds."""

    @property
    def spans(self) -> tuple[int, int]:
        """Number of lengths and of starts: the shape of a class's belief."""
        return self.lengths[1] - self.lengths[0] + 1, self.num_steps


class EventNet(nn.Module):
    """Base class: the scaling of the inputs, kept as buffers, and the belief that a net computes."""

    mean: Tensor
    std: Tensor

    def __init__(self, shape: NetShape, hidden: int) -> None:
        super().__init__()
        self.shape, self.hidden = shape, hidden
        self.register_buffer("mean", torch.zeros(shape.num_inputs))
        self.register_buffer("std", torch.ones(shape.num_inputs))

    @torch.no_grad()
    def fit_scaling(self, x_BTP: Tensor) -> None:
        """Store mean and standard deviation of the inputs over all steps. A constant input gets the deviation 1."""
        std_P, mean_P = torch.std_mean(x_BTP, dim=(0, 1), correction=0)
        self.mean.copy_(mean_P)
        self.std.copy_(torch.where(std_P > 1e-6, std_P, torch.ones_like(std_P)))

    def scaled(self, x_BTP: Tensor) -> Tensor:
        """Return z-scored inputs."""
        return torch.addcmul(-self.mean / self.std, x_BTP, 1 / self.std)  # in one pass

    def read(self, x_BTP: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the belief, and the expected number of events of a window that has one; None if a net does not count.

        The belief of a window sums to the probability of an event; the rest to 1 is the probability of no event.
        Several events share the belief. So belief times number of events is the probability that a span is an event.

        Shapes: [B, T, P] -> [B, C, S, T], [B].
        """
        raise NotImplementedError

    def belief(self, x_BTP: Tensor) -> Tensor:
        """Return the belief alone."""
        return self.read(x_BTP)[0]

    def loss(self, x_BTP: Tensor, targets: EventTargets) -> Tensor:
        """Return the mean loss of a batch. Shapes: []."""
        raise NotImplementedError

    def learning_rates(self, lr: float) -> list[tuple[list[nn.Parameter], float]]:
        """Return all parameters in groups, each with its learning rate; ``lr`` is that of a net."""
        return [(list(self.parameters()), lr)]


class JointNet(EventNet):
    """One softmax over every class and span, and none.

    A span's logit is the sum of a start logit, an end logit and a number for its length, each for the class.
    """

    def __init__(self, shape: NetShape, hidden: int = HIDDEN) -> None:
        super().__init__(shape, hidden)
        num_classes = shape.num_classes
        # Start and end of all classes are the pointers of a span head; its class layer is not needed.
        self.steps = SpanHead(shape.num_inputs, num_classes, shape.lengths, shape.num_steps, hidden)
        del self.steps.classify, self.steps.pointer
        self.pointer = nn.Linear(hidden, 2 * num_classes)
        self.length = nn.Parameter(torch.zeros(num_classes, shape.spans[0], 1))
        self.none = nn.Linear(2 * hidden, 1)
        nn.init.zeros_(self.none.weight)
        self.count = nn.Linear(2 * hidden, shape.max_events - 1) if shape.max_events > 1 else None
        nn.init.constant_(self.none.bias, math.log(NONE_SHARE * self.length.numel() * shape.num_steps))

    def logits(self, x_BTP: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the logits of all classes and spans, by class, length and start, with that of none as the last.

        The second result has the logits of 1, 2, ... events. It is None if no window of the labels holds two.

        Shapes: [B, T, P] -> [B, C * S * T + 1], [B, max_events].
        """
        g_BTH = self.steps.hidden_steps(self.scaled(x_BTP))
        start_BCT, end_BCT = self.pointer(g_BTH).transpose(1, 2).chunk(2, 1)
        logits_BCST = span_logits(start_BCT, end_BCT, self.shape.lengths) + self.length
        whole_B2H = torch.cat([g_BTH.mean(1), g_BTH.amax(1)], -1)
        count_BM = None if self.count is None else functional.pad(self.count(whole_B2H), (1, 0))
        return torch.cat([logits_BCST.flatten(1), self.none(whole_B2H)], 1), count_BM

    def read(self, x_BTP: Tensor) -> tuple[Tensor, Tensor | None]:
        logits, count_BM = self.logits(x_BTP)
        belief_BCST = logits.softmax(1)[:, :-1].view(len(x_BTP), self.shape.num_classes, *self.shape.spans)
        if count_BM is None:
            return belief_BCST, None
        return belief_BCST, count_BM.softmax(1) @ torch.arange(1.0, count_BM.shape[1] + 1, device=count_BM.device)

    def loss(self, x_BTP: Tensor, targets: EventTargets) -> Tensor:
        """Return the cross-entropy: the events of a window share the target in equal parts.

        If some windows hold several events, the cross-entropy of the number of events is added for windows with events.
        """
        logits, count_BM = self.logits(x_BTP)
        log_p = logits.log_softmax(1)
        shortest, longest = self.shape.lengths
        row_BM = (targets.end - targets.start + 1).clamp(shortest, longest) - shortest
        place_BM = (targets.label * (longest - shortest + 1) + row_BM) * self.shape.num_steps + targets.start
        share_B = targets.weight.sum(1)
        found_B = (targets.weight * log_p.gather(1, place_BM)).sum(1)
        loss_B = -(found_B + (1 - share_B) * log_p[:, -1])
        if count_BM is not None:
            num_B = (targets.weight > 0).sum(1).clamp(1, self.shape.max_events)
            loss_B = loss_B + share_B * functional.cross_entropy(count_BM, num_B - 1, reduction="none")
        return loss_B.mean()


class NoneClassNet(EventNet):
    """A span head with none among its classes. The class is read at each span separately."""

    def __init__(self, shape: NetShape, hidden: int = HIDDEN) -> None:
        super().__init__(shape, hidden)
        self.head = SpanHead(shape.num_inputs, shape.num_classes + 1, shape.lengths, shape.num_steps, hidden)

    def read(self, x_BTP: Tensor) -> tuple[Tensor, Tensor | None]:
        g_BTH = self.head.hidden_steps(self.scaled(x_BTP))
        start_BT, end_BT = self.head.pointer(g_BTH).unbind(-1)
        logits_BST = span_logits(start_BT[:, None], end_BT[:, None], self.shape.lengths)[:, 0]
        spans_BST = logits_BST.flatten(1).softmax(1).view(logits_BST.shape)
        class_BCST = class_logits(g_BTH, self.head.classify, self.shape.lengths).softmax(1)[:, :-1]
        return class_BCST * spans_BST[:, None], None

    def loss(self, x_BTP: Tensor, targets: EventTargets) -> Tensor:
        """Return the class loss plus half the pointer loss.

        The class is read at the true spans. Each has its share of the window. In a window without an event, it is read
        at the most probable span. Pointers learn only from windows with events.
        """
        g_BTH = self.head.hidden_steps(self.scaled(x_BTP))
        start_BT, end_BT = self.head.pointer(g_BTH).unbind(-1)
        window_E, label_E, first_E, last_E = targets.events()
        weight_E = targets.weight[targets.weight > 0]
        empty_R = torch.nonzero(~targets.has_event)[:, 0]
        found = best_span(start_BT[empty_R].detach(), end_BT[empty_R].detach(), self.shape.lengths)
        at = torch.cat([window_E, empty_R])
        first, last = torch.cat([first_E, found[0]]), torch.cat([last_E, found[1]])
        label = torch.cat([label_E, torch.full_like(empty_R, self.shape.num_classes)])
        weight = torch.cat([weight_E, weight_E.new_ones(len(empty_R))])
        pooled = (pooling(first, last, self.shape.num_steps) @ g_BTH[at]).flatten(1)
        class_loss = functional.cross_entropy(self.head.classify(pooled), label, reduction="none")
        pointer_loss = functional.cross_entropy(start_BT[window_E], first_E, reduction="none")
        pointer_loss = pointer_loss + functional.cross_entropy(end_BT[window_E], last_E, reduction="none")
        with_events = (len(x_BTP) - len(empty_R)) or 1
        return (weight * class_loss).sum() / len(x_BTP) + POINTER_WEIGHT * (weight_E * pointer_loss).sum() / with_events


class SpanNet(EventNet):
    """A span head that cannot say "nothing here": a baseline. It learns only from windows with events."""

    def __init__(self, shape: NetShape, hidden: int = HIDDEN) -> None:
        super().__init__(shape, hidden)
        self.head = SpanHead(shape.num_inputs, shape.num_classes, shape.lengths, shape.num_steps, hidden)

    def read(self, x_BTP: Tensor) -> tuple[Tensor, Tensor | None]:
        g_BTH = self.head.hidden_steps(self.scaled(x_BTP))
        start_BT, end_BT = self.head.pointer(g_BTH).unbind(-1)
        logits_BST = span_logits(start_BT[:, None], end_BT[:, None], self.shape.lengths)[:, 0]
        spans_BST = logits_BST.flatten(1).softmax(1).view(logits_BST.shape)
        class_BCST = class_logits(g_BTH, self.head.classify, self.shape.lengths).softmax(1)
        return class_BCST * spans_BST[:, None], None

    def loss(self, x_BTP: Tensor, targets: EventTargets) -> Tensor:
        """Return the class loss at the true spans plus half the pointer loss; 0 for a batch without an event."""
        g_BTH = self.head.hidden_steps(self.scaled(x_BTP))
        start_BT, end_BT = self.head.pointer(g_BTH).unbind(-1)
        window_E, label_E, first_E, last_E = targets.events()
        weight_E = targets.weight[targets.weight > 0]
        pooled = (pooling(first_E, last_E, self.shape.num_steps) @ g_BTH[window_E]).flatten(1)
        loss_E = functional.cross_entropy(self.head.classify(pooled), label_E, reduction="none")
        for pointer_BT, step_E in ((start_BT, first_E), (end_BT, last_E)):
            loss_E = loss_E + POINTER_WEIGHT * functional.cross_entropy(pointer_BT[window_E], step_E, reduction="none")
        return (weight_E * loss_E).sum() / weight_E.sum().clamp(min=1)


NETS: dict[str, Callable[[NetShape, int], EventNet]] = {"joint": JointNet, "none_class": NoneClassNet}
"""Constructors: (shape, hidden) -> net. A new net is a class and a row here."""
BASELINE_NETS: dict[str, Callable[[NetShape, int], EventNet]] = {"span": SpanNet}
"""Nets that are only compared with: no detector is saved with one."""
