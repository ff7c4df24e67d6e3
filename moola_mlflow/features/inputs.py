"""What an encoder reads at each step: relativity features, price-path features, or both side by side."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from moola_mlflow.core import UserError
from moola_mlflow.features.price_path import PRICE_PATH_FEATURE_NAMES, price_path_features
from moola_mlflow.features.relativity import compute_features, feature_names
from moola_mlflow.features.zigzag import Hybrid

EncoderInputs = Literal["features", "price_path", "both"]


def input_names(feature_set: str, inputs: str = "features") -> tuple[str, ...]:
    """Return the names of an encoder's inputs, in the order of the last axis.

    Raises: UserError for an unknown feature set or inputs.
    """
    if inputs not in get_args(EncoderInputs):
        raise UserError(f"encoder.inputs='{inputs}'; allowed: {', '.join(get_args(EncoderInputs))}")
    names = feature_names(feature_set) if inputs != "price_path" else ()
    return (*names, *(f"price_path_{name}" for name in (PRICE_PATH_FEATURE_NAMES if inputs != "features" else ())))


@dataclass(frozen=True)
class FeatureChoice:
    """A set of features, and the zigzag behind some of them: what a detector may read beside the encoding.

    Raises: UserError for an unknown set.
    """

    set: str
    hybrid: Hybrid

    def __post_init__(self) -> None:
        feature_names(self.set)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features, in the order of the last axis."""
        return feature_names(self.set)

    def compute(self, ohlc_NT4: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the features of raw windows. Shapes: [N, T, 4] -> float32 [N, T, F]."""
        return compute_features(ohlc_NT4, self.set, self.hybrid)

    def described(self) -> dict[str, Any]:
        """Return the choice as the cards of models hold it."""
        return {"set": self.set, "names": list(self.names), "hybrid": asdict(self.hybrid)}


def compute_inputs(
    ohlc_NT4: NDArray[np.float64], feature_set: str, hybrid: Hybrid, inputs: str = "features"
) -> NDArray[np.float32]:
    """Return an encoder's inputs of raw windows. Shapes: [N, T, 4] -> float32 [N, T, P]."""
    parts = []
    if inputs != "price_path":
        parts.append(compute_features(ohlc_NT4, feature_set, hybrid))
    if inputs != "features":
        parts.append(price_path_features(ohlc_NT4))
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
