"""The encoder as MLflow serves it: raw OHLC windows in, embeddings out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.pyfunc import PythonModel, PythonModelContext

from moola_mlflow.embedding import embed
from moola_mlflow.encoder_files import load_from_path


class ServedEncoder(PythonModel):
    """Shapes: float64 [N, T, 4] -> float32 [N, D]; parameter ``pool`` = mean, last or none ([N, T, D])."""

    def load_context(self, context: PythonModelContext) -> None:
        self.encoder = load_from_path(Path(context.artifacts["encoder"]))

    # No type hint on model_input: MLflow would turn it into a schema of its own and reject arrays.
    def predict(self, context: PythonModelContext, model_input, params: dict[str, Any] | None = None) -> np.ndarray:  # type: ignore[no-untyped-def]
        return embed(self.encoder, model_input, (params or {}).get("pool", "mean")).numpy()


mlflow.models.set_model(ServedEncoder())
