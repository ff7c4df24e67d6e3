"""Where a server may keep artifacts: never on this machine's disk, which it does not know.

A run of a server names the place of its artifacts. If that is a path, MLflow copies files to that path of *this*
machine, or reads them from there. So the server chooses the files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import mlflow
from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry as registry
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.utils.file_utils import local_file_uri_to_path

from moola_mlflow.core import UserError, printable

LOCAL_SCHEMES = ("", "file")
_own: ContextVar[tuple[Path, ...] | None] = ContextVar("own", default=None)
"""Folders of this program that MLflow may read. None: nothing is checked, because the call is not ours."""


class LocalPlace(UserError):
    """A server has named a path of this machine as the place of its artifacts."""


@contextmanager
def no_local_artifacts(*own: Path) -> Iterator[None]:
    """Refuse paths of this machine as places of artifacts, if the store is a server.

    ``own``: folders that this program gives to MLflow itself. Calls of other programs in this process are not checked.
    Raises: LocalPlace when MLflow opens such a place.
    """
    outer = _own.get() or ()
    token = _own.set((*outer, *(path.resolve() for path in own)))
    try:
        yield
    finally:
        _own.reset(token)


def check_place(uri: str) -> None:
    """Refuse a place of artifacts on this machine, if it comes from a server. Raises: LocalPlace."""
    own = _own.get()
    if own is None or not mlflow.get_tracking_uri().startswith("http"):
        return
    path = Path(local_file_uri_to_path(uri)).resolve()
    if any(path == folder or folder in path.parents or path == folder.parent for folder in own):
        return
    raise LocalPlace(
        f"the server keeps artifacts in {printable(uri)!r}, a path of this machine, and a server must not choose files "
        "here; start it with --artifacts-destination, so that files travel through it, or with a bucket"
    )


class _CheckedRepository(LocalArtifactRepository):
    """MLflow's artifacts on disk, after the place has been checked."""

    def __init__(self, artifact_uri: str, *args: Any, **kwargs: Any) -> None:
        check_place(artifact_uri)
        super().__init__(artifact_uri, *args, **kwargs)


for scheme in LOCAL_SCHEMES:
    registry.register(scheme, _CheckedRepository)
