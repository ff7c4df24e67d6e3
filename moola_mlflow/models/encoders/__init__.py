"""Encoders by name. A new encoder is one file in this folder with ``build``; the file names it."""

from __future__ import annotations

from collections.abc import Callable

from moola_mlflow.core import UserError, find_plugins, nearest_name
from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.encoders.bilstm import BiLSTM

__all__ = ["ENCODERS", "BiLSTM", "Encoder", "build_encoder"]

ENCODERS: dict[str, Callable[[int, int, int, float], Encoder]] = find_plugins(__name__, __path__, "build")
"""Constructors: (num_features, hidden, layers, dropout) -> encoder."""


def build_encoder(name: str, num_features: int, hidden: int, layers: int, dropout: float) -> Encoder:
    """Return a freshly initialised encoder of a registered architecture.

    Raises: UserError for an unknown name.
    """
    if name not in ENCODERS:
        raise UserError(
            f"encoder.name='{name}' is unknown{nearest_name(name, ENCODERS)} Allowed: {', '.join(ENCODERS)}"
        )
    return ENCODERS[name](num_features, hidden, layers, dropout)
