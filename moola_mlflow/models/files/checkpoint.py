"""Checkpoints: plain tensors and numbers, written atomically and checked by a hash.

A training keeps its latest checkpoint, the one before it to fall back on, the best and the top three.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moola_mlflow.core import TrainingError, TrainingKeys, UserError, remove_temporaries, replacing, sync_path
from moola_mlflow.models.files.bounds import check_stored, check_tensors
from moola_mlflow.models.files.manifest import MANIFEST_FILE, STATES, Manifest

LATEST_CHECKPOINT, BEST_CHECKPOINT, TOP = "checkpoint_latest.pt", "checkpoint_best.pt", "checkpoint_top_{}.pt"
PREVIOUS = "checkpoint_previous.pt"
FIXED_NAMES = (LATEST_CHECKPOINT, PREVIOUS, BEST_CHECKPOINT)
HASH = "sha256"
NUM_TOP = 3


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that a reader sees the old file or the whole new one, even after a power cut.

    Raises: TrainingError with the space that is needed.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, open(temporary, "wb") as f:
            torch.save({**state, HASH: digest(state)}, f)
    except (OSError, RuntimeError) as e:  # torch reports a full disk as a RuntimeError
        raise TrainingError(
            f"the checkpoint '{path}' cannot be written: {e}; about {_size(state) / 1e6:.1f} MB are needed and "
            f"{_free(path.parent)}; free space or correct the folder. An earlier checkpoint stays as it was"
        ) from e


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU without executing anything in it.

    Raises: UserError if the file is absent, is not a checkpoint, or is damaged.
    """
    try:
        check_stored(Path(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
        check_tensors(state, Path(path).stat().st_size)
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
    path: Path = Path()
    """File that was read."""


class Checkpointer:
    """Keeps the checkpoints of one training in a folder: the latest, the one before, the best and the top three.

    Their files are links to saved states. A state is never written twice, and the manifest says which is which
    (:mod:`~moola_mlflow.models.files.manifest`). ``about`` is saved with every state: what users read that is not part
    of the training's state.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any] | None = None) -> None:
        self.folder, self.about = folder, dict(about or {})
        self.ranking: list[float] = []
        """Validation Hubers of the top three, best first."""
        self._manifest: Manifest | None = None

    def saved_at(self) -> float | None:
        """Return when the latest state was saved, in seconds since 1970, or None if there is none."""
        for name in (MANIFEST_FILE, LATEST_CHECKPOINT):
            try:
                return (self.folder / name).stat().st_mtime
            except OSError:
                continue
        return None

    def save_epoch(self, state: dict[str, Any], huber: float) -> None:
        """Save the state of a finished epoch and rank it by its validation Huber; on a tie the earlier epoch leads."""
        rank = sum(other <= huber for other in self.ranking)
        if rank < NUM_TOP:
            self.ranking = [*self.ranking[:rank], huber, *self.ranking[rank:]][:NUM_TOP]
        self._save(state, (rank, huber) if rank < NUM_TOP else None)

    def save_interrupted(self, state: dict[str, Any]) -> None:
        """Save the state as the latest; the latest so far becomes the one before."""
        self._save(state, None)

    def _save(self, state: dict[str, Any], ranked: tuple[int, float] | None) -> None:
        before = self._manifest or Manifest("")
        name = f"{int(state['epoch']):05d}-{secrets.token_hex(4)}.pt"
        save_checkpoint({**state, **self.about, "ranking": list(self.ranking)}, self.folder / STATES / name)
        top = list(before.top)
        if ranked is not None:
            top.insert(ranked[0], (name, ranked[1]))
        self._commit(Manifest(name, before.latest, tuple(top[:NUM_TOP])))

    def _commit(self, manifest: Manifest) -> None:
        """Write the manifest, which makes it true, and then the links that follow from it. Raises: TrainingError."""
        try:
            manifest.write(self.folder)
            self._manifest = manifest
            self._link_all(manifest)
        except OSError as e:
            raise TrainingError(f"the checkpoints in '{self.folder}' cannot be kept in order: {e}") from e

    def _link_all(self, manifest: Manifest) -> None:
        """Make every link again that is not as the manifest says, and remove states that nothing names."""
        links = _links(manifest)
        for name in (*FIXED_NAMES, *(TOP.format(place) for place in range(1, NUM_TOP + 1))):
            path, state = self.folder / name, links.get(name, "")
            if not state:
                path.unlink(missing_ok=True)
            elif not (path.exists() and path.samefile(self.folder / STATES / state)):
                _link(self.folder / STATES / state, path)
        for path in (self.folder / STATES).iterdir():
            if path.name not in manifest.names():
                path.unlink()
        remove_temporaries(self.folder)
        sync_path(self.folder)

    def load_latest(self) -> LoadedCheckpoint:
        """Return the newest state that can be read. The folder stays as it is.

        Raises: UserError if there is none.
        """
        warnings: list[str] = []
        for name, path in self._places():
            try:
                return LoadedCheckpoint(load_epoch(path), name == LATEST_CHECKPOINT, warnings, path)
            except UserError as e:
                warnings.append(f"{name}: {e}. Falling back to the one before.")
        raise UserError(f"no readable checkpoint in '{self.folder}': " + (" ".join(warnings) or "there is none"))

    def _places(self) -> list[tuple[str, Path]]:
        """Return the names and files of the checkpoints, newest first. Folders of version 0.2 have no manifest."""
        names = (LATEST_CHECKPOINT, PREVIOUS, *(TOP.format(place) for place in range(1, NUM_TOP + 1)))
        if manifest := Manifest.read(self.folder):
            links = _links(manifest)
            return [(name, self.folder / STATES / links[name]) for name in names if links.get(name)]
        return [(name, self.folder / name) for name in names if (self.folder / name).exists()]

    def go_on(self, loaded: LoadedCheckpoint) -> None:
        """Go on from a checkpoint of this folder. Later epochs leave the top three: they will be trained again.

        All links are made as the manifest says, whatever a kill has left. Raises: TrainingError.
        """
        manifest = Manifest.read(self.folder)
        if manifest and loaded.is_latest:
            self.ranking = [huber for _, huber in manifest.top]
            self._commit(manifest)
            return
        best = self._best_until(loaded.state["epoch"])
        try:
            (self.folder / STATES).mkdir(exist_ok=True)
            top = tuple((self._adopt(path), huber) for huber, path in best)
            latest = self._adopt(loaded.path)
            sync_path(self.folder / STATES)
        except OSError as e:
            raise TrainingError(f"the checkpoints in '{self.folder}' cannot be kept in order: {e}") from e
        self.ranking = [huber for _, huber in top]
        self._commit(Manifest(latest, "", top))

    def _best_until(self, last: int) -> list[tuple[float, Path]]:
        """Return the best three epochs that can be read and are no later than ``last``, best first.

        A state saved within an epoch has the metrics of the epoch before, but other weights: it does not count.
        """
        found: dict[int, tuple[float, Path]] = {}
        for _, path in self._places():
            try:
                state = load_epoch(path)
            except UserError:
                continue
            within = state.get("progress", {}).get("step", 0)
            if state["epoch"] <= last and "val_huber" in state["metrics"] and not within:
                found.setdefault(state["epoch"], (float(state["metrics"]["val_huber"]), path))
        ranked = sorted(found.items(), key=lambda item: (item[1][0], item[0]))
        return [entry for _, entry in ranked[:NUM_TOP]]

    def _adopt(self, path: Path) -> str:
        """Return the name of a file among the states; link it there first if it is another file of the folder."""
        if path.parent.name == STATES:
            return path.name
        name = f"{path.stem}-{secrets.token_hex(4)}.pt"
        _link(path, self.folder / STATES / name)
        return name

    def finish(self) -> None:
        """Leave plain files once training is done: the latest, the best and the top three.

        The manifest goes first. What is left says the same, whenever the process is killed.
        """
        (self.folder / PREVIOUS).unlink(missing_ok=True)
        (self.folder / MANIFEST_FILE).unlink(missing_ok=True)
        sync_path(self.folder)
        shutil.rmtree(self.folder / STATES, ignore_errors=True)
        self._manifest = None


def _links(manifest: Manifest) -> dict[str, str]:
    """Return the state behind each name of a checkpoint."""
    links = {LATEST_CHECKPOINT: manifest.latest, PREVIOUS: manifest.previous}
    links |= {TOP.format(place): name for place, (name, _) in enumerate(manifest.top, 1)}
    return {**links, BEST_CHECKPOINT: manifest.top[0][0]} if manifest.top else links


def about_training(config: TrainingKeys, run_id: str = "") -> dict[str, Any]:
    """Return what the checkpoints of a training say besides its state: configuration, seed and run."""
    return {"config": config.model_dump(mode="json"), "seed": config.trainer.seed, "run_id": run_id}


def _link(source: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        os.link(source, temporary)
    except OSError:  # file systems without hard links
        shutil.copyfile(source, temporary)
        sync_path(temporary)
    os.replace(temporary, target)
