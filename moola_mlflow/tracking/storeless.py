"""Runs without a store: what a command logs stays in a folder, and nothing else is written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from moola_mlflow.core import UserError
from moola_mlflow.tracking.delivery import NO_LIMIT, DeliveryState
from moola_mlflow.tracking.session import RunSession

_folder: ContextVar[Path | None] = ContextVar("folder of untracked runs", default=None)


@contextmanager
def untracked(folder: Path) -> Iterator[None]:
    """Have runs that start inside this block keep what they log in a folder. They know no store."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def new_session() -> RunSession:
    """Return the session of a new run: one that knows the store, or inside :func:`untracked` one that does not."""
    folder = _folder.get()
    return RunSession() if folder is None else UntrackedSession(folder)


class FolderDelivery:
    """Keeps the files of events in a folder, under the names of their artifacts, and drops the rest."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def state(self) -> DeliveryState:
        """There is no store, so nothing waits for one."""
        return DeliveryState("")

    def write(self, event: Mapping[str, Any], send: bool = True) -> None:
        """Do nothing: files are in the folder already."""

    def add_files(self, name: str, fill: Callable[[Path], object]) -> str:
        """Have ``fill`` write a file or folder called ``name``. The key is empty."""
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        fill(path)
        return ""

    def send(self) -> None:
        """Do nothing: there is no store."""

    def flush(self) -> bool:
        """Return True: nothing ever waits."""
        return True

    def sync(self) -> None:
        """Do nothing: there is no journal."""

    def close(self, limit_s: float = NO_LIMIT) -> bool:
        """Return True: nothing ever waits."""
        return True


class UntrackedSession(RunSession):
    """The session of a run that no store knows. Its id is empty."""

    tracked = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, stage: str, name: str, experiment: str, resume: str, offline: bool) -> None:
        """Make the folder. Raises: UserError for a run that is to be resumed, or a folder that cannot be written."""
        if resume:
            raise UserError(
                f"tracking.resume='{resume}' goes on with a tracked run; leave out track=False, or tracking.resume"
            )
        self._started_at = time.time()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise UserError(f"out='{self.folder}' cannot be written: {e}; give a folder you may write to") from e
        self.delivery = FolderDelivery(self.folder)

    def join(self, run_id: str) -> None:
        """Refuse: only a store knows the runs of other processes. Raises: UserError."""
        raise UserError(f"run '{run_id}' is in a store, and this call is not tracked; leave out track=False")

    def beat(self) -> None:
        """Do nothing: nobody watches."""

    def logged_steps(self, metric: str) -> set[int]:
        """Return no step: a run without a store is never resumed."""
        return set()

    def mark_refused(self) -> None:
        """Do nothing: there is no run to remove."""

    def discard(self) -> bool:
        """Return False: the folder is the caller's."""
        return False

    def end(self, status: str, note: str | None) -> list[str]:
        """Return nothing to print."""
        return []
