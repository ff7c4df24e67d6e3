"""Study-only objectives: hide steps, or only a path channel, and predict the price path at what is hidden."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from moola_mlflow.core import ObjectiveConfig
from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.objectives.base import Errors
from moola_mlflow.models.objectives.masked import Masked
from moola_mlflow.models.objectives.price_path import PricePath, median_range
from moola_mlflow.windows.batches import CHUNK, Batch, BatchSource

CHANNEL = ("path_high", "path_low", "path_close")


def path_channel(prices_BT4: Tensor) -> Tensor:
    """Return high, low and close against the window's mean close, 0 where the window never moves.

    Shapes: [B, T, 4] -> float32 [B, T, 3]. Units: the window's median bar range.
    """
    level_B11 = prices_BT4[..., 3].mean(1, keepdim=True)[..., None]
    return ((prices_BT4[..., 1:] - level_B11) / median_range(prices_BT4)[..., None]).nan_to_num().float()


@dataclass(frozen=True)
class ChannelSource(BatchSource):
    """Batches whose last three inputs are the path channel."""

    @property
    def names(self) -> tuple[str, ...]:
        return (*super().names, *CHANNEL)

    def batches(
        self, order: np.ndarray, batch_size: int, first: int = 0, flipped: np.ndarray | None = None
    ) -> Iterator[Batch]:
        for batch in super().batches(order, batch_size, first, flipped):
            x_BTF = torch.cat([batch.x_BTF, path_channel(batch.prices_BT4)], -1)
            yield Batch(x_BTF, batch.prices_BT4, batch.index, batch.warmup)

    def features(self, order: np.ndarray) -> np.ndarray:
        return np.concatenate([batch.x_BTF.numpy() for batch in self.batches(order, CHUNK)])


class HiddenPath(PricePath):
    """Blocks are hidden (all inputs of a step, or only the last ``num_hidden``); path targets at hidden steps alone.

    Each batch draws its block length from ``blocks``. Features that are not hidden still carry some of the path.
    """

    def __init__(self, encoding_size: int, num_inputs: int, num_hidden: int, blocks: tuple[int, ...], ratio: float):
        super().__init__(encoding_size)
        self.checks_leak = num_hidden == num_inputs
        # A tuple, and so no part of the module: they only draw.
        configs = [ObjectiveConfig(mask_strategy="patch", mask_ratio=ratio, mask_patch=block) for block in blocks]
        self.maskers = tuple(Masked(("",), 1, config) for config in configs)
        self.mask_token = nn.Parameter(torch.zeros(num_hidden))

    def draw(self, batch: Batch, generator: torch.Generator) -> Tensor:
        which = int(torch.randint(len(self.maskers), (), generator=generator))
        return self.maskers[which].draw(batch, generator)

    def encoder_input(self, encoder: Encoder, batch: Batch, drawn: Tensor, generator: torch.Generator) -> Tensor:
        z_BTF = super().encoder_input(encoder, batch, drawn, generator)
        seen_BTF, channel_BTF = z_BTF.split([z_BTF.shape[-1] - len(self.mask_token), len(self.mask_token)], -1)
        return torch.cat([seen_BTF, torch.where(drawn[..., None], self.mask_token, channel_BTF)], -1)

    def errors(self, encoder: Encoder, h_BTD: Tensor, batch: Batch, drawn: Tensor) -> Errors:
        target_BTK, there_BTK = self._targets(batch)
        return self._errors(self.decoder(h_BTD).float(), target_BTK, there_BTK & drawn[..., None])

    def baseline_errors(self, encoder: Encoder, batch: Batch, drawn: Tensor) -> dict[str, Errors]:
        """Return the errors of the target mean alone: skills of this study's objectives are not compared."""
        target_BTK, there_BTK = self._targets(batch)
        return {"target mean": self._errors(torch.zeros_like(target_BTK), target_BTK, there_BTK & drawn[..., None])}

    def fit_baselines(self, *_: object) -> None:
        """The target mean is 0 in z units."""
