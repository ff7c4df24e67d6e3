"""The state of a training, for checkpoints: collect it from a trainer, and go on from it with the same bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from moola_mlflow.core import UserError

if TYPE_CHECKING:
    from moola_mlflow.training.trainer import Trainer


def collect(trainer: Trainer) -> dict[str, Any]:
    """Return weights, optimiser, schedule, generators and progress, as tensors, numbers and text."""
    progress, device = trainer.progress, trainer.device
    last = progress.history[-1] if progress.history else {}
    return {
        "epoch": progress.epoch - 1,
        "model_state_dict": trainer.model.state_dict(),
        "optimizer_state_dict": trainer.optimizer.state_dict(),
        "scheduler": {"last_epoch": trainer.scheduler.last_epoch},
        "scaler": trainer.scaler.state_dict(),
        "shards": trainer.engine.parts * trainer.engine.world.size,
        "device": device.type,
        "rng": {
            "draws": trainer.draws.get_state(),
            "torch": torch.get_rng_state(),
            "cuda": [torch.cuda.get_rng_state(device)] if device.type == "cuda" else [],
        },
        "metrics": {name.replace("/", "_"): value for name, value in last.items()},
        "progress": {**vars(progress), "train_sums": list(progress.train_sums), "history": list(progress.history)},
    }


def restore(trainer: Trainer, state: dict[str, Any]) -> None:
    """Put a state into a trainer of the same network.

    Raises: UserError if the state is of another network or another kind of device, or lacks a part.
    """
    _check_device(trainer, state)
    try:
        trainer.model.load_state_dict(state["model_state_dict"])
        trainer.optimizer.load_state_dict(state["optimizer_state_dict"])
    except (RuntimeError, ValueError, KeyError, TypeError) as e:
        raise UserError(
            "this configuration makes another network than the checkpoint holds, so training cannot go on from it: "
            f"{' '.join(str(e).split())[:300]}; keep encoder.*, features.set and objective.* as they were"
        ) from e
    try:
        _restore_the_rest(trainer, state)
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as e:
        raise UserError(f"training cannot go on from this checkpoint: it lacks a part, or holds another: {e!r}") from e


def _check_device(trainer: Trainer, state: dict[str, Any]) -> None:
    """Refuse a state whose generator drew on another kind of device: each kind draws other numbers."""
    rng = state.get("rng")
    draws = rng.get("draws") if isinstance(rng, dict) else None
    if not isinstance(draws, Tensor) or draws.numel() == trainer.draws.get_state().numel():
        return
    written = state.get("device", "another kind of device")  # files of earlier versions do not name it
    raise UserError(
        f"training cannot go on from this checkpoint: it was written on {written}, and {trainer.device.type}, on "
        "which this training runs, draws random numbers in another way; allowed: the kind of device that it was "
        "written on; resume on the same kind of device, with runtime.device"
    )


def _restore_the_rest(trainer: Trainer, state: dict[str, Any]) -> None:
    """Restore progress, schedule, parts and generators."""
    progress = state["progress"]
    kept = {**progress, "train_sums": tuple(progress["train_sums"]), "history": list(progress["history"])}
    trainer.progress = type(trainer.progress)(**kept)
    trainer.scheduler.last_epoch = state["scheduler"]["last_epoch"]
    trainer.set_rate()
    # As many parts as before give the same bits on another number of cores or processes. A GPU always has one part.
    if trainer.device.type == "cpu" and not trainer.settings.runtime.shards:
        trainer.engine.use_parts(max(1, state.get("shards", 1) // trainer.engine.world.size))
    trainer.scaler.load_state_dict(state["scaler"])
    trainer.draws.set_state(state["rng"]["draws"])
    torch.set_rng_state(state["rng"]["torch"])
    if trainer.device.type == "cuda" and (states := state["rng"]["cuda"]):
        # Files of earlier versions hold the state of every GPU of the machine, which may have had more or fewer.
        torch.cuda.set_rng_state(states[min(trainer.device.index or 0, len(states) - 1)], trainer.device)
