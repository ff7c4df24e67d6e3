"""Price path: predict from each step's encoding where the price came from and where it goes. Nothing is hidden.

The encoder reads both directions, so it can know the coming path. It must keep the path in the encoding, which the
reconstruction of candle shapes lets it forget.

Shape legend: B windows, T steps, F features, D encoding size, K targets, P inputs of the ridge.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from moola_mlflow.core import ObjectiveConfig
from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.objectives.base import Errors, Objective
from moola_mlflow.models.objectives.baselines import Ridge, window_around
from moola_mlflow.windows import Batch

HORIZONS = (5, 10, 20)
EXTREME = 20
# A random walk's expected excursion over 20 bars, in bar ranges: it brings extremes to the size of net moves.
EXTREME_SCALE = 4.5
CLIP = 6.0
TARGETS = (
    *(f"net_past_{k}" for k in HORIZONS),
    *(f"net_next_{k}" for k in HORIZONS),
    *(f"{side}_{when}_{EXTREME}" for when in ("past", "next") for side in ("high", "low")),
)


def median_range(prices_BT4: Tensor) -> Tensor:
    """Return each window's median bar range r; the mean range if that is 0, NaN if both are. Shapes: [B, 1]."""
    range_BT = prices_BT4[..., 1] - prices_BT4[..., 2]
    # Not torch.median: for an even number of bars it returns the lower of the two in the middle.
    r_B1 = range_BT.quantile(0.5, dim=1, keepdim=True)
    r_B1 = torch.where(r_B1 > 0, r_B1, range_BT.mean(1, keepdim=True))
    return torch.where(r_B1 > 0, r_B1, torch.full_like(r_B1, torch.nan))


def path_targets(prices_BT4: Tensor) -> Tensor:
    """Return ten summaries of the price path around each step, NaN if the horizon leaves the window.

    The last 20 bars include the step's own, the next 20 do not.

    Shapes: [B, T, 4] -> [B, T, 10].
    Units: the window's median bar range; net moves are divided by the square root of their bars.
    """
    _, high_BT, low_BT, close_BT = prices_BT4.unbind(-1)
    r_B1 = median_range(prices_BT4)
    past = [(close_BT - shifted(close_BT, -k)) / (r_B1 * k**0.5) for k in HORIZONS]
    following = [(shifted(close_BT, k) - close_BT) / (r_B1 * k**0.5) for k in HORIZONS]
    highest_BT, lowest_BT = running_max(high_BT, EXTREME), -running_max(-low_BT, EXTREME)
    extremes = [highest_BT, lowest_BT, shifted(highest_BT, EXTREME), shifted(lowest_BT, EXTREME)]
    scaled = [(extreme - close_BT) / (EXTREME_SCALE * r_B1) for extreme in extremes]
    return torch.stack([*past, *following, *scaled], dim=-1)


def shifted(x_BT: Tensor, k: int) -> Tensor:
    """Return the value ``k`` steps later (earlier for k < 0), NaN outside the window. Shapes: [B, T]."""
    out_BT = torch.full_like(x_BT, torch.nan)
    num_steps = x_BT.shape[1]
    if abs(k) < num_steps:
        out_BT[:, max(0, -k) : num_steps - max(0, k)] = x_BT[:, max(0, k) : num_steps - max(0, -k)]
    return out_BT


def running_max(x_BT: Tensor, k: int) -> Tensor:
    """Return the maximum of the last ``k`` steps, the step itself included; NaN if there are fewer. Shapes: [B, T]."""
    out_BT = torch.full_like(x_BT, torch.nan)
    if k <= x_BT.shape[1]:
        out_BT[:, k - 1 :] = x_BT.unfold(1, k, 1).amax(-1)
    return out_BT


class PricePath(Objective):
    """Prediction of ten path summaries, z-scored on training windows and clipped at 6. Missing ones do not count."""

    mean: Tensor
    std: Tensor

    def __init__(self, encoding_size: int, jitter_sigma: float = 0.03) -> None:
        super().__init__()
        self.targets = TARGETS
        self.groups = {
            "past": [i for i, name in enumerate(TARGETS) if "past" in name],
            "future": [i for i, name in enumerate(TARGETS) if "next" in name],
        }
        self.jitter_sigma = jitter_sigma
        self.decoder = nn.Linear(encoding_size, len(TARGETS))
        self.register_buffer("mean", torch.zeros(len(TARGETS)))
        self.register_buffer("std", torch.ones(len(TARGETS)))
        self.ridges = [Ridge() for _ in TARGETS]

    def draw(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return an empty mask: nothing is hidden. Shapes: mask_BT."""
        return torch.zeros(batch.x_BTF.shape[:2], dtype=torch.bool, device=batch.x_BTF.device)

    def encoder_input(self, encoder: Encoder, batch: Batch, drawn: Tensor, generator: torch.Generator) -> Tensor:
        """Return z-scored features with noise. Shapes: [B, T, F]."""
        return self.jittered(encoder.standardise(batch.x_BTF), self.jitter_sigma, generator)

    def _targets(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return z-scored, clipped targets (0 if missing), and whether each is there. Shapes: [B, T, K] each."""
        y_BTK = path_targets(batch.prices_BT4)
        there_BTK = y_BTK.isfinite() & batch.valid_T()[:, None]
        z_BTK = ((y_BTK.float() - self.mean) / self.std).clamp(-CLIP, CLIP)
        return torch.where(there_BTK, z_BTK, torch.zeros_like(z_BTK)), there_BTK

    def errors(self, encoder: Encoder, h_BTD: Tensor, batch: Batch, drawn: Tensor) -> Errors:
        """Return the errors of the predicted path summaries."""
        return self._errors(self.decoder(h_BTD).float(), *self._targets(batch))

    def _errors(self, predicted_BTK: Tensor, target_BTK: Tensor, there_BTK: Tensor) -> Errors:
        huber_BTK = functional.huber_loss(predicted_BTK, target_BTK, reduction="none", delta=1.0)
        with torch.no_grad():
            absolute_BTK = (predicted_BTK - target_BTK).abs() * self.std
        parts = (huber_BTK * there_BTK, absolute_BTK * there_BTK, there_BTK.to(huber_BTK.dtype))
        return Errors(*(part_BTK.sum((0, 1)) for part_BTK in parts))

    def shown(self, encoder: Encoder, h_BTD: Tensor, batch: Batch, drawn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return predictions, targets and where there are any, for pictures. Shapes: [B, T, K] each."""
        target_BTK, there_BTK = self._targets(batch)
        predicted_BTK = self.decoder(h_BTD).float()
        return predicted_BTK * self.std + self.mean, target_BTK * self.std + self.mean, there_BTK

    def fit_targets(self, batches: Iterable[Batch]) -> None:
        """Fit the targets' mean and standard deviation."""
        count_K, sum_K, square_K = (torch.zeros(len(TARGETS), dtype=torch.float64) for _ in range(3))
        for batch in batches:
            y_BTK = path_targets(batch.prices_BT4).cpu()[:, batch.warmup :].double()  # on the CPU: MPS has no float64
            there_BTK = y_BTK.isfinite()
            y_BTK = torch.where(there_BTK, y_BTK, torch.zeros_like(y_BTK))
            count_K += there_BTK.sum((0, 1))
            sum_K += y_BTK.sum((0, 1))
            square_K += y_BTK.square().sum((0, 1))
        mean_K = sum_K / count_K.clamp(min=1)
        variance_K = (square_K / count_K.clamp(min=1) - mean_K.square()).clamp(min=0)
        self.mean.copy_(mean_K)
        self.std.copy_(torch.where(variance_K > 0, variance_K.sqrt(), torch.ones_like(variance_K)))

    def fit_baselines(self, encoder: Encoder, batches: Iterable[Batch], generator: torch.Generator) -> None:
        """Fit a ridge for each target that reads the step's features and those of its neighbours."""
        self.ridges = [Ridge() for _ in TARGETS]
        for batch in batches:
            x_BTP = window_around(encoder.standardise(batch.x_BTF))
            target_BTK, there_BTK = self._targets(batch)
            for k, ridge in enumerate(self.ridges):
                ridge.add(x_BTP[there_BTK[..., k]], target_BTK[..., k][there_BTK[..., k]][:, None])
        for ridge in self.ridges:
            ridge.solve()

    def baseline_errors(self, encoder: Encoder, batch: Batch, drawn: Tensor) -> dict[str, Errors]:
        """Return the errors of the targets' mean and of the ridges."""
        target_BTK, there_BTK = self._targets(batch)
        x_BTP = window_around(encoder.standardise(batch.x_BTF))
        ridge_BTK = torch.cat([ridge.predict(x_BTP.flatten(0, 1)) for ridge in self.ridges], dim=-1)
        predictions = {"target mean": torch.zeros_like(target_BTK), "ridge": ridge_BTK.view_as(target_BTK)}
        return {name: self._errors(z, target_BTK, there_BTK) for name, z in predictions.items()}


def build(config: ObjectiveConfig, names: tuple[str, ...], encoding_size: int) -> PricePath:
    """Return the objective of a configuration."""
    return PricePath(encoding_size, config.jitter_sigma)
