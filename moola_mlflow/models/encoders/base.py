"""The base class of encoders: it takes raw features and z-scores them with vectors of its own.

Shape legend: B windows, T steps, F features, D encoding size; x raw features, z z-scored features, h encodings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from moola_mlflow.models.task_heads import TaskHeads


class Encoder(nn.Module):
    """Base class of encoders: ``encode`` is the architecture, ``forward`` z-scores and encodes.

    Shapes: x_BTF -> h_BTD, any T.
    """

    output_size: int
    """Numbers in the encoding of a step: D."""
    card: dict[str, Any]
    """What it was trained on and what it reads; set when an encoder is loaded or saved."""
    task_heads: TaskHeads | None = None
    """Heads of the rules that it was trained on, for the prior reader; None if it was trained on no rules."""
    mean: Tensor
    std: Tensor
    """Mean and standard deviation of each feature. Shapes: [F] each."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.input_size = num_features
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("std", torch.ones(num_features))

    def set_scaling(self, mean_F: Tensor, std_F: Tensor) -> None:
        """Store mean and standard deviation of the features; the latter is 1 if a feature is constant."""
        self.mean.copy_(mean_F)
        self.std.copy_(torch.where(std_F > 0, std_F, torch.ones_like(std_F)))

    def standardise(self, x_BTF: Tensor) -> Tensor:
        """Return features in z units. Shapes: [B, T, F]. Raises: ValueError for another number of features."""
        if x_BTF.shape[-1] != self.input_size:
            raise ValueError(
                f"the encoder reads {self.input_size} features a step, got an input of shape {tuple(x_BTF.shape)}; "
                "raw OHLC windows go through moola_mlflow.embed"
            )
        return (x_BTF - self.mean) / self.std

    def encode(self, z_BTF: Tensor) -> Tensor:
        """Return the encoding of z-scored features. Shapes: z_BTF -> h_BTD."""
        raise NotImplementedError

    def forward(self, x_BTF: Tensor) -> Tensor:
        """Return the encoding of raw features. Shapes: x_BTF -> h_BTD."""
        return self.encode(self.standardise(x_BTF))
