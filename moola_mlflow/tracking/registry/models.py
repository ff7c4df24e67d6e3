"""Registered models: log a version with its evidence, find one by URI, load it for further training or use."""

from __future__ import annotations

import importlib.metadata
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec

from moola_mlflow.core import DetectConfig, UserError, nearest_name, printable, undisturbed
from moola_mlflow.models import (
    DETECTOR_CARD,
    ENCODER_CARD,
    SCAN_PARAMETERS,
    Encoder,
    PatternDetector,
    load_detector_folder,
    load_from_path,
)
from moola_mlflow.tracking import ui
from moola_mlflow.tracking.names import Tags, VersionTags
from moola_mlflow.tracking.registry.lineage import model_id_of
from moola_mlflow.tracking.store import shown_uri

PACKAGE = Path(__file__).resolve().parents[2]
SERVED_REQUIREMENTS = ("torch", "numpy", "safetensors", "pydantic", "pyyaml", "mlflow")
CANDIDATE = "candidate"
PASSED = "passed"
KIND = VersionTags.KIND
"""Tag of a version: encoder or detector."""
EVENT_TAG = Tags.EVENT
"""Tag of what an event of a run's journal has made: it is looked for before another one is made."""
BAR = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"


def requirements(*further: str) -> list[str]:
    """Return the exact packages that a served model needs; inferring them would take minutes."""
    names = (*SERVED_REQUIREMENTS, *further)
    return [f"{name}=={importlib.metadata.version(name).split('+')[0]}" for name in names]


def log_encoder(name: str, folder: Path, card: dict[str, Any], tags: dict[str, str], key: str = "") -> str:
    """Register an encoder folder as a new version with alias ``candidate``; return the version.

    A second call with an equal ``key`` makes no second version.
    """
    signature = ModelSignature(
        inputs=_windows(card),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, card["architecture"]["output_size"]))]),
        params=ParamSchema([ParamSpec("pool", DataType.string, "mean")]),
    )
    return _log("encoder", name, folder, signature, requirements(), tags, key)


def log_detector(name: str, folder: Path, card: dict[str, Any], tags: dict[str, str], key: str = "") -> str:
    """Register a detector folder as a new version with alias ``candidate``; return the version.

    ``card`` is that of ``detector.json``, with ``classes`` and ``window``. The outputs are those of windows; of a table
    of bars they are the columns of ``scan.COLUMNS``, for which the parameters are.
    """
    columns: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.string, "label"),
        *(ColSpec(DataType.double, f"p_{label}") for label in card["classes"]),
        ColSpec(DataType.long, "expansion_start"),
        ColSpec(DataType.long, "expansion_end"),
    ]
    # No inputs: MLflow can declare windows or a table, and would refuse the other. The model checks both itself.
    parameters = [
        ParamSpec(option, DataType.long if isinstance(default, int) else DataType.double, default)
        for option, default in DetectConfig().model_dump(include=set(SCAN_PARAMETERS)).items()
    ]
    signature = ModelSignature(outputs=Schema(columns), params=ParamSchema(parameters))
    return _log("detector", name, folder, signature, requirements("pandas", "pyarrow"), tags, key)


def _windows(card: dict[str, Any]) -> Schema:
    return Schema([TensorSpec(np.dtype(np.float64), (-1, card["window"]["length"], 4))])


def _log(
    kind: str,
    name: str,
    folder: Path,
    signature: ModelSignature,
    packages: Sequence[str],
    tags: dict[str, str],
    key: str,
) -> str:
    """The model is code plus safetensors: nothing in it is unpickled, and it loads outside the checkout.

    A version is made with its tags in one request: there is none without its evidence, whatever breaks in between. The
    alias follows undisturbed, so that ``candidate`` is the newest version or, after a crash, the one before.
    """
    check_registry_kind(name, kind)
    complete = {KIND: kind, **{tag: str(value) for tag, value in tags.items()}, **({EVENT_TAG: key} if key else {})}
    there = _versions(name, key)
    uri = _logged(key) or (_log_model(kind, folder, signature, packages, key) if not there else "")
    client = mlflow.MlflowClient()
    with undisturbed():
        version = there[0] if there else str(mlflow.register_model(uri, name, tags=complete).version)
        for double in _versions(name, key):  # a request whose answer was lost is sent again, by MLflow too
            if double != version:
                client.delete_model_version(name, double)
        client.set_registered_model_alias(name, CANDIDATE, version)
        ui.describe(client, kind, name, version, complete)
    return version


def _log_model(kind: str, folder: Path, signature: ModelSignature, packages: Sequence[str], key: str) -> str:
    """Log a model to the active run and return its URI."""
    with warnings.catch_warnings():
        # MLflow asks for an example of the input, which the signature describes already.
        warnings.filterwarnings("ignore", message=".*input example")
        info = mlflow.pyfunc.log_model(
            name=kind,
            python_model=str(PACKAGE / "serving" / f"{kind}.py"),
            artifacts={kind: str(folder)},
            code_paths=[str(PACKAGE)],
            signature=signature,
            pip_requirements=list(packages),
            tags={EVENT_TAG: key} if key else None,
        )
    return str(info.model_uri)


def _versions(name: str, key: str) -> list[str]:
    """Return the versions that an event has made, the first one first."""
    if not key:
        return []
    wanted = f"name = {_quoted(name)} and tags.`{EVENT_TAG}` = '{key}'"
    return sorted((str(found.version) for found in mlflow.MlflowClient().search_model_versions(wanted)), key=int)


def _logged(key: str) -> str:
    """Return the URI of the whole model that an event has logged to the active run; halves of it are deleted."""
    run = mlflow.active_run()
    if not key or run is None:
        return ""
    client = mlflow.MlflowClient()
    for model in client.search_logged_models([run.info.experiment_id], f"tags.`{EVENT_TAG}` = '{key}'"):
        if model.status == mlflow.entities.LoggedModelStatus.READY:
            return str(model.model_uri)
        client.delete_logged_model(model.model_id)
    return ""


def check_registry_kind(name: str, kind: str) -> None:
    """Refuse to register an encoder under a name that holds detectors, or the other way round.

    Raises: UserError: whoever loads that name's newest version would get another kind of model.
    """
    held = _kind_of(name)
    if name != "none" and held not in (None, kind):
        raise UserError(
            f"registry.name='{name}' holds {held}s, and this is {'an' if kind == 'encoder' else 'a'} {kind}; give "
            f"another name, such as register=moola-{kind}"
        )


def _kind_of(name: str) -> str | None:
    """Return what a registered name holds, None where there is no version or it does not say."""
    client = mlflow.MlflowClient()
    try:
        newest = client.search_model_versions(f"name = {_quoted(name)}", max_results=1)
    except MlflowException:
        return None
    if not newest:
        return None
    version = newest[0]
    if KIND in version.tags:
        return version.tags[KIND]
    try:  # made before versions had the tag: the logged model is called after its kind
        model_id = model_id_of(version)
        called = client.get_logged_model(model_id).name if model_id else None
    except MlflowException:
        return None
    return called if called in ("encoder", "detector") else None


def _quoted(name: str) -> str:
    return f'"{name}"' if "'" in name else f"'{name}'"


def load_encoder(uri: str | Path) -> Encoder:
    """Return a trainable encoder, in evaluation mode, with its card.

    ``uri`` is ``models:/name@alias``, ``models:/name/version``, ``runs:/<id>/encoder``, an encoder folder or a
    ``.pt`` checkpoint. An alias that was moved by hand to a version without passed gates warns.

    Raises: UserError where there is none.
    """
    with tempfile.TemporaryDirectory() as scratch:
        return load_from_path(
            _located("encoder", str(uri), ENCODER_CARD, ", a folder or a .pt checkpoint", Path(scratch))
        )


def load_encoders(text: str) -> list[tuple[str, Encoder]]:
    """Return the encoders named in a text, separated by commas, with their names; none for an empty one.

    Raises: UserError where one is not there or is named twice.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if len(set(names)) < len(names):
        raise UserError(f"finetune.encoder='{text}' names an encoder twice; an ensemble needs different ones")
    encoders = [(name, load_encoder(name)) for name in names]
    known: dict[str, str] = {}
    for name, encoder in encoders:
        model_id = encoder.card.get("model_id")
        if model_id in known:
            raise UserError(f"finetune.encoder: '{known[model_id]}' and '{name}' are one encoder; give different ones")
        if model_id:
            known[model_id] = name
    return encoders


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
    _check_alias(uri)
    try:
        with without_progress_bar():
            local = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(scratch)))
    except (MlflowException, OSError) as e:
        raise UserError(
            f"{kind} '{uri}' cannot be fetched from '{shown_uri()}': {printable(str(e))}{_similar(uri)}"
        ) from e
    if card == ENCODER_CARD and any(local.rglob(DETECTOR_CARD)):
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
    return VersionTags.PROMOTED_BY in version.tags or version.tags.get(VersionTags.GATES, "").startswith(PASSED)


@contextmanager
def without_progress_bar() -> Iterator[None]:
    """Fetch without MLflow's progress bars, unless the user has asked for them."""
    if BAR in os.environ:
        yield
        return
    os.environ[BAR] = "false"
    try:
        yield
    finally:
        os.environ.pop(BAR, None)


def _similar(uri: str) -> str:
    """Return the registered name, or of a known name the alias or version, that a ``models:/`` URI may have meant."""
    if not uri.startswith("models:/"):
        return ""
    name, _, alias = uri.removeprefix("models:/").partition("@")
    name, _, number = name.partition("/")
    client = mlflow.MlflowClient()
    try:
        names = [model.name for model in client.search_registered_models(max_results=1000)]
        if name not in names:
            return f"{nearest_name(name, names)} Registered: {', '.join(names[:20]) or 'none'}"
        aliases = sorted(client.get_registered_model(name).aliases)
        versions = [str(v.version) for v in client.search_model_versions(f"name = {_quoted(name)}")]
    except MlflowException:
        return ""
    there = f"{name} has versions {', '.join(sorted(versions, key=int)) or 'none'} and aliases {', '.join(aliases)}"
    return f"{nearest_name(alias or number, [*aliases, *versions])} {there}"


def check_version_whole(version: ModelVersion, alias: str) -> None:
    """Refuse a version that was made without its evidence. Raises: UserError with the cure."""
    if not version.tags:
        raise UserError(
            f"version {version.version} of {version.name}, which alias '{alias}' names, has no tags: its registration "
            "was interrupted, or another program made it; register anew with `moola pretrain` or `moola finetune`, or "
            "name another version"
        )


def _check_alias(uri: str) -> None:
    """Warn where an alias names a version that no promotion put there and that has not passed its gates.

    Raises: UserError where ``candidate`` names a half-made version.
    """
    name, at, alias = uri.removeprefix("models:/").partition("@")
    if not uri.startswith("models:/") or not at:
        return
    try:
        version = mlflow.MlflowClient().get_model_version_by_alias(name, alias)
    except MlflowException:
        return  # the download says what is wrong
    if alias == CANDIDATE:
        check_version_whole(version, alias)
        return
    if not is_regular(version):
        warnings.warn(
            f"alias '{alias}' of {name} was moved by hand to version {version.version}, which has not passed its gates "
            f"({version.tags.get(VersionTags.GATES, 'never evaluated')}); promote it: moola promote --model {name} "
            f"--version {version.version} --alias {alias}",
            stacklevel=4,
        )
