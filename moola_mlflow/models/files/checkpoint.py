"""Checkpoints: plain tensors and numbers, written atomically and checked by a hash.

A training keeps its latest checkpoint, the one before it to fall back on, the best and the top three.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moola_mlflow.core import TrainingError, TrainingKeys, UserError

LATEST_CHECKPOINT, BEST_CHECKPOINT, TOP = "checkpoint_latest.pt", "checkpoint_best.pt", "checkpoint_top_{}.pt"
PREVIOUS = "checkpoint_previous.pt"
HASH = "sha256"
NUM_TOP = 3


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that a reader sees the old file or the whole new one, even after a power cut.

    Raises: TrainingError with the space that is needed.
    """
    temporary = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as f:
            torch.save({**state, HASH: digest(state)}, f)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as e:  # torch reports a full disk as a RuntimeError
        temporary.unlink(missing_ok=True)
        raise TrainingError(
            f"the checkpoint '{path}' cannot be written: {e}; about {_size(state) / 1e6:.1f} MB are needed and "
            f"{_free(path.parent)}; free space or correct the folder. An earlier checkpoint stays as it was"
        ) from e


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU without executing anything in it.

    Raises: UserError if the file is absent, is not a checkpoint, or is damaged.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        # torch does not check the checksums in its own files: a flipped byte would pass as a weight.
        damaged = isinstance(state, dict) and HASH in state and state.pop(HASH) != digest(state)
    except FileNotFoundError:
        raise UserError(f"no checkpoint at '{path}'") from None
    except Exception as e:  # torch raises another type for every way in which a file can be broken
        first = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise UserError(
            f"'{path}' is not a readable checkpoint ({first}); use another, such as {BEST_CHECKPOINT}"
        ) from e
    if not isinstance(state, dict) or "model_state_dict" not in state:
        raise UserError(f"'{path}' holds no model_state_dict; it is not a checkpoint of this project")
    if damaged:
        raise UserError(
            f"'{path}' is damaged: its content does not match the hash in it; use another, such as {BEST_CHECKPOINT}"
        )
    return state


def load_epoch(path: Path) -> dict[str, Any]:
    """Read the checkpoint of a training. Raises: UserError also if it does not hold its epoch, ranking and metrics."""
    state = load_checkpoint(path)
    ranking, metrics = state.get("ranking"), state.get("metrics")
    numbers = [state.get("epoch"), *(ranking if isinstance(ranking, list) else [None])]
    numbers += [metrics.get("val_huber", 0.0)] if isinstance(metrics, dict) else [None]
    if not all(isinstance(number, int | float) for number in numbers):
        raise UserError(f"'{path}' is not a checkpoint of an epoch: epoch, ranking or metrics are not in it")
    return state


def digest(value: Any) -> str:
    """Return the SHA-256 of every key, number, text and tensor of a state, in order."""
    total = hashlib.sha256()

    def add(part: Any) -> None:
        total.update(f"{type(part).__name__}:".encode())
        if isinstance(part, Tensor):
            total.update(f"{part.dtype}{tuple(part.shape)}".encode())
            total.update(part.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(part, dict):
            for key, item in part.items():
                add(key)
                add(item)
        elif isinstance(part, list | tuple):
            for item in part:
                add(item)
        else:
            total.update(repr(part).encode())

    add(value)
    return total.hexdigest()


def _size(value: Any) -> int:
    """Return the bytes of the tensors in a state."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sum(map(_size, parts))


def _free(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder).free / 1e6:.1f} MB are free"
    except OSError:
        return f"'{folder}' cannot be looked at"


@dataclass(frozen=True)
class LoadedCheckpoint:
    """The newest state in a folder of checkpoints that can be read."""

    state: dict[str, Any]
    is_latest: bool
    """Whether it is the latest; False if that one is damaged and an earlier one was read."""
    warnings: list[str]
    """One sentence for each newer checkpoint that could not be read."""


class Checkpointer:
    """Keeps the checkpoints of one training in a folder: the latest, the one before, the best and the top three.

    Best and top three are hard links to a latest of their epoch. A file is never written twice, so a link keeps its
    content. ``about`` is saved with every state: what users read that is not part of the training's state.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any] | None = None) -> None:
        self.folder, self.about = folder, dict(about or {})
        self.ranking: list[float] = []
        """Validation Hubers of the top three, best first."""

    def save_epoch(self, state: dict[str, Any], huber: float) -> None:
        """Save the state of a finished epoch and rank it by its validation Huber; on a tie the earlier epoch leads."""
        latest = self.folder / LATEST_CHECKPOINT
        rank = sum(other <= huber for other in self.ranking)
        if rank < NUM_TOP:
            self.ranking = [*self.ranking[:rank], huber, *self.ranking[rank:]][:NUM_TOP]
        self.save_interrupted(state)
        if rank >= NUM_TOP:
            return
        try:
            for place in range(len(self.ranking) - 1, rank, -1):
                os.replace(self.folder / TOP.format(place), self.folder / TOP.format(place + 1))
            _link(latest, self.folder / TOP.format(rank + 1))
            if rank == 0:
                _link(latest, self.folder / BEST_CHECKPOINT)
            _sync_folder(self.folder)
        except OSError as e:
            raise TrainingError(f"the checkpoints in '{self.folder}' cannot be kept in order: {e}") from e

    def save_interrupted(self, state: dict[str, Any]) -> None:
        """Save the state as the latest; the latest so far becomes the one before."""
        latest = self.folder / LATEST_CHECKPOINT
        if latest.exists():
            try:
                _link(latest, self.folder / PREVIOUS)
            except OSError as e:
                raise TrainingError(f"the checkpoints in '{self.folder}' cannot be kept in order: {e}") from e
        save_checkpoint({**state, **self.about, "ranking": list(self.ranking)}, latest)

    def load_latest(self) -> LoadedCheckpoint:
        """Return the newest state that can be read. The folder stays as it is.

        Raises: UserError if there is none.
        """
        warnings: list[str] = []
        for name in (LATEST_CHECKPOINT, PREVIOUS, *(TOP.format(place) for place in range(1, NUM_TOP + 1))):
            if not (self.folder / name).exists():
                continue
            try:
                return LoadedCheckpoint(load_epoch(self.folder / name), name == LATEST_CHECKPOINT, warnings)
            except UserError as e:
                warnings.append(f"{e}. Falling back to the one before.")
        raise UserError(f"no readable checkpoint in '{self.folder}': " + (" ".join(warnings) or "there is none"))

    def go_on(self, loaded: LoadedCheckpoint) -> None:
        """Go on from a checkpoint of this folder. Later epochs leave the top three: they will be trained again."""
        if loaded.is_latest:
            self.ranking = list(loaded.state["ranking"])
            return
        kept = []
        for place in range(1, NUM_TOP + 1):
            path = self.folder / TOP.format(place)
            try:
                state = load_epoch(path)
                if state["epoch"] <= loaded.state["epoch"] and "val_huber" in state["metrics"]:
                    kept.append((state["metrics"]["val_huber"], path))
                    continue
            except UserError:
                pass
            path.unlink(missing_ok=True)
        for place, (_, path) in enumerate(kept, 1):
            os.replace(path, self.folder / TOP.format(place))
        if kept:
            _link(self.folder / TOP.format(1), self.folder / BEST_CHECKPOINT)
        self.ranking = [huber for huber, _ in kept]

    def forget_previous(self) -> None:
        """Remove the one before the latest once training is done."""
        (self.folder / PREVIOUS).unlink(missing_ok=True)


def about_training(config: TrainingKeys, run_id: str = "") -> dict[str, Any]:
    """Return what the checkpoints of a training say besides its state: configuration, seed and run."""
    return {"config": config.model_dump(mode="json"), "seed": config.trainer.seed, "run_id": run_id}


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
