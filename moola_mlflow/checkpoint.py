"""Checkpoints: plain tensors and numbers, written atomically; best, latest and the top three by validation Huber."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from moola_mlflow.errors import TrainingError, UserError

LATEST, BEST, TOP = "checkpoint_latest.pt", "checkpoint_best.pt", "checkpoint_top_{}.pt"
NUM_TOP = 3


def save(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that a reader sees the old file or the whole new one, even after a power cut."""
    temporary = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as f:
            torch.save(state, f)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as e:  # torch reports a full disk as a RuntimeError
        temporary.unlink(missing_ok=True)
        raise TrainingError(f"the checkpoint '{path}' cannot be written: {e}; free space or correct the folder") from e


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU without executing anything in it.

    Raises: UserError where the file is absent or is not a checkpoint.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"no checkpoint at '{path}'") from None
    except Exception as e:  # torch raises a different type for every way a file can be broken
        first = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise UserError(f"'{path}' is not a readable checkpoint ({first}); use another, such as {BEST}") from e
    if not isinstance(state, dict) or "model_state_dict" not in state:
        raise UserError(f"'{path}' holds no model_state_dict; it is not a checkpoint of this project")
    return state


class CheckpointFolder:
    """Keeps ``latest`` every epoch, and hard links to it for ``best`` and the top three.

    A file is never written twice: latest is always a new file, so a link to it stays what it was.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ranking: list[float] = []

    def save_epoch(self, state: dict[str, Any], huber: float) -> None:
        """Save the state of a finished epoch and rank it by its validation Huber, the earlier epoch first on a tie."""
        latest = self.folder / LATEST
        rank = sum(other <= huber for other in self.ranking)
        if rank < NUM_TOP:
            self.ranking = [*self.ranking[:rank], huber, *self.ranking[rank:]][:NUM_TOP]
        save({**state, "ranking": list(self.ranking)}, latest)
        if rank >= NUM_TOP:
            return
        try:
            for place in range(len(self.ranking) - 1, rank, -1):
                os.replace(self.folder / TOP.format(place), self.folder / TOP.format(place + 1))
            _link(latest, self.folder / TOP.format(rank + 1))
            if rank == 0:
                _link(latest, self.folder / BEST)
            _sync_folder(self.folder)
        except OSError as e:
            raise TrainingError(f"the checkpoints in '{self.folder}' cannot be kept in order: {e}") from e

    def save_interrupted(self, state: dict[str, Any]) -> None:
        """Save the state in the middle of an epoch: latest alone."""
        save({**state, "ranking": list(self.ranking)}, self.folder / LATEST)


def _link(source: Path, target: Path) -> None:
    temporary = target.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:  # file systems without hard links
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; only POSIX can open a folder."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
