"""Promotion: find the version, read its evidence, check that it serves, and move an alias to it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.exceptions import MlflowException

from moola_mlflow.bars import generate_bars
from moola_mlflow.core import GateError, GateLimits, UserError, current_name, nearest_name, no_links, printable
from moola_mlflow.evaluation import Gate, detector_gates, encoder_gates
from moola_mlflow.models import DETECTOR_CARD, ENCODER_CARD
from moola_mlflow.tracking.artifact_places import no_local_artifacts
from moola_mlflow.tracking.names import VersionTags
from moola_mlflow.tracking.origin import key_file
from moola_mlflow.tracking.registry.models import CANDIDATE, check_has_evidence, is_regular, quiet_download
from moola_mlflow.tracking.registry.smoke_test import find_problem
from moola_mlflow.tracking.store import shown_uri

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

CHAMPION, PREVIOUS = "champion", "previous"
CARD_OF = "card_of"
"""Key that a downloaded card gets: detector or encoder."""
MAX_TAG = 5000
SMOKE_SEED = 5


@dataclass(frozen=True)
class Model:
    """A registered model with its versions and aliases."""

    name: str
    versions: tuple[str, ...]
    """Version numbers, oldest first."""
    aliases: dict[str, str]
    """Version number by alias."""

    def resolve(self, version: str) -> str:
        """Return the version number that a number or an alias means. Raises: UserError that lists what exists."""
        if version in self.versions:
            return version
        if version in self.aliases:
            return self.aliases[version]
        there = ", ".join(f"{alias} (version {number})" for alias, number in sorted(self.aliases.items())) or "none"
        raise UserError(
            f"{self.name} has no version or alias '{version}'{nearest_name(version, [*self.aliases, *self.versions])} "
            f"Versions: {', '.join(self.versions) or 'none'}; aliases: {there}"
        )


def find_model(name: str) -> Model:
    """Return a registered model. Raises: UserError that lists the registered ones."""
    client = mlflow.MlflowClient()
    names = [model.name for model in client.search_registered_models(max_results=1000)]
    try:
        model = client.get_registered_model(name)
    except MlflowException as e:
        if name in names:
            raise
        raise UserError(
            f"model='{name}' is not registered in '{shown_uri()}'{nearest_name(name, names)} "
            f"Registered: {', '.join(names) or 'none; `pretrain` and `finetune` register models'}"
        ) from e
    found = client.search_model_versions(f"name = '{name}'", max_results=10_000)
    versions = tuple(sorted((str(version.version) for version in found), key=int))
    return Model(name, versions, {alias: str(version) for alias, version in model.aliases.items()})


def check_alias(alias: str) -> None:
    """Refuse an alias that MLflow cannot hold, or that this program moves by itself. Raises: UserError."""
    if alias in (CANDIDATE, PREVIOUS):
        mover = "registering a version moves it" if alias == CANDIDATE else "`promote` moves it with champion"
        raise UserError(f"alias='{alias}' cannot be promoted to, because {mover}; give {CHAMPION}, or your own name")
    if not re.fullmatch(r"[A-Za-z_][\w-]{0,254}", alias, re.ASCII) or re.fullmatch(r"[vV]\d+|latest", alias):
        raise UserError(
            f"alias='{alias[:80]}'; allowed: letters, digits, '_' and '-', beginning with a letter, and neither "
            "'latest' nor a version such as 'v3'"
        )


def fetch_version(name: str, version: str, scratch: Path) -> tuple[Path, dict[str, Any]]:
    """Download a version. Return its folder, and the card of the detector or encoder in it.

    Raises: UserError if it cannot be downloaded, or holds neither.
    """
    uri = f"models:/{name}/{version}"
    try:
        with quiet_download(), no_local_artifacts():
            folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(scratch)))
    except (MlflowException, OSError) as e:
        raise UserError(f"'{uri}' cannot be fetched from '{shown_uri()}': {printable(str(e))}") from e
    for card in (DETECTOR_CARD, ENCODER_CARD):  # in this order: a detector has encoders in it
        if found := sorted(folder.rglob(card), key=lambda path: len(path.parts)):
            try:
                return folder, {**json.loads(found[0].read_text(encoding="utf-8")), CARD_OF: Path(card).stem}
            except (OSError, ValueError, TypeError, RecursionError) as e:
                raise UserError(f"'{uri}': {card} cannot be read: {e}; register the model again") from e
    raise UserError(
        f"'{uri}' holds neither {DETECTOR_CARD} nor {ENCODER_CARD}, so it is no model of this project and carries no "
        "evidence; register one with `moola finetune` or `moola pretrain`"
    )


def check_candidate(name: str, version: str) -> None:
    """Refuse a version whose registration was interrupted. Raises: UserError."""
    check_has_evidence(mlflow.MlflowClient().get_model_version(name, version), CANDIDATE)


def was_promoted(name: str, version: str) -> bool:
    """Return whether `promote` has ever moved an alias to a version. A move by hand does not count."""
    return VersionTags.PROMOTED_BY in mlflow.MlflowClient().get_model_version(name, version).tags


def judge_card(card: dict[str, Any], config: GateLimits) -> list[Gate]:
    """Return the gates of a downloaded card.

    Early cards do not say whether the detector was compared with baselines that read the same inputs. A detector on
    price-path features alone never was.
    """
    if card[CARD_OF] != Path(DETECTOR_CARD).stem:
        return encoder_gates(card, config)
    evidence = card.get("evidence")
    if isinstance(evidence, dict):
        evidence = {"delta_same_inputs": not current_name(str(card.get("inputs"))).startswith("price_path"), **evidence}
    return detector_gates(evidence, config)


def check_serves(folder: Path, card: dict[str, Any], title: str) -> None:
    """Load a version as MLflow serves it, and let it read one synthetic window.

    Raises: GateError if it fails, even with ``force``.
    """
    try:
        length = int(card["window"]["length"])
    except (KeyError, TypeError, ValueError) as e:
        raise GateError(_does_not_serve(title, f"its card names no window length ({type(e).__name__}: {e})")) from e
    window = generate_bars(length, SMOKE_SEED)[["open", "high", "low", "close"]].to_numpy(np.float64)[None]
    if problem := find_problem(folder, window):
        raise GateError(_does_not_serve(title, problem))


def _does_not_serve(title: str, reason: str) -> str:
    return f"{title} does not serve, so no alias moves to it, force or not: {' '.join(reason.split())[:1000]}"


def move_alias(model: Model, alias: str, version: str, tags: dict[str, str]) -> str | None:
    """Tag a version and move an alias to it. Return the version that had the alias before, if any.

    If ``champion`` moves, ``previous`` moves to the version that was champion before. The aliases are read again under
    a lock, so of two promotions at once the second one sees the first. ``promoted_by`` is written last: a version that
    has it did get its alias.
    """
    client = mlflow.MlflowClient()
    with _alone(model.name):
        now = find_model(model.name)
        before = now.aliases.get(alias)
        before = before if before in now.versions else None  # it was deleted
        for key, value in tags.items():
            if key != VersionTags.PROMOTED_BY:
                client.set_model_version_tag(model.name, version, key, value[:MAX_TAG])
        if before != version:
            if alias == CHAMPION and before is not None:  # first: after a failure in between, the move can be repeated
                client.set_registered_model_alias(model.name, PREVIOUS, before)
            client.set_registered_model_alias(model.name, alias, version)
        if by := tags.get(VersionTags.PROMOTED_BY):
            client.set_model_version_tag(model.name, version, VersionTags.PROMOTED_BY, by)
    return before


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Let one promotion of this user at a time move the aliases of a model of this store."""
    store = hashlib.sha256(f"{mlflow.get_tracking_uri()} {name}".encode()).hexdigest()[:16]
    with ExitStack() as stack:
        with suppress(OSError):  # a home folder that cannot be written: the aliases are read again all the same
            folder = key_file().parent
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = stack.enter_context(open(folder / f"promote-{store}.lock", "a", encoding="utf-8", opener=no_links))
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX)  # closing the file, or a crash, releases it
        yield


def last_promoted(name: str, without: str) -> str:
    """Return the version that was promoted last, apart from one; empty if there is none."""
    found = [
        version
        for version in mlflow.MlflowClient().search_model_versions(f"name = '{name}'", max_results=10_000)
        if VersionTags.PROMOTED_BY in version.tags and str(version.version) != without
    ]
    newest = max(found, key=lambda version: (version.last_updated_timestamp or 0, int(version.version)), default=None)
    return str(newest.version) if newest else ""


def may_go_back(model: Model, alias: str, version: str) -> bool:
    """Return whether a move is a way back, which must not depend on gates: the version had the alias before.

    It is ``previous``, or the alias was moved by hand since.
    """
    before = model.aliases.get(alias)
    if version == before or not was_promoted(model.name, version):
        return False
    if alias == CHAMPION and model.aliases.get(PREVIOUS) == version:
        return True
    return before is not None and not is_regular(mlflow.MlflowClient().get_model_version(model.name, before))


def registering_run(model: Model, version: str) -> str:
    """Return the id of the run that registered a version, or ``unknown``."""
    return mlflow.MlflowClient().get_model_version(model.name, version).run_id or "unknown"
