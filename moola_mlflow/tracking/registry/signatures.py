"""What a served model takes and gives, as MLflow declares it: columns of the answer and parameters of a request."""

from __future__ import annotations

from typing import Any

import numpy as np
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec

from moola_mlflow.core import DetectConfig
from moola_mlflow.models import EVENT_KIND, SCAN_PARAMETERS, detector_kind


def encoder_signature(card: dict[str, Any]) -> ModelSignature:
    """Return the signature of an encoder: windows in, an encoding out, ``pool`` as the parameter."""
    windows = TensorSpec(np.dtype(np.float64), (-1, card["window"]["length"], 4))
    encoding = TensorSpec(np.dtype(np.float32), (-1, card["architecture"]["output_size"]))
    parameters = ParamSchema([ParamSpec("pool", DataType.string, "mean")])
    return ModelSignature(inputs=Schema([windows]), outputs=Schema([encoding]), params=parameters)


def detector_signature(card: dict[str, Any]) -> ModelSignature:
    """Return the signature of a detector. The outputs are those for windows; a table of bars gives other columns.

    An event detector may say ``none``, and then has no span. There are no inputs: MLflow can declare windows or a
    table, and then refuses the other. The model checks both itself.
    """
    is_event = detector_kind(card) == EVENT_KIND
    names = [*card["classes"], *(["none"] if is_event else [])]
    columns: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.string, "label"),
        *(ColSpec(DataType.double, f"p_{name}") for name in names),
        ColSpec(DataType.long, "expansion_start", required=not is_event),
        ColSpec(DataType.long, "expansion_end", required=not is_event),
    ]
    options = DetectConfig().model_dump(include=set(SCAN_PARAMETERS))
    if is_event:
        options = {"min_score": float(card["threshold"]), "stride": options["stride"]}
    parameters = [
        ParamSpec(option, DataType.long if isinstance(default, int) else DataType.double, default)
        for option, default in options.items()
    ]
    parameters += [ParamSpec("timezone", DataType.string, "UTC"), ParamSpec("instrument", DataType.string, "all")]
    return ModelSignature(outputs=Schema(columns), params=ParamSchema(parameters))
