"""Masked reconstruction: hide steps, encode the rest, and predict the hidden features with a linear decoder.

Shape legend: B windows, T steps, V valid steps (after warm-up), N blocks, C masked steps, F features, D encoding size,
K targets, here the F features.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from moola_mlflow.core import ObjectiveConfig
from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.objectives.base import Errors, Objective
from moola_mlflow.models.objectives.baselines import Ridge, interpolate, last_visible, neighbours
from moola_mlflow.windows import Batch

# Candle features describe one bar alone, the others the swing and volatility state of many bars. A state feature at a
# visible step is computed from bars that include hidden ones: its skill is partly algebra and is reported apart.
CANDLE = ("open_norm", "close_norm", "body_pct", "upper_wick_pct", "lower_wick_pct")


class Masked(Objective):
    """Reconstruction of masked steps.

    With ``hide_masked=False`` it is the published objective: the encoder sees the steps that it must reconstruct, so
    it learns to copy.
    """

    def __init__(self, names: tuple[str, ...], encoding_size: int, config: ObjectiveConfig | None = None) -> None:
        super().__init__()
        config = config or ObjectiveConfig()
        assert config.mask_ratio is not None, "the configuration fills it in"
        self.targets = names
        self.groups = {
            "candle": [i for i, name in enumerate(names) if name in CANDLE],
            "state": [i for i, name in enumerate(names) if name not in CANDLE],
        }
        self.block = config.mask_patch if config.mask_strategy == "patch" else 1
        self.ratio, self.hide, self.units = config.mask_ratio, config.hide_masked, config.units
        self.jitter_sigma, self.log_sigma_min = config.jitter_sigma, config.log_sigma_min
        self.identity, self.checks_leak = not self.hide, True
        self.decoder = nn.Linear(encoding_size, len(names))
        if self.hide:
            self.mask_token = nn.Parameter(torch.zeros(len(names)))
        self.log_sigma = nn.Parameter(torch.zeros(())) if config.uncertainty else None
        self.ridge = Ridge()

    def draw(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return a mask that hides exactly round(ratio * valid steps) steps of each window.

        Blocks of steps start at a random phase and are taken in random order until the count is reached. The last
        block may be cut short, at its start or at its end. Single steps are blocks of one.

        Shapes: mask_BT, True is hidden.
        """
        num_windows, num_steps, _ = batch.x_BTF.shape
        num_valid = num_steps - batch.warmup
        count = max(1, round(self.ratio * num_valid))
        device = generator.device
        phase_B1 = torch.randint(self.block, (num_windows, 1), generator=generator, device=device)
        block_BV = (torch.arange(num_valid, device=device) + phase_B1) // self.block
        score_BN = torch.rand(num_windows, num_valid // self.block + 2, generator=generator, device=device)
        order_BV = score_BN.gather(1, block_BV).argsort(dim=1, stable=True)
        hidden_BC = order_BV[:, :count]
        mirrored_B1 = torch.rand(num_windows, 1, generator=generator, device=device) < 0.5
        hidden_BC = torch.where(mirrored_B1, num_valid - 1 - hidden_BC, hidden_BC)
        mask_BT = torch.zeros(num_windows, num_steps, dtype=torch.bool, device=device)
        return mask_BT.scatter_(1, batch.warmup + hidden_BC, True).to(batch.x_BTF.device)

    def encoder_input(self, encoder: Encoder, batch: Batch, drawn: Tensor, generator: torch.Generator) -> Tensor:
        """Return z-scored features with noise, and the mask token at hidden steps. Shapes: [B, T, F]."""
        z_BTF = self.jittered(encoder.standardise(batch.x_BTF), self.jitter_sigma, generator)
        return torch.where(drawn[..., None], self.mask_token, z_BTF) if self.hide else z_BTF

    def errors(self, encoder: Encoder, h_BTD: Tensor, batch: Batch, drawn: Tensor) -> Errors:
        """Return the errors of the reconstruction at masked steps."""
        return self._errors(encoder, self.decoder(h_BTD).float(), batch, drawn)

    def _errors(self, encoder: Encoder, predicted_BTF: Tensor, batch: Batch, drawn: Tensor) -> Errors:
        """Compare predictions (in loss units) with the clean features, at masked steps alone.

        All steps are decoded. To decode only the masked ones, the host would have to wait for a GPU to count them.
        """
        target_BTF = batch.x_BTF if self.units == "raw" else encoder.standardise(batch.x_BTF)
        masked_BT1 = drawn[..., None]
        huber_BTF = functional.huber_loss(predicted_BTF, target_BTF, reduction="none", delta=1.0)
        huber_K = huber_BTF.where(masked_BT1, 0.0).sum((0, 1))
        with torch.no_grad():
            unit_F = torch.ones_like(encoder.std) if self.units == "raw" else encoder.std
            absolute_K = ((predicted_BTF - target_BTF).abs() * unit_F).where(masked_BT1, 0.0).sum((0, 1))
        return Errors(huber_K, absolute_K, drawn.sum().to(absolute_K.dtype).expand_as(absolute_K))

    def total(self, huber: Tensor) -> Tensor:
        """Return the loss: the Huber, or H / (2 s^2) + log s with the learned s."""
        if self.log_sigma is None:
            return huber
        # Projected, not clamped in the graph: a clamp would cut the gradient and log s could never come back.
        with torch.no_grad():
            self.log_sigma.clamp_(min=self.log_sigma_min)
        return huber / (2 * torch.exp(2 * self.log_sigma)) + self.log_sigma

    def sigma(self) -> float | None:
        """Return the learned s, or None without one."""
        return None if self.log_sigma is None else float(self.log_sigma.detach().exp())

    def shown(self, encoder: Encoder, h_BTD: Tensor, batch: Batch, drawn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return reconstruction, features (both raw) and masked steps, for pictures. Shapes: [B, T, F] each."""
        predicted_BTF = self.decoder(h_BTD).float()
        if self.units == "z":
            predicted_BTF = predicted_BTF * encoder.std + encoder.mean
        return predicted_BTF, batch.x_BTF, drawn[..., None].expand_as(predicted_BTF)

    def fit_baselines(self, encoder: Encoder, batches: Iterable[Batch], generator: torch.Generator) -> None:
        """Fit the ridge that predicts a hidden step from the visible steps next to it."""
        self.ridge = Ridge()
        for batch in batches:
            drawn = self.draw(batch, generator)
            z_BTF = encoder.standardise(batch.x_BTF)
            self.ridge.add(neighbours(z_BTF, drawn), z_BTF[drawn])
        self.ridge.solve()

    def baseline_errors(self, encoder: Encoder, batch: Batch, drawn: Tensor) -> dict[str, Errors]:
        """Return the errors of four predictions without a network, at the same masked steps."""
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
    return Masked(names, encoding_size, config)
