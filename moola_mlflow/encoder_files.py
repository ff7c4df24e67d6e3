"""An encoder on disk: ``weights.safetensors`` beside ``encoder.json``, or a training checkpoint. No pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from moola_mlflow import checkpoint
from moola_mlflow.config import Config, EncoderConfig, resolve
from moola_mlflow.encoders import Encoder, build_encoder
from moola_mlflow.errors import UserError
from moola_mlflow.features import feature_names

WEIGHTS, CARD = "weights.safetensors", "encoder.json"


def describe(config: Config, encoder: Encoder) -> dict[str, Any]:
    """Return the part of an encoder's card that follows from configuration and scaling."""
    features = config.features
    hybrid = {
        "lookback": features.hybrid_lookback,
        "min_retrace": features.hybrid_min_retrace,
        "same_bar": features.hybrid_same_bar,
    }
    return {
        "features": {"set": features.set, "names": list(feature_names(features.set)), "hybrid": hybrid},
        "scaling": {"mean": encoder.mean.tolist(), "std": encoder.std.tolist()},
        "window": {"length": config.windows.length, "stride": config.windows.stride, "warmup": config.windows.warmup},
        "architecture": {
            **config.encoder.model_dump(),
            "input_size": encoder.input_size,
            "output_size": encoder.output_size,
        },
        "objective": config.objective.model_dump(),
        "hyperparameters": {
            **config.optimizer.model_dump(),
            **config.schedule.model_dump(),
            **config.trainer.model_dump(),
        },
    }


def save_encoder(encoder: Encoder, card: dict[str, Any], folder: Path) -> None:
    """Write weights and card into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    save_file(tensors, folder / WEIGHTS)
    (folder / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def load_from_path(path: Path) -> Encoder:
    """Return the encoder in a folder or in a ``.pt`` checkpoint, in evaluation mode, trainable.

    Raises: UserError where it is absent, broken, or holds other tensors than its card says.
    """
    return _from_folder(path) if path.is_dir() else _from_checkpoint(path)


def _from_folder(folder: Path) -> Encoder:
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
        parts = {name: card["architecture"][name] for name in EncoderConfig.model_fields}
        config = EncoderConfig.model_validate(parts)
        input_size = int(card["architecture"]["input_size"])
    except FileNotFoundError as e:
        raise UserError(f"'{folder}' is not an encoder folder: it lacks {Path(e.filename).name}") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError, SafetensorError) as e:
        raise UserError(f"'{folder}' is not a readable encoder folder: {' '.join(repr(e).split())}") from e
    return _filled(config, input_size, tensors, card, str(folder))


def _from_checkpoint(path: Path) -> Encoder:
    state = checkpoint.load(path)
    config = resolve(state["config"], {})
    names = feature_names(config.features.set)
    prefix = "encoder."
    tensors = {k.removeprefix(prefix): v for k, v in state["model_state_dict"].items() if k.startswith(prefix)}
    encoder = _filled(config.encoder, len(names), tensors, {}, str(path))
    encoder.card = {**describe(config, encoder), "run_id": state["run_id"], "epochs": state["epoch"] + 1}
    return encoder


def _filled(
    config: EncoderConfig, input_size: int, tensors: dict[str, Any], card: dict[str, Any], source: str
) -> Encoder:
    """Build an encoder around tensors. Shapes are compared first, without memory: a file may claim any size."""
    try:
        with torch.device("meta"):
            _build(config, input_size).load_state_dict({name: one.to("meta") for name, one in tensors.items()})
        encoder = _build(config, input_size)
        encoder.load_state_dict(tensors)
    except UserError:
        raise
    except (RuntimeError, ValueError, AttributeError, TypeError) as e:
        raise UserError(f"'{source}' does not fit its own description: {' '.join(str(e).split())}") from e
    encoder.card = card
    return encoder.eval()


def _build(config: EncoderConfig, input_size: int) -> Encoder:
    return build_encoder(config.name, input_size, config.hidden, config.layers, config.dropout)
