"""Bidirectional LSTM encoder.

Shape legend: B windows, T steps, F features, D = 2 * hidden; z z-scored features, h encodings.
"""

from __future__ import annotations

from torch import Tensor, nn

from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.encoders.keyed_dropout import Dropout


class BiLSTM(Encoder):
    """Stacked bidirectional LSTMs with dropout between the layers."""

    def __init__(self, num_features: int, hidden: int = 128, layers: int = 2, dropout: float = 0.1) -> None:
        super().__init__(num_features)
        self.output_size = 2 * hidden
        sizes = [num_features] + [self.output_size] * (layers - 1)
        self.layers = nn.ModuleList(nn.LSTM(size, hidden, batch_first=True, bidirectional=True) for size in sizes)
        self.dropout = Dropout(dropout)

    def encode(self, z_BTF: Tensor) -> Tensor:
        """Return the encoding of z-scored features: forward and backward state of each step. Shapes: h_BTD."""
        h_BTD, _ = self.layers[0](z_BTF)
        for lstm in self.layers[1:]:
            h_BTD, _ = lstm(self.dropout(h_BTD))
        return h_BTD


build = BiLSTM
