"""Encoder of bidirectional minGRUs: recurrent units whose gates depend on the input alone.

The gates and candidates of all steps come from one matrix product. What is left of the recurrence is a weighted mean of
the state and a candidate at each step. A loop over steps computes it for all windows and units at once, and the same
loop backward gives the gradient. ``benchmarks/speed/encoders.py`` compares the loop with parallel scans: for
32 windows, 105 steps and 64 units its forward pass is the fastest of four on one core.

Shape legend: B windows, T steps, F features, H = hidden, D = 2 * H, P = 2 * D; z z-scored features, h encodings.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.encoders.keyed_dropout import Dropout

LONGEST = 64
"""Steps that the slowest unit remembers before training."""


class Recurrence(torch.autograd.Function):
    """s[t] = (1 - g[t]) * s[t-1] + g[t] * c[t], where s[-1] is 0.

    The gates g are the sigmoid of the first half of p, the candidates c are its second half. The second half of the
    units reads a window from its end. Shapes: p_TBP -> s_TBD.
    """

    @staticmethod
    def forward(ctx: Any, p_TBP: Tensor) -> Tensor:
        """Return the states."""
        logit_TBD, c_TBD = p_TBP.chunk(2, -1)
        g_TBD = logit_TBD.sigmoid()
        kept_TBD, s_TBD = 1 - g_TBD, g_TBD * c_TBD
        for s_TBH, kept_TBH, order in zip(s_TBD.chunk(2, -1), kept_TBD.chunk(2, -1), (1, -1), strict=True):
            states, shares = s_TBH.unbind()[::order], kept_TBH.unbind()[::order]
            for before, now, kept in zip(states, states[1:], shares[1:], strict=False):
                now.addcmul_(kept, before)
        ctx.save_for_backward(g_TBD, kept_TBD, c_TBD, s_TBD)
        return s_TBD

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Tensor:
        """Return the gradient by gates and candidates."""
        g_TBD, kept_TBD, c_TBD, s_TBD = ctx.saved_tensors
        by_s_TBD = upstream[0].clone(memory_format=torch.contiguous_format)
        for by_s_TBH, kept_TBH, order in zip(by_s_TBD.chunk(2, -1), kept_TBD.chunk(2, -1), (-1, 1), strict=True):
            gradients, shares = by_s_TBH.unbind()[::order], kept_TBH.unbind()[::order]
            for after, now, kept in zip(gradients, gradients[1:], shares, strict=False):
                now.addcmul_(kept, after)
        by_c_TBD, by_g_TBD = by_s_TBD * g_TBD, c_TBD.clone()
        ahead_TBH, back_TBH = by_g_TBD.chunk(2, -1)
        s_ahead_TBH, s_back_TBH = s_TBD.chunk(2, -1)
        ahead_TBH[1:] -= s_ahead_TBH[:-1]
        back_TBH[:-1] -= s_back_TBH[1:]
        return torch.cat([by_g_TBD.mul_(by_c_TBD).mul_(kept_TBD), by_c_TBD], -1)


class MinGRUBlock(nn.Module):
    """LayerNorm, a bidirectional minGRU, GELU and a linear layer, added to its input. Shapes: h_TBD -> h_TBD."""

    def __init__(self, size: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.gates = nn.Linear(size, 2 * size)
        self.dropout = Dropout(dropout)
        self.linear = nn.Linear(size, size)
        with torch.no_grad():
            # A gate of 1 / n remembers n steps. Units begin with 2 to LONGEST steps, spaced geometrically.
            steps_H = torch.tensor(2.0) * (LONGEST / 2) ** torch.linspace(0, 1, size // 2)
            self.gates.bias[:size] = -(steps_H - 1).log().repeat(2)

    def forward(self, h_TBD: Tensor) -> Tensor:
        # The recurrence is computed in float32 under autocast too.
        s_TBD: Tensor = Recurrence.apply(self.gates(self.norm(h_TBD)).float())
        # Keyed dropout counts windows along the first dimension.
        kept_TBD = self.dropout(functional.gelu(s_TBD).transpose(0, 1)).transpose(0, 1)
        return h_TBD + self.linear(kept_TBD)


class BidirectionalMinGRU(Encoder):
    """Residual blocks of bidirectional minGRUs.

    Shapes: x_BTF -> h_BTD with D = 2 * hidden.

    References
    ----------
    Feng, Tung, Ahmed, Bengio and Hajimirsadeghi, "Were RNNs all we needed?", 2024, https://arxiv.org/abs/2410.01201;
    here half of the units read backward, and units begin with memories of different lengths.
    """

    def __init__(self, num_features: int, hidden: int = 128, layers: int = 3, dropout: float = 0.1) -> None:
        super().__init__(num_features)
        self.output_size = 2 * hidden
        self.entry = nn.Linear(num_features, self.output_size)
        self.blocks = nn.ModuleList(MinGRUBlock(self.output_size, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(self.output_size)

    def encode(self, z_BTF: Tensor) -> Tensor:
        """Return the encoding of z-scored features. Shapes: h_BTD."""
        h_TBD = self.entry(z_BTF.transpose(0, 1))
        for block in self.blocks:
            h_TBD = block(h_TBD)
        return self.norm(h_TBD.transpose(0, 1))


build = BidirectionalMinGRU
