"""The encoder as MLflow serves it: raw OHLC windows in, embeddings out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.pyfunc import PythonModel, PythonModelContext

from moola_mlflow.models import embed, load_from_path
from moola_mlflow.serving.refusal import bad_request


class ServedEncoder(PythonModel):
    """Embed windows.

    Shapes: float64 [N, T, 4] -> float32 [N, D]. With parameter ``pool`` = none: [N, T, D]; mean and last give [N, D].
    """

    def load_context(self, context: PythonModelContext) -> None:
        self.encoder = load_from_path(Path(context.artifacts["encoder"]))

    # np.ndarray is the one type hint that MLflow neither turns into a schema nor asks to replace.
    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> np.ndarray:
        with bad_request():
            return embed(self.encoder, model_input, (params or {}).get("pool", "mean")).numpy()


mlflow.models.set_model(ServedEncoder())
