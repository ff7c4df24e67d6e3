"""Several encoders as one, for a detector that reads more than one pre-training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from moola_mlflow.models.encoders.base import Encoder


class Ensemble(Encoder):
    """Encoders side by side: their raw features in one input, their encodings in one output.

    Each member's features are z-scored by its own scaling. ``card`` holds the cards of the members, in order.

    Shapes: x [B, T, F1 + F2 + ...] -> h [B, T, D1 + D2 + ...].
    Raises: ValueError without a member.
    """

    def __init__(self, members: Sequence[Encoder]) -> None:
        if not members:
            raise ValueError("an ensemble needs one encoder or more")
        super().__init__(sum(member.input_size for member in members))
        self.members = nn.ModuleList(members)
        self.output_size = sum(member.output_size for member in members)
        self.card = {"members": [getattr(member, "card", {}) for member in members]}
        self.to(members[0].mean.device)
        super().set_scaling(torch.cat([member.mean for member in members]), torch.cat([m.std for m in members]))

    def set_scaling(self, mean_F: Tensor, std_F: Tensor) -> None:
        """Store mean and standard deviation here and in every member: each member is also saved on its own."""
        super().set_scaling(mean_F, std_F)
        sizes = [member.input_size for member in self.encoders()]
        for member, mean, std in zip(self.encoders(), mean_F.split(sizes), std_F.split(sizes), strict=True):
            member.set_scaling(mean, std)

    def encoders(self) -> list[Encoder]:
        """Return the members, in order."""
        return [member for member in self.members if isinstance(member, Encoder)]

    def encode(self, z_BTF: Tensor) -> Tensor:
        """Return the members' encodings side by side."""
        parts = z_BTF.split([member.input_size for member in self.encoders()], -1)
        return torch.cat([member.encode(z) for member, z in zip(self.encoders(), parts, strict=True)], -1)


def members_of(encoder: Encoder) -> list[Encoder]:
    """Return the members of an ensemble, or the encoder itself."""
    return encoder.encoders() if isinstance(encoder, Ensemble) else [encoder]
