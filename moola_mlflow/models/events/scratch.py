"""An encoder that is trained from scratch together with the two nets of an event detector: a baseline.

The encoder starts from random weights. Both nets read its encoding, and their losses are added.

Shape legend: N windows, B windows of a batch, T steps, F raw features, D encoding size, K further inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from moola_mlflow.core import mixed_seed
from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.encoders.ensemble import members_of
from moola_mlflow.models.events.event_detector import EventPart
from moola_mlflow.models.events.event_targets import EventTargets
from moola_mlflow.models.events.fitting import EventInputs, EventSettings, train_event_net
from moola_mlflow.models.events.nets import NETS, EventNet, NetShape
from moola_mlflow.windows import fit_scaling

WEIGHTS = 54
CHUNK = 256


@dataclass(frozen=True)
class ScratchSettings:
    """How an encoder is trained from random weights."""

    lr: float = 1e-3
    precision: str = "fp32"
    """Of the encoder in training: with bf16 it takes a quarter less time. It is read in fp32."""


class ScratchNet(EventNet):
    """Nets on the encoding of an encoder that is trained with them, and on further inputs.

    Its belief is the mean of the nets' beliefs.

    Shapes: x [B, T, F + K]: the raw features of the encoder, then the further inputs.
    """

    def __init__(
        self, shape: NetShape, hidden: int, encoder: Encoder, nets: tuple[str, ...], how: ScratchSettings
    ) -> None:
        super().__init__(shape, hidden)
        self.encoder, self.how = encoder, how
        num_inputs = encoder.output_size + shape.num_inputs - encoder.input_size
        own = NetShape(num_inputs, shape.num_classes, shape.lengths, shape.num_steps, shape.max_events)
        self.nets = nn.ModuleList(NETS[name](own, hidden) for name in nets)

    def encoded(self, x_BTP: Tensor) -> Tensor:
        """Return what the nets read: the encoding, then the further inputs. Shapes: [B, T, D + K]."""
        num_features = self.encoder.input_size
        bf16 = self.training and self.how.precision == "bf16"
        with torch.autocast(x_BTP.device.type, torch.bfloat16, enabled=bf16):
            h_BTD = self.encoder(x_BTP[..., :num_features]).float()
        return torch.cat([h_BTD, x_BTP[..., num_features:]], -1)

    @torch.no_grad()
    def fit_scaling(self, x_BTP: Tensor) -> None:
        """Scale the features after the encoder's warm-up, and what the nets read of the untrained encoder."""
        warmup = max(member.card["window"]["warmup"] for member in members_of(self.encoder))
        features = x_BTP[..., : self.encoder.input_size].numpy(force=True)
        self.encoder.set_scaling(*fit_scaling(features, warmup))
        inputs = torch.cat([self.encoded(part) for part in x_BTP.split(CHUNK)])
        for net in self._nets():
            net.fit_scaling(inputs)

    def read(self, x_BTP: Tensor) -> tuple[Tensor, Tensor | None]:
        inputs = self.encoded(x_BTP)
        beliefs, counts = zip(*(net.read(inputs) for net in self._nets()), strict=True)
        counted = [events for events in counts if events is not None]
        return torch.stack(beliefs).mean(0), torch.stack(counted).mean(0) if counted else None

    def loss(self, x_BTP: Tensor, targets: EventTargets) -> Tensor:
        """Return the sum of the nets' losses."""
        inputs = self.encoded(x_BTP)
        return torch.stack([net.loss(inputs, targets) for net in self._nets()]).sum()

    def learning_rates(self, lr: float) -> list[tuple[list[nn.Parameter], float]]:
        return [(list(self.encoder.parameters()), self.how.lr), (list(self.nets.parameters()), lr)]

    def _nets(self) -> list[EventNet]:
        return [net for net in self.nets if isinstance(net, EventNet)]


def fit_scratch(
    encoder: Encoder,
    inputs: EventInputs,
    targets: EventTargets,
    index: np.ndarray,
    settings: EventSettings,
    seed: int,
    how: ScratchSettings,
) -> EventPart:
    """Train an encoder and its nets on the windows of ``index``. The encoder is changed: give one with random weights.

    Shapes: inputs [N, T, F + K], index [M]. Raises: TrainingError if the loss is not finite.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mixed_seed(seed, WEIGHTS))
        num_steps, num_inputs = inputs.values.shape[1:]
        shape = NetShape(num_inputs, targets.num_classes, targets.lengths, num_steps, targets.max_events)
        net = ScratchNet(shape, settings.hidden, encoder, settings.nets, how)
        index_N = torch.as_tensor(index)
        net.eval()
        net.fit_scaling(inputs.values[index_N])
        train_event_net(net, inputs, targets, index_N, settings, seed)
    return EventPart(net, (0, num_inputs), 1.0)
