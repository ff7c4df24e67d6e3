"""Encoder of residual dilated convolutions: each block looks twice as far as the one before it.

Shape legend: B windows, T steps, F features, D = 2 * hidden; z z-scored features, h encodings.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.encoders.keyed_dropout import Dropout

KERNEL = 5
"""Steps that a convolution reads, before they are spread by its dilation."""


class Block(nn.Module):
    """LayerNorm, dilated convolution, GELU and a linear layer, added to its input. Shapes: h_BTD -> h_BTD."""

    def __init__(self, size: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.conv = nn.Conv1d(size, size, KERNEL, padding="same", dilation=dilation)
        self.dropout = Dropout(dropout)
        self.linear = nn.Linear(size, size)

    def forward(self, h_BTD: Tensor) -> Tensor:
        looked_BTD = self.conv(self.norm(h_BTD).mT).mT
        return h_BTD + self.linear(self.dropout(functional.gelu(looked_BTD)))


class Dilated(Encoder):
    """Residual dilated convolutions with dilations 1, 2, 4 and so on. Five layers see 62 steps to each side.

    Shapes: x_BTF -> h_BTD with D = 2 * hidden.

    References
    ----------
    Bai, Kolter and Koltun, "An empirical evaluation of generic convolutional and recurrent networks for sequence
    modeling", 2018, https://arxiv.org/abs/1803.01271; here the convolutions look to both sides.
    """

    def __init__(self, num_features: int, hidden: int = 128, layers: int = 5, dropout: float = 0.1) -> None:
        super().__init__(num_features)
        self.output_size = 2 * hidden
        self.entry = nn.Linear(num_features, self.output_size)
        self.blocks = nn.ModuleList(Block(self.output_size, 2**i, dropout) for i in range(layers))
        self.norm = nn.LayerNorm(self.output_size)

    def encode(self, z_BTF: Tensor) -> Tensor:
        """Return the encoding of z-scored features. Shapes: h_BTD."""
        h_BTD = self.entry(z_BTF)
        for block in self.blocks:
            h_BTD = block(h_BTD)
        return self.norm(h_BTD)


build = Dilated
