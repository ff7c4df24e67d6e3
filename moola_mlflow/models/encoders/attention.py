"""Encoder of local attention: each step attends to the steps around it, and blocks widen what it sees.

Shape legend: B windows, T steps, F features, D = 2 * hidden, N heads, E = D / N; z z-scored features, h encodings.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.encoders.keyed_dropout import Dropout

REACH = 16
"""Steps that a step attends to on each side."""
HEAD_SIZE = 32
"""Smallest size of a head, if the encoding is not smaller itself. Smaller heads are slow on a CPU."""


def num_heads(hidden: int) -> int:
    """Return the largest number of heads that divides the units and leaves each head its smallest size."""
    return max(n for n in range(1, max(1, 2 * hidden // HEAD_SIZE) + 1) if hidden % n == 0)


class Attention(nn.Module):
    """Attention within a band, with a learned bias for each distance between steps. Shapes: h_BTD -> h_BTD.

    The full T x T scores are masked: with 105 steps, blocks along the band were no faster. Nor was PyTorch's fused
    attention, which has no gradient with respect to the bias (PyTorch 2.13, CPU).
    """

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.linear = nn.Linear(size, 3 * size, bias=False), nn.Linear(size, size)
        self.bias = nn.Parameter(torch.zeros(heads, 2 * REACH + 1))

    def forward(self, h_BTD: Tensor) -> Tensor:
        parts = self.qkv(h_BTD).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q_BNTE, k_BNTE, v_BNTE = parts.unbind()
        scores_BNTT = (q_BNTE * q_BNTE.shape[-1] ** -0.5) @ k_BNTE.mT + self.band(h_BTD.shape[1])
        seen_BNTE = scores_BNTT.softmax(-1) @ v_BNTE
        return self.linear(seen_BNTE.transpose(1, 2).flatten(2))

    def band(self, num_steps: int) -> Tensor:
        """Return the bias of each pair of steps, minus infinity for those too far apart. Shapes: [N, T, T]."""
        step_T = torch.arange(num_steps, device=self.bias.device)
        apart_TT = step_T - step_T[:, None]
        bias_NTT = self.bias[:, (apart_TT + REACH).clamp(0, 2 * REACH)]
        return bias_NTT.masked_fill(apart_TT.abs() > REACH, -torch.inf)


class AttentionBlock(nn.Module):
    """Local attention and a multilayer perceptron, each after LayerNorm and added to its input. Shapes: h_BTD."""

    def __init__(self, size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.LayerNorm(size), nn.LayerNorm(size)
        self.attention = Attention(size, heads)
        self.first, self.second = nn.Linear(size, size), nn.Linear(size, size)
        self.dropout = Dropout(dropout)

    def forward(self, h_BTD: Tensor) -> Tensor:
        h_BTD = h_BTD + self.attention(self.attention_norm(h_BTD))
        return h_BTD + self.second(self.dropout(functional.gelu(self.first(self.mlp_norm(h_BTD)))))


class LocalAttention(Encoder):
    """Pre-norm transformer whose attention reaches 16 steps to each side. Three layers see 48 steps to each side.

    Position enters only as a bias for each distance, so windows of any length work.

    Shapes: x_BTF -> h_BTD with D = 2 * hidden.

    References
    ----------
    Vaswani et al., "Attention is all you need", 2017, https://arxiv.org/abs/1706.03762; the band: Beltagy, Peters and
    Cohan, "Longformer", 2020, https://arxiv.org/abs/2004.05150; the bias: Raffel et al., "Exploring the limits of
    transfer learning with a unified text-to-text transformer", 2019, https://arxiv.org/abs/1910.10683.
    """

    def __init__(self, num_features: int, hidden: int = 128, layers: int = 3, dropout: float = 0.1) -> None:
        super().__init__(num_features)
        self.output_size = 2 * hidden
        self.entry = nn.Linear(num_features, self.output_size)
        heads = num_heads(hidden)
        self.blocks = nn.ModuleList(AttentionBlock(self.output_size, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(self.output_size)

    def encode(self, z_BTF: Tensor) -> Tensor:
        """Return the encoding of z-scored features. Shapes: h_BTD."""
        h_BTD = self.entry(z_BTF)
        for block in self.blocks:
            h_BTD = block(h_BTD)
        return self.norm(h_BTD)


build = LocalAttention
