"""Encoders by name. A new encoder is one file with a subclass of Encoder and one row here."""

from __future__ import annotations

from collections.abc import Callable

from moola_mlflow.encoders.base import Encoder
from moola_mlflow.encoders.bilstm import BiLSTM
from moola_mlflow.errors import UserError, nearest

__all__ = ["ENCODERS", "BiLSTM", "Encoder", "build_encoder"]

ENCODERS: dict[str, Callable[[int, int, int, float], Encoder]] = {"bilstm": BiLSTM}
"""Constructors: (num_features, hidden, layers, dropout) -> encoder."""


def build_encoder(name: str, num_features: int, hidden: int, layers: int, dropout: float) -> Encoder:
    """Return a freshly initialised encoder of a registered architecture.

    Raises: UserError for an unknown name.
    """
    if name not in ENCODERS:
        raise UserError(f"encoder.name='{name}' is unknown{nearest(name, ENCODERS)} Allowed: {', '.join(ENCODERS)}")
    return ENCODERS[name](num_features, hidden, layers, dropout)
