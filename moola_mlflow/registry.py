"""Registered models: log a version with its evidence, find one by URI, load it for further training."""

from __future__ import annotations

import importlib.metadata
import warnings
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

from moola_mlflow.encoder_files import CARD, load_from_path
from moola_mlflow.encoders import Encoder
from moola_mlflow.errors import UserError

PACKAGE = Path(__file__).resolve().parent
SERVED_REQUIREMENTS = ("torch", "numpy", "safetensors", "pydantic", "pyyaml", "mlflow")
CANDIDATE = "candidate"


def requirements() -> list[str]:
    """Return the exact packages that a served model needs; inferring them would take minutes."""
    return [f"{name}=={importlib.metadata.version(name).split('+')[0]}" for name in SERVED_REQUIREMENTS]


def log_encoder(name: str, folder: Path, card: dict[str, Any], tags: dict[str, str]) -> str:
    """Register an encoder folder as a new version with alias ``candidate``; return the version.

    The model is code plus safetensors: nothing in it is unpickled, and it loads outside the checkout.
    """
    length, size = card["window"]["length"], card["architecture"]["output_size"]
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float64), (-1, length, 4))]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, size))]),
        params=ParamSchema([ParamSpec("pool", DataType.string, "mean")]),
    )
    with warnings.catch_warnings():
        # MLflow asks for type hints, which it would turn into a schema that refuses arrays, and for an example.
        warnings.filterwarnings("ignore", message=".*(Add type hints|input example)")
        info = mlflow.pyfunc.log_model(
            name="encoder",
            python_model=str(PACKAGE / "served" / "encoder.py"),
            artifacts={"encoder": str(folder)},
            code_paths=[str(PACKAGE)],
            signature=signature,
            pip_requirements=requirements(),
            registered_model_name=name,
        )
    version = str(info.registered_model_version)
    client = mlflow.MlflowClient()
    for key, value in tags.items():
        client.set_model_version_tag(name, version, key, str(value))
    client.set_registered_model_alias(name, CANDIDATE, version)
    return version


def load_encoder(uri: str | Path) -> Encoder:
    """Return a trainable encoder, in evaluation mode, with its card.

    ``uri`` is ``models:/name@alias``, ``models:/name/version``, ``runs:/<id>/encoder``, an encoder folder or a
    ``.pt`` checkpoint.

    Raises: UserError where there is none.
    """
    text = str(uri)
    if not text.startswith(("models:/", "runs:/")):
        path = Path(text)
        if not path.exists():
            raise UserError(
                f"encoder '{text}' is not there; give models:/moola-encoder@champion, models:/moola-encoder/3, "
                "runs:/<run id>/encoder, a folder or a .pt checkpoint"
            )
        return load_from_path(path)
    try:
        local = Path(mlflow.artifacts.download_artifacts(artifact_uri=text))
    except (MlflowException, OSError) as e:
        raise UserError(f"encoder '{text}' cannot be fetched from '{mlflow.get_tracking_uri()}': {e}") from e
    cards = sorted(local.rglob(CARD))
    if not cards:
        raise UserError(f"'{text}' holds no {CARD}; it is not an encoder of this project")
    return load_from_path(cards[0].parent)
