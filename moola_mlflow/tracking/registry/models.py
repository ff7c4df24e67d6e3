"""Registered models: register a version with its evidence, find one by its URI, load it to train or use it."""

from __future__ import annotations

import importlib.metadata
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature

from moola_mlflow.core import UserError, nearest_name, printable, undisturbed
from moola_mlflow.models import (
    DETECTOR_CARD,
    ENCODER_CARD,
    Encoder,
    EventDetector,
    PatternDetector,
    load_any_detector_folder,
    load_from_path,
)
from moola_mlflow.tracking import ui
from moola_mlflow.tracking.addresses import need_store
from moola_mlflow.tracking.artifact_places import no_local_artifacts
from moola_mlflow.tracking.names import Tags, VersionTags
from moola_mlflow.tracking.registry.lineage import model_id_of
from moola_mlflow.tracking.registry.signatures import detector_signature, encoder_signature
from moola_mlflow.tracking.store import shown_uri

PACKAGE = Path(__file__).resolve().parents[2]
SERVED_REQUIREMENTS = ("torch", "numpy", "safetensors", "pydantic", "pyyaml", "mlflow")
CANDIDATE = "candidate"
PASSED = "passed"
MODELS = "models:/"
WEIGHTS = "artifacts"
"""Folder of a logged model that MLflow puts our files into."""
DOWNLOADS = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # MLflow 3.17 fetches files of a server's bucket from the bucket itself. A machine that cannot reach it waits for
    # minutes at each file, and then fails.
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
}
"""Variables of MLflow for a download."""


def requirements(*further: str) -> list[str]:
    """Return the exact packages that a served model needs. Letting MLflow infer them takes minutes."""
    names = (*SERVED_REQUIREMENTS, *further)
    return [f"{name}=={importlib.metadata.version(name).split('+')[0]}" for name in names]


def log_encoder(
    name: str, folder: Path, card: dict[str, Any], tags: dict[str, str], key: str = "", name_it: bool = True
) -> str:
    """Register an encoder folder as a new version, and return the version.

    A second call with the same ``key`` makes no second version. ``name_it``: move alias ``candidate`` to it.
    """
    return _log(_Kind("encoder", encoder_signature(card), requirements()), name, folder, tags, key, name_it)


def log_detector(
    name: str, folder: Path, card: dict[str, Any], tags: dict[str, str], key: str = "", name_it: bool = True
) -> str:
    """Register a detector folder as a new version, and return the version. ``name_it``: move alias ``candidate`` to it.

    ``card``: the content of ``detector.json``, with ``classes`` and ``window``.
    """
    kind = _Kind("detector", detector_signature(card), requirements("pandas", "pyarrow"))
    return _log(kind, name, folder, tags, key, name_it)


class _Kind(NamedTuple):
    """What a model is, and what it takes to serve it."""

    name: str
    signature: ModelSignature
    packages: Sequence[str]


def _log(kind: _Kind, name: str, folder: Path, tags: dict[str, str], key: str, name_it: bool) -> str:
    """Log a model to the active run and register it. It is code plus safetensors, without any pickle.

    One request makes the version with its tags, so no version lacks its evidence, whatever fails in between. No
    interruption comes between version and alias. After a crash ``candidate`` names the version before.
    """
    check_registry_kind(name, kind.name)
    complete = {**{tag: str(value) for tag, value in tags.items()}, VersionTags.KIND: kind.name}
    if key:
        complete[VersionTags.EVENT] = key
    made_before = _versions_of_event(name, key)
    with no_local_artifacts(folder):
        uri = _logged_before(key) or (_log_model(kind, folder, key) if not made_before else "")
    client = mlflow.MlflowClient()
    with undisturbed():
        version = made_before[0] if made_before else str(mlflow.register_model(uri, name, tags=complete).version)
        for duplicate in _versions_of_event(name, key):  # MLflow repeats a request whose answer was lost
            if duplicate != version:
                client.delete_model_version(name, duplicate)
        if name_it:
            before = client.get_registered_model(name).aliases.get(CANDIDATE)
            client.set_registered_model_alias(name, CANDIDATE, version)
            print(_said(name, str(before or ""), version, complete.get(VersionTags.GATES, "")), flush=True)
        ui.describe(client, kind.name, name, version, complete)
    return version


def _said(name: str, before: str, version: str, gates: str) -> str:
    """Return the line that says where alias ``candidate`` has moved, and whether the gates were met."""
    moved = f"moved from version {before} to version {version}" if before else f"is now version {version}, it was unset"
    if before == version:
        moved = f"is version {version} already"
    met = f"its gates were met ({gates})" if gates.startswith(PASSED) else f"its gates were not met ({gates})"
    return f"{name}: {CANDIDATE} {moved}; {met if gates else 'its gates were not evaluated'}"


def _log_model(kind: _Kind, folder: Path, key: str) -> str:
    """Log a model to the active run and return its URI."""
    with warnings.catch_warnings():
        # MLflow asks for an input example; the signature already describes the input.
        warnings.filterwarnings("ignore", message=".*input example")
        info = mlflow.pyfunc.log_model(
            name=kind.name,
            python_model=str(PACKAGE / "serving" / f"{kind.name}.py"),
            artifacts={kind.name: str(folder)},
            code_paths=[str(PACKAGE)],
            signature=kind.signature,
            pip_requirements=list(kind.packages),
            tags={Tags.EVENT: key} if key else None,
        )
    return str(info.model_uri)


def is_registered(name: str, key: str) -> bool:
    """Return whether a registered name has a version that an event has made."""
    return bool(_versions_of_event(name, key))


def _versions_of_event(name: str, key: str) -> list[str]:
    """Return the versions that an event has made, oldest first."""
    if not key:
        return []
    wanted = f"name = {_quoted(name)} and tags.`{VersionTags.EVENT}` = '{key}'"
    return sorted((str(found.version) for found in mlflow.MlflowClient().search_model_versions(wanted)), key=int)


def _logged_before(key: str) -> str:
    """Return the URI of the model that an event has logged to the active run, else ''. Delete unfinished ones."""
    run = mlflow.active_run()
    if not key or run is None:
        return ""
    client = mlflow.MlflowClient()
    for model in client.search_logged_models([run.info.experiment_id], f"tags.`{Tags.EVENT}` = '{key}'"):
        if model.status == mlflow.entities.LoggedModelStatus.READY:
            return str(model.model_uri)
        client.delete_logged_model(model.model_id)
    return ""


def check_registry_kind(name: str, kind: str) -> None:
    """Refuse to register an encoder under a name that holds detectors, or a detector under one that holds encoders.

    Raises: UserError, because a user who loads the newest version would get another kind of model.
    """
    if name == "none":  # nothing will be registered, so there is no store to ask
        return
    held = _kind_of(name)
    if name != "none" and held not in (None, kind):
        raise UserError(
            f"registry.name='{name}' holds {held}s, and this is {'an' if kind == 'encoder' else 'a'} {kind}; give "
            f"another name, such as register=moola-{kind}"
        )


def _kind_of(name: str) -> str | None:
    """Return which kind of model a registered name holds, None without a version that says it."""
    client = mlflow.MlflowClient()
    try:
        newest = client.search_model_versions(f"name = {_quoted(name)}", max_results=1)
    except MlflowException:
        return None
    if not newest:
        return None
    version = newest[0]
    if VersionTags.KIND in version.tags:
        return version.tags[VersionTags.KIND]
    try:  # early versions lack the tag, but the logged model's name is its kind
        model_id = model_id_of(version)
        logged_name = client.get_logged_model(model_id).name if model_id else None
    except MlflowException:
        return None
    return logged_name if logged_name in ("encoder", "detector") else None


def _quoted(name: str) -> str:
    return f'"{name}"' if "'" in name else f"'{name}'"


def load_encoder(uri: str | Path) -> Encoder:
    """Load a trained encoder, in evaluation mode and ready for further training.

    Warns if the URI's alias was moved by hand to a version that has not passed its gates.

    Parameters
    ----------
    uri
        ``models:/name@alias``, ``models:/name/version``, ``runs:/<id>/encoder``, an encoder folder or a ``.pt``
        checkpoint.

    Returns
    -------
    Encoder
        A torch module. Its ``card`` says what it was trained on and how well it scored.

    Raises
    ------
    UserError
        If there is no encoder at ``uri``.

    Examples
    --------
    >>> encoder = load_encoder("models:/moola-encoder@champion")  # doctest: +SKIP
    >>> load_encoder("no/such/folder")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    moola_mlflow.core.errors.UserError: encoder 'no/such/folder' does not exist; give ...
    """
    with tempfile.TemporaryDirectory() as scratch:
        return load_from_path(
            _located("encoder", str(uri), ENCODER_CARD, ", a folder or a .pt checkpoint", Path(scratch))
        )


def load_encoders(text: str) -> list[tuple[str, Encoder]]:
    """Load the encoders that a text names, separated by commas, and return them with their names.

    Raises: UserError if one is missing or named twice.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if len(set(names)) < len(names):
        raise UserError(f"finetune.encoder='{text}' names an encoder twice; name different ones for an ensemble")
    encoders = [(name, load_encoder(name)) for name in names]
    known: dict[str, str] = {}
    for name, encoder in encoders:
        model_id = encoder.card.get("model_id")
        if model_id in known:
            raise UserError(
                f"finetune.encoder: '{known[model_id]}' and '{name}' are the same encoder; name different ones"
            )
        if model_id:
            known[model_id] = name
    return encoders


def load_detector(uri: str | Path) -> PatternDetector | EventDetector:
    """Load a detector. Its ``predict`` takes raw OHLC windows.

    Warns if the URI's alias was moved by hand to a version that has not passed its gates.

    Parameters
    ----------
    uri
        ``models:/name@alias``, ``models:/name/version``, ``runs:/<id>/detector`` or a detector folder.

    Returns
    -------
    PatternDetector
        The detector. Its ``card`` holds the evidence of its cross-validation.

    Raises
    ------
    UserError
        If there is no detector at ``uri``.

    Examples
    --------
    >>> detector = load_detector("models:/moola-detector@champion")  # doctest: +SKIP
    >>> load_detector("no/such/folder")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    moola_mlflow.core.errors.UserError: detector 'no/such/folder' does not exist; give ...
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = _located("detector", str(uri), DETECTOR_CARD, " or a folder", Path(scratch))
        return load_any_detector_folder(folder)


def _located(kind: str, uri: str, card: str, others: str, scratch: Path) -> Path:
    """Return the folder or checkpoint on disk that a URI names. Models in a store are downloaded into ``scratch``."""
    if not uri.startswith((MODELS, "runs:/")):
        path = Path(uri)
        if not path.exists():
            raise UserError(
                f"{kind} '{uri}' does not exist; give models:/moola-{kind}@champion, models:/moola-{kind}/3, "
                f"runs:/<run id>/{kind}{others}"
            )
        return path
    need_store(f"{kind} '{uri}'")
    _check_alias(uri)
    try:
        with quiet_download(), no_local_artifacts():
            local = Path(mlflow.artifacts.download_artifacts(artifact_uri=_without_code(uri), dst_path=str(scratch)))
    except (MlflowException, OSError) as e:
        raise UserError(
            f"{kind} '{uri}' cannot be fetched from '{shown_uri()}': {printable(str(e))}{_similar(uri)}"
        ) from e
    if card == ENCODER_CARD and any(local.rglob(DETECTOR_CARD)):
        raise UserError(
            f"{kind} '{uri}' is a detector, and its encoder may have seen the labels that you will score on; "
            "give the encoder that the detector was made from"
        )
    cards = sorted(local.rglob(card), key=lambda path: len(path.parts))  # an encoder in a detector lies deeper
    if not cards:
        raise UserError(f"'{uri}' holds no {card}, so it is no {kind} of this project")
    return cards[0].parent


def _without_code(uri: str) -> str:
    """Return where a registered model's own files are. Beside them lie the hundreds of files of the package."""
    if not uri.startswith(MODELS):
        return uri
    inside = {file.path for file in mlflow.artifacts.list_artifacts(artifact_uri=uri)}
    return f"{uri}/{WEIGHTS}" if WEIGHTS in inside else uri


def is_regular(version: ModelVersion) -> bool:
    """Return whether an alias may name a version: it was promoted, or it has passed its gates."""
    return VersionTags.PROMOTED_BY in version.tags or version.tags.get(VersionTags.GATES, "").startswith(PASSED)


@contextmanager
def quiet_download() -> Iterator[None]:
    """Download through the server and without MLflow's progress bars, unless the user has set MLflow's variables."""
    ours = [name for name in DOWNLOADS if name not in os.environ]
    os.environ.update({name: DOWNLOADS[name] for name in ours})
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def _similar(uri: str) -> str:
    """Return a hint at the registered name, alias or version that is most like a ``models:/`` URI."""
    if not uri.startswith(MODELS):
        return ""
    name, _, alias = uri.removeprefix(MODELS).partition("@")
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


def check_has_evidence(version: ModelVersion, alias: str) -> None:
    """Refuse a version without tags: it carries no evidence. Raises: UserError."""
    if not version.tags:
        raise UserError(
            f"version {version.version} of {version.name}, which alias '{alias}' names, has no tags: its registration "
            "was interrupted, or another program made it. Register a new version with `moola pretrain` or `moola "
            "finetune`, or name another version"
        )


def _check_alias(uri: str) -> None:
    """Warn if an alias names a version that was not promoted and has not passed its gates.

    Raises: UserError if ``candidate`` names a version without its evidence.
    """
    name, at, alias = uri.removeprefix(MODELS).partition("@")
    if not uri.startswith(MODELS) or not at:
        return
    try:
        version = mlflow.MlflowClient().get_model_version_by_alias(name, alias)
    except MlflowException:
        return  # the download will report what is wrong
    if alias == CANDIDATE:
        check_has_evidence(version, alias)
        return
    if not is_regular(version):
        warnings.warn(
            f"alias '{alias}' of {name} was moved by hand to version {version.version}, which has not passed its gates "
            f"({version.tags.get(VersionTags.GATES, 'never evaluated')}); promote it: moola promote --model {name} "
            f"--version {version.version} --alias {alias}",
            stacklevel=4,
        )
