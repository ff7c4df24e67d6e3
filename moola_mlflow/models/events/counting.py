"""Maps of windows that may hold several events.

Shape legend: B windows, C classes, T steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from moola_mlflow.models.events.belief import MASS
from moola_mlflow.models.events.peaks import RADIUS

LEAST = 1e-6


def several_events(maps_B3CT: Tensor, none_B: Tensor, events_B: Tensor) -> Tensor:
    """Return maps with the probability of an event near each step, from maps whose events share one probability.

    The events of a window share its belief, and the strongest event takes most of it. So the mass of a second event is
    too small. Here events are drawn one after another without replacement: the second one is drawn from what the first
    one left. Let m be the mass near a step, o the largest mass further than 8 bars away, and n the expected number of
    further events, all given that there is an event. Then the probability is m + n m (o / (1 - o) + 1 - o - m), at
    most 1. The first term in brackets is for a first event at o, the others for a first event elsewhere.

    Shapes: [B, 3, C, T], [B], [B] -> [B, 3, C, T].
    Source: R. Plackett, The Analysis of Permutations, 1975 (draws without replacement); the approximation is ours.
    """
    present_B11 = (1 - none_B).clamp(min=LEAST)[:, None, None]
    share_BCT = maps_B3CT[:, MASS] / present_B11
    step_T = torch.arange(share_BCT.shape[-1], device=share_BCT.device)
    near_TT = (step_T[:, None] - step_T).abs() <= RADIUS
    whole_BT = share_BCT.sum(1).clamp(max=1)
    other_B1T = whole_BT[:, None].masked_fill(near_TT, 0).amax(2)[:, None].clamp(max=1 - LEAST)
    left_BCT = other_B1T / (1 - other_B1T) + (1 - other_B1T - share_BCT).clamp(min=0)
    further_B11 = (events_B - 1)[:, None, None]
    found_BCT = present_B11 * (share_BCT * (1 + further_B11 * left_BCT)).clamp(max=1)
    return maps_B3CT * (found_BCT / maps_B3CT[:, MASS].clamp(min=1e-12))[:, None]
