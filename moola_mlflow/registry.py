"""Registered models: log a version with its evidence, find one by URI, load it for further training or use."""

from __future__ import annotations

import importlib.metadata
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec

from moola_mlflow.detection import PatternDetector
from moola_mlflow.detector_files import DETECTOR_CARD, load_detector_folder
from moola_mlflow.encoder_files import CARD, load_from_path
from moola_mlflow.encoders import Encoder
from moola_mlflow.errors import UserError

PACKAGE = Path(__file__).resolve().parent
SERVED_REQUIREMENTS = ("torch", "numpy", "safetensors", "pydantic", "pyyaml", "mlflow")
CANDIDATE = "candidate"
PASSED = "passed"


def requirements(*further: str) -> list[str]:
    """Return the exact packages that a served model needs; inferring them would take minutes."""
    names = (*SERVED_REQUIREMENTS, *further)
    return [f"{name}=={importlib.metadata.version(name).split('+')[0]}" for name in names]


def log_encoder(name: str, folder: Path, card: dict[str, Any], tags: dict[str, str]) -> str:
    """Register an encoder folder as a new version with alias ``candidate``; return the version."""
    signature = ModelSignature(
        inputs=_windows(card),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, card["architecture"]["output_size"]))]),
        params=ParamSchema([ParamSpec("pool", DataType.string, "mean")]),
    )
    return _log("encoder", name, folder, signature, requirements(), tags)


def log_detector(name: str, folder: Path, card: dict[str, Any], tags: dict[str, str]) -> str:
    """Register a detector folder as a new version with alias ``candidate``; return the version.

    ``card`` is that of ``detector.json``, with ``classes`` and ``window``.
    """
    columns: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.string, "label"),
        *(ColSpec(DataType.double, f"p_{label}") for label in card["classes"]),
        ColSpec(DataType.long, "expansion_start"),
        ColSpec(DataType.long, "expansion_end"),
    ]
    signature = ModelSignature(inputs=_windows(card), outputs=Schema(columns))
    return _log("detector", name, folder, signature, requirements("pandas"), tags)


def _windows(card: dict[str, Any]) -> Schema:
    return Schema([TensorSpec(np.dtype(np.float64), (-1, card["window"]["length"], 4))])


def _log(
    kind: str, name: str, folder: Path, signature: ModelSignature, packages: Sequence[str], tags: dict[str, str]
) -> str:
    """The model is code plus safetensors: nothing in it is unpickled, and it loads outside the checkout."""
    with warnings.catch_warnings():
        # MLflow asks for an example of the input, which the signature describes already.
        warnings.filterwarnings("ignore", message=".*input example")
        info = mlflow.pyfunc.log_model(
            name=kind,
            python_model=str(PACKAGE / "served" / f"{kind}.py"),
            artifacts={kind: str(folder)},
            code_paths=[str(PACKAGE)],
            signature=signature,
            pip_requirements=list(packages),
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
    ``.pt`` checkpoint. An alias that was moved by hand to a version without passed gates warns.

    Raises: UserError where there is none.
    """
    with tempfile.TemporaryDirectory() as scratch:
        return load_from_path(_located("encoder", str(uri), CARD, ", a folder or a .pt checkpoint", Path(scratch)))


def load_detector(uri: str | Path) -> PatternDetector:
    """Return a detector with its card; ``predict`` takes raw OHLC windows.

    ``uri`` is ``models:/name@alias``, ``models:/name/version``, ``runs:/<id>/detector`` or a detector folder. An
    alias that was moved by hand to a version without passed gates warns.

    Raises: UserError where there is none.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = _located("detector", str(uri), DETECTOR_CARD, " or a folder", Path(scratch))
        return load_detector_folder(folder)


def _located(kind: str, uri: str, card: str, others: str, scratch: Path) -> Path:
    """Return the folder (or checkpoint) on disk that a URI names, fetched into ``scratch`` where it is in a store."""
    if not uri.startswith(("models:/", "runs:/")):
        path = Path(uri)
        if not path.exists():
            raise UserError(
                f"{kind} '{uri}' is not there; give models:/moola-{kind}@champion, models:/moola-{kind}/3, "
                f"runs:/<run id>/{kind}{others}"
            )
        return path
    _warn_of_hand_moved_alias(uri)
    try:
        local = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(scratch)))
    except (MlflowException, OSError) as e:
        raise UserError(f"{kind} '{uri}' cannot be fetched from '{mlflow.get_tracking_uri()}': {e}") from e
    if card == CARD and any(local.rglob(DETECTOR_CARD)):
        raise UserError(
            f"{kind} '{uri}' is a detector: the encoder in it may have been fitted to labels that you would score on; "
            "give the encoder that it was made from"
        )
    cards = sorted(local.rglob(card), key=lambda path: len(path.parts))  # an encoder inside of a detector lies deeper
    if not cards:
        raise UserError(f"'{uri}' holds no {card}; it is not one of this project's {kind}s")
    return cards[0].parent


def is_regular(version: ModelVersion) -> bool:
    """Return whether an alias may name a version: a promotion put it there, or it has passed its gates."""
    return "promoted_by" in version.tags or version.tags.get("gates", "").startswith(PASSED)


def _warn_of_hand_moved_alias(uri: str) -> None:
    """Warn where an alias names a version that no promotion put there and that has not passed its gates."""
    name, at, alias = uri.removeprefix("models:/").partition("@")
    if not uri.startswith("models:/") or not at or alias == CANDIDATE:
        return
    try:
        version = mlflow.MlflowClient().get_model_version_by_alias(name, alias)
    except MlflowException:
        return  # the download says what is wrong
    if not is_regular(version):
        warnings.warn(
            f"alias '{alias}' of {name} was moved by hand to version {version.version}, which has not passed its gates "
            f"({version.tags.get('gates', 'never evaluated')}); promote it: moola promote --model {name} "
            f"--version {version.version} --alias {alias}",
            stacklevel=4,
        )
