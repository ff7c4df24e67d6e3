"""The detector: a small head that reads each step's encoding or price-path features and finds class and span.

Shape legend: B windows, T steps, P inputs a step, H hidden size, C classes, S allowed lengths;
x raw inputs, z z-scored inputs, g hidden steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from moola_mlflow.core import UserError, nearest_name
from moola_mlflow.features import PRICE_PATH_FEATURE_NAMES
from moola_mlflow.models.encoders.base import Encoder

Span = tuple[Tensor, Tensor]
"""First and last step of each window's span. Shapes: int64 [B] each."""

Inputs = Literal["encoding", "price_path", "both", "encoding+features", "price_path+features", "both+features"]
"""What a head reads at each step: the encoding, the price-path features, or both side by side, and after them the
features of a set that the detector carries."""


def parts_of(inputs: str) -> tuple[str, ...]:
    """Return the parts of a head's inputs, in order: of ``encoding``, ``price_path`` and ``features``.

    >>> parts_of("both+features")
    ('encoding', 'price_path', 'features')
    """
    return tuple(inputs.replace("both", "encoding+price_path").split("+"))


HIT_BARS = 3
"""A span counts as found if its centre is at most this many bars off."""
HIDDEN = 64
KERNEL = 5
CONTEXT = 20
"""Steps before and after the span that the class head averages. A label is decided within these bars."""
DROPOUT = 0.1
LOG_SIGMA_BOUNDS = (-3.0, 3.0)


@dataclass(frozen=True)
class Output:
    """A head's output for each window.

    Shapes: class_logits [B, C]; pointers of a span head are start and end logits [B, T] each, pointers of a pooled
    head are centre and length [B] each, as shares of the window.
    """

    class_logits: Tensor
    pointers: tuple[Tensor, Tensor]


class Head(nn.Module):
    """Base class of heads: ``forward`` reads z-scored steps, and in training the true span (teacher forcing).

    Shapes: z_BTP, span ([B], [B]) -> Output.
    """

    def __init__(self, lengths: tuple[int, int], num_steps: int) -> None:
        super().__init__()
        if not 1 <= lengths[0] <= lengths[1] <= num_steps:
            raise ValueError(f"span lengths {lengths} are not a range within 1..{num_steps}")
        self.lengths, self.num_steps = lengths, num_steps

    def forward(self, z_BTP: Tensor, span: Span | None = None) -> Output:
        """Return class logits and pointers."""
        raise NotImplementedError

    def pointer_loss(self, output: Output, start_B: Tensor, end_B: Tensor) -> Tensor:
        """Return the pointers' loss of each window. Shapes: [B]."""
        raise NotImplementedError

    def decode(self, output: Output) -> Span:
        """Return the first and the last step of the span. Shapes: int64 [B] each."""
        raise NotImplementedError


class WindowDropout(nn.Module):
    """Dropout of whole columns of a window. Neighbouring steps are alike, so leaving out single steps hides little.

    One random number for a column, not one for each step, also makes a fit faster.
    """

    def forward(self, g_BTH: Tensor) -> Tensor:
        if not self.training:
            return g_BTH
        keep_B1H = torch.rand(len(g_BTH), 1, g_BTH.shape[-1], device=g_BTH.device) >= DROPOUT
        return g_BTH * (keep_B1H.to(g_BTH.dtype) / (1 - DROPOUT))


class SpanHead(Head):
    """Start and end as softmax over steps, decoded jointly over the allowed lengths; the class is read at the span."""

    def __init__(
        self, num_inputs: int, num_classes: int, lengths: tuple[int, int], num_steps: int, hidden: int = HIDDEN
    ) -> None:
        super().__init__(lengths, num_steps)
        self.step = nn.Sequential(nn.Linear(num_inputs, hidden), nn.GELU())
        self.around = nn.Conv1d(hidden, hidden, KERNEL, padding=KERNEL // 2)
        self.dropout = WindowDropout()
        self.pointer = nn.Linear(hidden, 2)
        self.classify = nn.Linear(3 * hidden, num_classes)

    def hidden_steps(self, z_BTP: Tensor) -> Tensor:
        """Return the hidden numbers of each step. Shapes: [B, T, P] -> [B, T, H]."""
        g_BTH = self.step(z_BTP)
        return self.dropout(g_BTH + functional.gelu(over_steps(self.around, g_BTH)))

    def forward(self, z_BTP: Tensor, span: Span | None = None) -> Output:
        g_BTH = self.hidden_steps(z_BTP)
        start_BT, end_BT = self.pointer(g_BTH).unbind(-1)
        pointers = (start_BT, end_BT)
        if span is None:
            span = best_span(start_BT.detach(), end_BT.detach(), self.lengths)
        weight_B3T = pooling(*span, z_BTP.shape[1]).to(g_BTH.dtype)
        return Output(self.classify((weight_B3T @ g_BTH).flatten(1)), pointers)

    def pointer_loss(self, output: Output, start_B: Tensor, end_B: Tensor) -> Tensor:
        start_BT, end_BT = output.pointers
        return functional.cross_entropy(start_BT, start_B, reduction="none") + functional.cross_entropy(
            end_BT, end_B, reduction="none"
        )

    def decode(self, output: Output) -> Span:
        return best_span(*output.pointers, self.lengths)


class LinearSpanHead(SpanHead):
    """A head without hidden layers: linear layers read start and end at each step, and the class at the span.

    The prior reader fits this head. Pointers need no bias: a number added at all steps does not change the softmax.
    """

    def __init__(self, num_inputs: int, num_classes: int, lengths: tuple[int, int], num_steps: int) -> None:
        Head.__init__(self, lengths, num_steps)
        self.pointer = nn.Linear(num_inputs, 2, bias=False)
        self.classify = nn.Linear(3 * num_inputs, num_classes)

    def forward(self, z_BTP: Tensor, span: Span | None = None) -> Output:
        start_BT, end_BT = self.pointer(z_BTP).unbind(-1)
        if span is None:
            span = best_span(start_BT.detach(), end_BT.detach(), self.lengths)
        pooled_B3P = pooling(*span, z_BTP.shape[1]).to(z_BTP.dtype) @ z_BTP
        return Output(self.classify(pooled_B3P.flatten(1)), (start_BT, end_BT))


class PooledHead(Head):
    """The published head: mean pool over steps, class by a linear layer, centre and length by sigmoids."""

    def __init__(self, num_inputs: int, num_classes: int, lengths: tuple[int, int], num_steps: int) -> None:
        super().__init__(lengths, num_steps)
        self.step = nn.Sequential(nn.Linear(num_inputs, HIDDEN), nn.GELU(), nn.Dropout(DROPOUT))
        self.classify = nn.Linear(HIDDEN, num_classes)
        self.pointer = nn.Linear(HIDDEN, 2)

    def forward(self, z_BTP: Tensor, span: Span | None = None) -> Output:
        g_BH = self.step(z_BTP.mean(1))
        centre_B, length_B = self.pointer(g_BH).sigmoid().unbind(-1)
        return Output(self.classify(g_BH), (centre_B, length_B))

    def pointer_loss(self, output: Output, start_B: Tensor, end_B: Tensor) -> Tensor:
        centre_B, length_B = output.pointers
        huber = functional.huber_loss
        centre = huber(centre_B, (start_B + end_B) / (2 * (self.num_steps - 1)), reduction="none", delta=0.1)
        return centre + huber(length_B, (end_B - start_B + 1) / self.num_steps, reduction="none", delta=0.1)

    def decode(self, output: Output) -> Span:
        centre_B, length_B = output.pointers
        length_B = (length_B * self.num_steps).round().long().clamp(*self.lengths)
        start_B = (centre_B * (self.num_steps - 1) - (length_B - 1) / 2).round().long()
        start_B = torch.minimum(start_B.clamp(min=0), self.num_steps - length_B)
        return start_B, start_B + length_B - 1


def over_steps(conv: nn.Conv1d, g_BTH: Tensor) -> Tensor:
    """Return a convolution over steps that keeps their number. Shapes: [B, T, H] -> [B, T, H].

    It runs as a convolution of a picture with one row, because the numbers already have the order that a CPU needs
    for pictures. A convolution in one dimension reorders them and puts them back, which takes twice as long.
    """
    row_BH1T = g_BTH.transpose(1, 2).unsqueeze(2)
    around = functional.conv2d(row_BH1T, conv.weight.unsqueeze(2), conv.bias, padding=(0, *conv.padding))
    return around.squeeze(2).transpose(1, 2)


def span_scores(start_BT: Tensor, end_BT: Tensor, lengths: tuple[int, int]) -> Tensor:
    """Return log p_start(s) + log p_end(e) of each span, -inf if it leaves the window.

    Shapes: logits [B, T] each -> [B, S, T], by length from the shortest, and by start.
    """
    num_steps = start_BT.shape[1]
    log_start_BT, log_end_BT = start_BT.log_softmax(-1), end_BT.log_softmax(-1)
    rows = []
    for length in range(lengths[0], lengths[1] + 1):
        score_BL = log_start_BT[:, : num_steps - length + 1] + log_end_BT[:, length - 1 :]
        rows.append(functional.pad(score_BL, (0, length - 1), value=-math.inf))
    return torch.stack(rows, 1)


def best_span(start_BT: Tensor, end_BT: Tensor, lengths: tuple[int, int]) -> Span:
    """Return the most probable span of an allowed length. Shapes: logits [B, T] each -> first, last step [B] each."""
    num_steps = start_BT.shape[1]
    best_B = span_scores(start_BT, end_BT, lengths).flatten(1).argmax(1)
    start_B = best_B % num_steps
    return start_B, start_B + lengths[0] + best_B // num_steps - 1


def pooling(start_B: Tensor, end_B: Tensor, num_steps: int) -> Tensor:
    """Return weights that average the steps of the span, before it and after it; 0 if there are no such steps.

    Shapes: [B], [B] -> [B, 3, T].
    """
    t_T = torch.arange(num_steps, device=start_B.device)
    start_B1, end_B1 = start_B[:, None], end_B[:, None]
    at = (t_T >= start_B1) & (t_T <= end_B1)
    before = (t_T < start_B1) & (t_T >= start_B1 - CONTEXT)
    after = (t_T > end_B1) & (t_T <= end_B1 + CONTEXT)
    weight_B3T = torch.stack([at, before, after], 1).float()
    return weight_B3T / weight_B3T.sum(-1, keepdim=True).clamp(min=1)


HEADS: dict[str, Callable[[int, int, tuple[int, int], int], Head]] = {
    "span": SpanHead,
    "linear": LinearSpanHead,
    "pooled": PooledHead,
}
"""Constructors: (num_inputs, num_classes, lengths, num_steps) -> head. A new head is a class and a row here."""
SAVED_HEADS = dict(HEADS)
"""Constructors of all heads that a detector may hold: those of ``HEADS``, and those made of fitted detectors."""


class Detector(nn.Module):
    """Scaling of the inputs (fitted on training windows, kept as buffers) and a head.

    Shapes: x_BTP -> Output. Raises: UserError for an unknown head.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, head: str, num_inputs: int, num_classes: int, lengths: tuple[int, int], num_steps: int = 105
    ) -> None:
        super().__init__()
        if head not in SAVED_HEADS:
            raise UserError(f"finetune.head='{head}' is unknown{nearest_name(head, HEADS)} Allowed: {', '.join(HEADS)}")
        self.head = SAVED_HEADS[head](num_inputs, num_classes, lengths, num_steps)
        self.log_sigma = nn.Parameter(torch.zeros(2))
        self.register_buffer("mean", torch.zeros(num_inputs))
        self.register_buffer("std", torch.ones(num_inputs))

    @torch.no_grad()
    def fit_scaling(self, x_BTP: Tensor) -> None:
        """Store mean and standard deviation of the inputs over all steps. A constant input gets the deviation 1."""
        std_P, mean_P = torch.std_mean(x_BTP, dim=(0, 1), correction=0)
        self.mean.copy_(mean_P)
        self.std.copy_(torch.where(std_P > 0, std_P, torch.ones_like(std_P)))

    def forward(self, x_BTP: Tensor, span: Span | None = None) -> Output:
        return self.head(torch.addcmul(-self.mean / self.std, x_BTP, 1 / self.std), span)  # z in one pass

    def decode(self, output: Output) -> Span:
        """Return the span that the head finds."""
        return self.head.decode(output)

    def losses(self, output: Output, label_B: Tensor, span: Span, gamma: float = 0.0) -> Tensor:
        """Return the mean class loss (focal if gamma > 0) and the mean pointer loss. Shapes: [2]."""
        class_B = functional.cross_entropy(output.class_logits, label_B, reduction="none")
        if gamma > 0:
            # The floor keeps the gradient of the power finite for a window with probability 1.
            class_B = class_B * (-torch.expm1(-class_B)).clamp(min=1e-6) ** gamma
        return torch.stack([class_B.mean(), self.head.pointer_loss(output, *span).mean()])

    def combined(self, losses_2: Tensor) -> Tensor:
        """Return the sum of L / (2 s^2) + log s over the losses, with a learned s for each."""
        # Projected, not clamped in the graph: a clamp would cut the gradient, and log s could never return.
        with torch.no_grad():
            self.log_sigma.clamp_(*LOG_SIGMA_BOUNDS)
        return (losses_2 / (2 * torch.exp(2 * self.log_sigma)) + self.log_sigma).sum()


class AveragedHead(SpanHead):
    """Three readers whose log probabilities of start, end and class are averaged. Each is fitted apart.

    A linear head and a span head read the encoding, a span head reads the price-path features after it. Linear heads
    of the prior reader stay near the rules that an encoder was trained on; the others do not.
    """

    def __init__(self, num_inputs: int, num_classes: int, lengths: tuple[int, int], num_steps: int) -> None:
        Head.__init__(self, lengths, num_steps)
        num_path = len(PRICE_PATH_FEATURE_NAMES)
        if num_inputs <= num_path:
            raise ValueError(f"an averaged head reads an encoding and {num_path} price-path features, not {num_inputs}")
        self.num_encoded = num_inputs - num_path
        self.prior = Detector("linear", self.num_encoded, num_classes, lengths, num_steps)
        self.encoding = Detector("span", self.num_encoded, num_classes, lengths, num_steps)
        self.price_path = Detector("span", num_path, num_classes, lengths, num_steps)

    def forward(self, z_BTP: Tensor, span: Span | None = None) -> Output:
        encoding_BTD, path_BTK = z_BTP[..., : self.num_encoded], z_BTP[..., self.num_encoded :]
        members = ((self.prior, encoding_BTD), (self.encoding, encoding_BTD), (self.price_path, path_BTK))
        outputs = [member(part, span) for member, part in members]
        start_BT, end_BT, logits_BC = (
            torch.stack([logits.log_softmax(-1) for logits in each]).mean(0)
            for each in zip(*((*output.pointers, output.class_logits) for output in outputs), strict=True)
        )
        return Output(logits_BC, (start_BT, end_BT))


AVERAGED = "averaged"
SAVED_HEADS[AVERAGED] = AveragedHead


class EncoderDetector(nn.Module):
    """An encoder that is trained, and a detector that reads its encoding and any further inputs.

    With ``precision`` bf16 the encoder trains under autocast. It is evaluated in fp32, as it will be served.

    Shapes: x_BTP -> Output. The first F inputs of a step are the features of the encoder, the head reads the rest.
    """

    def __init__(self, encoder: Encoder, detector: Detector, precision: str = "fp32") -> None:
        super().__init__()
        self.encoder, self.detector, self.precision = encoder, detector, precision

    def read(self, x_BTP: Tensor) -> Tensor:
        """Return the inputs of the head: encoding and further inputs. Shapes: [B, T, F + K] -> [B, T, D + K]."""
        num_features = self.encoder.input_size
        with torch.autocast(x_BTP.device.type, torch.bfloat16, enabled=self.training and self.precision == "bf16"):
            h_BTD = self.encoder(x_BTP[..., :num_features]).float()
        return torch.cat([h_BTD, x_BTP[..., num_features:]], -1)

    def forward(self, x_BTP: Tensor, span: Span | None = None) -> Output:
        return self.detector(self.read(x_BTP), span)
