"""The prior reader for events: a prior reader gives class and span, a presence model the probability of an event.

The prior reader is fitted on the windows that hold events. The presence model is a ridge-penalised logistic regression
on all windows. It reads the encoding around the most probable span, along the main directions of the rules' class
layers, and eight numbers of the pointers.

Shape legend: N windows, B windows of a chunk, C classes, S allowed lengths, T steps, D encoding size, R directions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from moola_mlflow.models.events.belief import class_logits, span_logits
from moola_mlflow.models.events.event_targets import EventTargets
from moola_mlflow.models.events.nets import NetShape
from moola_mlflow.models.heads import Detector, LinearSpanHead, Output, best_span, pooling
from moola_mlflow.models.lbfgs import minimise
from moola_mlflow.models.prior_reader import Prior, SpanLabels, fit_prior_reader

POINTER_NUMBERS = 8
PENALTY = 8.0
"""Strength of the ridge penalty, |u|^2 / 2 times this, divided by the number of windows."""
ITERATIONS = 80
CHUNK = 256


class PresenceReader(nn.Module):
    """A linear span head and a presence model. Belief is presence times class at the span times pointer mass.

    The inputs are the encodings of one encoder.
    """

    directions: Tensor
    centre: Tensor
    scale: Tensor

    def __init__(self, shape: NetShape, num_directions: int) -> None:
        super().__init__()
        self.shape = shape
        self.reader = Detector("linear", shape.num_inputs, shape.num_classes, shape.lengths, shape.num_steps)
        self.presence = nn.Linear(num_directions + POINTER_NUMBERS, 1)
        nn.init.zeros_(self.presence.weight)
        nn.init.zeros_(self.presence.bias)
        self.register_buffer("directions", torch.zeros(num_directions, 3 * shape.num_inputs))
        self.register_buffer("centre", torch.zeros(num_directions + POINTER_NUMBERS))
        self.register_buffer("scale", torch.ones(num_directions + POINTER_NUMBERS))

    def read(self, x_BTP: Tensor) -> tuple[Tensor, None]:
        """Return the belief; a presence reader does not count events. Shapes: [B, T, P] -> [B, C, S, T]."""
        output, detector = self.reader(x_BTP), self.reader
        numbers = (self.evidence(x_BTP, output) - self.centre) / self.scale
        z_BTP = (x_BTP - detector.mean) / detector.std
        assert isinstance(detector.head, LinearSpanHead)
        class_BCST = class_logits(z_BTP, detector.head.classify, self.shape.lengths).softmax(1)
        present_B = self.presence(numbers).sigmoid()[:, 0]
        return present_B[:, None, None, None] * class_BCST * self._spans(output)[:, None], None

    def belief(self, x_BTP: Tensor) -> Tensor:
        """Return the belief alone."""
        return self.read(x_BTP)[0]

    def evidence(self, x_BTP: Tensor, output: Output) -> Tensor:
        """Return what the presence model reads. Shapes: [B, R + 8]."""
        start_BT, end_BT = output.pointers
        span = best_span(start_BT, end_BT, self.shape.lengths)
        pooled_BQ = (pooling(*span, x_BTP.shape[1]).to(x_BTP.dtype) @ x_BTP).flatten(1)
        logits_BST = span_logits(start_BT.log_softmax(1)[:, None], end_BT.log_softmax(1)[:, None], self.shape.lengths)
        numbers = [number for x in (start_BT, end_BT) for number in (x.amax(1), x.logsumexp(1), x.mean(1))]
        numbers += [logits_BST.flatten(1).amax(1), self._spans(output).flatten(1).amax(1)]
        return torch.cat([pooled_BQ @ self.directions.T, torch.stack(numbers, 1)], 1)

    def _spans(self, output: Output) -> Tensor:
        """Return the share of each span in the pointers' mass. Shapes: [B, S, T]."""
        start_BT, end_BT = output.pointers
        logits_BST = span_logits(start_BT[:, None], end_BT[:, None], self.shape.lengths)[:, 0]
        return logits_BST.flatten(1).softmax(1).view(logits_BST.shape)


@torch.no_grad()
def fit_presence_reader(
    prior: Prior, encodings_NTD: Tensor, targets: EventTargets, mirrored_NTD: Tensor | None = None
) -> PresenceReader:
    """Fit both models on the encodings of one encoder and, if given, on the same windows upside down.

    The fit has no seed and no epochs.

    Shapes: encodings [N, T, D]. Raises: TrainingError if an encoding is not finite.
    """
    window_E, *events = targets.events()
    turned_ETD = None if mirrored_NTD is None else mirrored_NTD[window_E]
    num_classes, lengths = targets.num_classes, targets.lengths
    shape = NetShape(encodings_NTD.shape[-1], num_classes, lengths, encodings_NTD.shape[1])
    fitted = PresenceReader(shape, len(prior.classes))
    fitted.reader = fit_prior_reader(
        [prior], encodings_NTD[window_E], SpanLabels(*events), num_classes, lengths, turned_ETD
    )
    fitted.directions.copy_(prior.classes)
    sides = [encodings_NTD] if mirrored_NTD is None else [encodings_NTD, mirrored_NTD]
    numbers = torch.cat([fitted.evidence(h, fitted.reader(h)) for side in sides for h in side.split(CHUNK)])
    fitted.centre.copy_(numbers.mean(0))
    fitted.scale.copy_(numbers.std(0, correction=0).clamp(min=1e-6))
    numbers = (numbers - fitted.centre) / fitted.scale
    present = targets.has_event.float().repeat(len(sides))
    weight, bias = torch.zeros(numbers.shape[1]), torch.zeros(1)

    def loss() -> Tensor:
        fit = functional.binary_cross_entropy_with_logits(numbers @ weight + bias, present)
        return fit + PENALTY * weight.square().sum() / (2 * len(targets))

    minimise([weight, bias], loss, ITERATIONS)
    fitted.presence.weight.copy_(weight[None])
    fitted.presence.bias.copy_(bias)
    return fitted.eval()
