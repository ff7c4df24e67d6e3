"""The belief of a net about a window: a probability for each class and span. The rest to 1 is that of "no event".

The mass of a class at a step is the probability of its spans that are centred within 3 bars of the step. A window's
maps hold these masses. They are sums of its belief, so beliefs of nets and maps of windows can be averaged.

Shape legend: B windows, C classes, S allowed lengths (from the shortest), T steps, K = 2 T - 1 centres in half steps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from moola_mlflow.models.heads import CONTEXT, HIT_BARS, Span

OUTSIDE = -1e4
"""Logit of a span that leaves the window: its probability is 0, and its gradient is not NaN."""
MASS, START, END = range(3)
"""Rows of a window's maps, see :func:`centre_maps`."""


def span_logits(start_BCT: Tensor, end_BCT: Tensor, lengths: tuple[int, int]) -> Tensor:
    """Return the sum of the start logit and the end logit of each span. Shapes: [B, C, T] each -> [B, C, S, T]."""
    num_steps, (shortest, longest) = start_BCT.shape[-1], lengths
    padded = functional.pad(end_BCT, (0, longest - 1), value=OUTSIDE)[..., shortest - 1 :]
    return start_BCT[..., None, :] + padded.unfold(-1, num_steps, 1)


def centre_maps(belief_BCST: Tensor, lengths: tuple[int, int]) -> Tensor:
    """Return the maps of each window, in three rows for each class.

    The first row is the mass at each step. The others are the mass times the distance from the step to the first and to
    the last step of the span. Divided by the mass, they give the expected span near the step.

    Shapes: [B, C, S, T] -> [B, 3, C, T].
    """
    num_windows, num_classes, _, num_steps = belief_BCST.shape
    at_BCK = belief_BCST.new_zeros(num_windows, num_classes, 2 * num_steps - 1)
    bars_BCK = torch.zeros_like(at_BCK)
    for row, length in enumerate(range(lengths[0], lengths[1] + 1)):
        # A span that starts at step s has its centre at half step 2 s + length - 1.
        mass = belief_BCST[:, :, row, : num_steps - length + 1]
        centres = slice(length - 1, 2 * num_steps - length, 2)
        at_BCK[..., centres] += mass
        bars_BCK[..., centres] += (length - 1) * mass
    near_2J = _near(belief_BCST)
    mass_BCT, offset_BCT = _windowed(at_BCK, near_2J)
    bars_BCT, _ = _windowed(bars_BCK, near_2J)
    return torch.stack([mass_BCT, (offset_BCT - bars_BCT) / 2, (offset_BCT + bars_BCT) / 2], 1)


def _near(like: Tensor) -> Tensor:
    """Return two kernels over the half steps around a step: 1, and the distance. Shapes: [2, J]."""
    offset_J = torch.arange(-2 * HIT_BARS, 2 * HIT_BARS + 1, dtype=like.dtype, device=like.device)
    return torch.stack([torch.ones_like(offset_J), offset_J])


def _windowed(x_BCK: Tensor, kernels_2J: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sums of x around each whole step under both kernels. Shapes: [B, C, K] -> [B, C, T] each."""
    out = functional.conv1d(x_BCK.flatten(0, 1)[:, None], kernels_2J[:, None], stride=2, padding=2 * HIT_BARS)
    first, second = out.unflatten(0, x_BCK.shape[:2]).unbind(2)
    return first, second


def class_logits(g_BTH: Tensor, classify: nn.Linear, lengths: tuple[int, int]) -> Tensor:
    """Return the class logits of every span: a linear layer on the averages over the span, before it and after it.

    The numbers are those of ``classify`` on ``pooling``. Running sums give them for all spans at once.

    Shapes: [B, T, H] -> [B, K, S, T] for K outputs of the layer.
    """
    num_steps, (shortest, longest) = g_BTH.shape[1], lengths
    parts_3KH = classify.weight.unflatten(1, (3, -1)).transpose(0, 1)
    sums_3BKT = torch.einsum("bth,pkh->pbkt", g_BTH, parts_3KH).cumsum(-1)
    # Beyond the window's ends the running sums stay as they are, so a part that leaves the window is cut off there.
    beyond = sums_3BKT[..., -1:].expand(*sums_3BKT.shape[:3], longest + CONTEXT)
    within, before, after = torch.cat([functional.pad(sums_3BKT, (CONTEXT + 1, 0)), beyond], -1)
    place_E = torch.arange(num_steps + longest + 1, device=g_BTH.device)  # the step after the last of a span
    start_T = place_E[:num_steps]
    before_BKT = (before[..., CONTEXT : CONTEXT + num_steps] - before[..., :num_steps]) / start_T.clamp(1, CONTEXT)
    rest_E = (num_steps - place_E).clamp(1, CONTEXT)
    after_BKE = (after[..., 2 * CONTEXT :] - after[..., CONTEXT : CONTEXT + len(place_E)]) / rest_E
    bars_ST = torch.minimum(torch.arange(shortest, longest + 1, device=g_BTH.device)[:, None], num_steps - start_T).to(
        g_BTH.dtype
    )

    def by_span(x_BKE: Tensor) -> Tensor:
        """Return the value at the step after each span. Shapes: [B, K, E] -> [B, K, S, T]."""
        return x_BKE[..., shortest : num_steps + longest].unfold(-1, num_steps, 1)

    ends_BKE = within[..., CONTEXT : CONTEXT + len(place_E)]
    out = (by_span(ends_BKE) - ends_BKE[..., None, :num_steps]) / bars_ST
    return out.add_(by_span(after_BKE)).add_((before_BKT + classify.bias[:, None])[..., None, :])


def best_spans(belief_BCST: Tensor, class_B: Tensor, lengths: tuple[int, int]) -> Span:
    """Return the most probable span of one class in each window. Shapes: class int64 [B] -> first, last step [B]."""
    rows = torch.arange(len(class_B), device=class_B.device)
    best_B = belief_BCST[rows, class_B].flatten(1).argmax(1)
    start_B = best_B % belief_BCST.shape[-1]
    return start_B, start_B + lengths[0] + best_B // belief_BCST.shape[-1] - 1
