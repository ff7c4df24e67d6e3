"""The detector as MLflow serves it: raw OHLC windows in, one row of findings a window out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

from moola_mlflow.detector_files import load_detector_folder
from moola_mlflow.served.refusal import bad_request


class ServedDetector(PythonModel):
    """Shapes: float64 [N, T, 4] -> N rows: label, p_<class> of each class, expansion_start, expansion_end."""

    def load_context(self, context: PythonModelContext) -> None:
        self.detector = load_detector_folder(Path(context.artifacts["detector"]))

    # An array is the one hint that MLflow neither turns into a schema of its own nor asks to be replaced.
    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        with bad_request():
            found = self.detector.predict(model_input)
        columns = {f"p_{name}": found.probability[:, i] for i, name in enumerate(self.detector.classes)}
        return pd.DataFrame(
            {"label": found.label, **columns, "expansion_start": found.start, "expansion_end": found.end}
        )


mlflow.models.set_model(ServedDetector())
