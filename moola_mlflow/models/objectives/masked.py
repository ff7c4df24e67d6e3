"""Masked reconstruction: hide steps, encode what is left, predict the hidden features with a linear decoder."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from moola_mlflow.core import ObjectiveConfig
from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.objectives.base import Errors, Objective
from moola_mlflow.models.objectives.baselines import Ridge, interpolate, last_visible, neighbours
from moola_mlflow.windows import Batch

# Candle shape (one bar alone) and swing or volatility state (many bars); a state feature at a visible step is
# computed from bars that include hidden ones, so its skill is partly algebra and is reported apart.
CANDLE = ("open_norm", "close_norm", "body_pct", "upper_wick_pct", "lower_wick_pct")


class Masked(Objective):
    """Reconstruction of masked steps.

    ``hide=False`` is the published objective: the encoder sees the steps it is to reconstruct, so it learns a copy.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        encoding_size: int,
        *,
        strategy: Literal["random", "patch"] = "random",
        ratio: float = 0.15,
        patch: int = 10,
        hide: bool = True,
        uncertainty: bool = False,
        log_sigma_min: float = -3.0,
        units: Literal["z", "raw"] = "z",
        jitter_sigma: float = 0.03,
    ) -> None:
        super().__init__()
        self.targets = names
        self.groups = {
            "candle": [i for i, name in enumerate(names) if name in CANDLE],
            "state": [i for i, name in enumerate(names) if name not in CANDLE],
        }
        self.block = patch if strategy == "patch" else 1
        self.ratio, self.hide, self.units, self.jitter_sigma = ratio, hide, units, jitter_sigma
        self.log_sigma_min = log_sigma_min
        self.identity, self.checks_leak = not hide, True
        self.decoder = nn.Linear(encoding_size, len(names))
        if hide:
            self.mask_token = nn.Parameter(torch.zeros(len(names)))
        self.log_sigma = nn.Parameter(torch.zeros(())) if uncertainty else None
        self.ridge = Ridge()

    def draw(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the mask: exactly round(ratio * valid steps) steps a window. Shapes: mask_BT, True is hidden.

        Blocks of ``patch`` steps start at a random phase; they are taken in random order until the count is
        reached, so the last block may be cut short, at its start or its end. Single steps are blocks of one.
        """
        num_windows, num_steps, _ = batch.x_BTF.shape
        num_valid = num_steps - batch.warmup
        count = max(1, round(self.ratio * num_valid))
        device = generator.device
        phase_B1 = torch.randint(self.block, (num_windows, 1), generator=generator, device=device)
        block_BV = (torch.arange(num_valid, device=device) + phase_B1) // self.block
        score_BK = torch.rand(num_windows, num_valid // self.block + 2, generator=generator, device=device)
        order_BV = score_BK.gather(1, block_BV).argsort(dim=1, stable=True)
        hidden_BC = order_BV[:, :count]
        mirrored_B1 = torch.rand(num_windows, 1, generator=generator, device=device) < 0.5
        hidden_BC = torch.where(mirrored_B1, num_valid - 1 - hidden_BC, hidden_BC)
        mask_BT = torch.zeros(num_windows, num_steps, dtype=torch.bool, device=device)
        return mask_BT.scatter_(1, batch.warmup + hidden_BC, True).to(batch.x_BTF.device)

    def encoder_input(self, encoder: Encoder, batch: Batch, drawn: Tensor, generator: torch.Generator) -> Tensor:
        z_BTF = self.jittered(encoder.standardise(batch.x_BTF), self.jitter_sigma, generator)
        return torch.where(drawn[..., None], self.mask_token, z_BTF) if self.hide else z_BTF

    def errors(self, encoder: Encoder, h_BTD: Tensor, batch: Batch, drawn: Tensor) -> Errors:
        return self._errors(encoder, self.decoder(h_BTD).float(), batch, drawn)

    def _errors(self, encoder: Encoder, predicted_BTF: Tensor, batch: Batch, drawn: Tensor) -> Errors:
        """Compare predictions (in loss units) with the clean features, at masked positions alone.

        All positions are decoded: how many are masked would have to be asked of a GPU, and the host would wait for it.
        """
        target_BTF = batch.x_BTF if self.units == "raw" else encoder.standardise(batch.x_BTF)
        masked_BT1 = drawn[..., None]
        huber_BTF = functional.huber_loss(predicted_BTF, target_BTF, reduction="none", delta=1.0)
        huber_K = huber_BTF.where(masked_BT1, 0.0).sum((0, 1))
        with torch.no_grad():
            unit_F = torch.ones_like(encoder.std) if self.units == "raw" else encoder.std
            absolute_K = ((predicted_BTF - target_BTF).abs() * unit_F).where(masked_BT1, 0.0).sum((0, 1))
        return Errors(huber_K, absolute_K, drawn.sum().to(absolute_K.dtype).expand_as(absolute_K))

    def shown(self, encoder: Encoder, h_BTD: Tensor, batch: Batch, drawn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        predicted_BTF = self.decoder(h_BTD).float()
        if self.units == "z":
            predicted_BTF = predicted_BTF * encoder.std + encoder.mean
        return predicted_BTF, batch.x_BTF, drawn[..., None].expand_as(predicted_BTF)

    def total(self, huber: Tensor) -> Tensor:
        if self.log_sigma is None:
            return huber
        # Projected, not clamped in the graph: a clamp would cut the gradient and log s could never come back.
        with torch.no_grad():
            self.log_sigma.clamp_(min=self.log_sigma_min)
        return huber / (2 * torch.exp(2 * self.log_sigma)) + self.log_sigma

    def sigma(self) -> float | None:
        return None if self.log_sigma is None else float(self.log_sigma.detach().exp())

    def fit_baselines(self, encoder: Encoder, batches: Iterable[Batch], generator: torch.Generator) -> None:
        self.ridge = Ridge()
        for batch in batches:
            drawn = self.draw(batch, generator)
            z_BTF = encoder.standardise(batch.x_BTF)
            self.ridge.add(neighbours(z_BTF, drawn), z_BTF[drawn])
        self.ridge.solve()

    def baseline_errors(self, encoder: Encoder, batch: Batch, drawn: Tensor) -> dict[str, Errors]:
        z_BTF = encoder.standardise(batch.x_BTF)
        predictions = {
            "feature mean": torch.zeros_like(z_BTF),
            "last visible": last_visible(z_BTF, drawn),
            "interpolation": interpolate(z_BTF, drawn),
            "ridge": torch.zeros_like(z_BTF).index_put((drawn,), self.ridge.predict(neighbours(z_BTF, drawn))),
        }
        if self.units == "raw":
            predictions = {name: z * encoder.std + encoder.mean for name, z in predictions.items()}
        return {name: self._errors(encoder, z, batch, drawn) for name, z in predictions.items()}


def build(config: ObjectiveConfig, names: tuple[str, ...], encoding_size: int) -> Masked:
    """Return the objective of a configuration."""
    assert config.mask_ratio is not None, "the configuration fills it in"
    return Masked(
        names,
        encoding_size,
        strategy=config.mask_strategy,
        ratio=config.mask_ratio,
        patch=config.mask_patch,
        hide=config.hide_masked,
        uncertainty=config.uncertainty,
        log_sigma_min=config.log_sigma_min,
        units=config.units,
        jitter_sigma=config.jitter_sigma,
    )
