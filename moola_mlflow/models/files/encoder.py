"""An encoder on disk: ``weights.safetensors`` beside ``encoder.json``, or a training checkpoint. No pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from moola_mlflow.core import (
    CutWindowsConfig,
    EncoderConfig,
    FeaturesConfig,
    FinetuneKeys,
    TrainingKeys,
    UserError,
    current_name,
    make_config,
)
from moola_mlflow.features import FeatureChoice, Hybrid, feature_names, input_names
from moola_mlflow.models.encoders import build_encoder
from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.files import checkpoint
from moola_mlflow.models.task_heads import TaskHeads, read_task_heads, task_heads_of

ENCODER_WEIGHTS, ENCODER_CARD = "weights.safetensors", "encoder.json"
BROKEN_FILE_ERRORS = (
    OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError, SafetensorError
)  # fmt: skip
"""What reading a broken file raises."""


def describe_encoder(config: FinetuneKeys | TrainingKeys, encoder: Encoder) -> dict[str, Any]:
    """Return what an encoder reads, its scaling and its architecture, for its card."""
    features = config.features
    return {
        "features": {"set": features.set, "names": list(feature_names(features.set)), "hybrid": _hybrid(features)},
        "scaling": {"mean": encoder.mean.tolist(), "std": encoder.std.tolist()},
        "window": config.windows.model_dump(include={"length", "stride", "warmup"}),
        "architecture": {
            **config.encoder.model_dump(),
            "input_size": encoder.input_size,
            "output_size": encoder.output_size,
        },
    }


def describe_training(config: TrainingKeys) -> dict[str, Any]:
    """Return what an encoder was trained for and how, for its card."""
    return {
        "objective": config.objective.model_dump(),
        "hyperparameters": {
            **config.optimizer.model_dump(),
            **config.schedule.model_dump(),
            **config.trainer.model_dump(),
        },
    }


def _hybrid(features: FeaturesConfig) -> dict[str, Any]:
    return {
        "lookback": features.hybrid_lookback,
        "min_retrace": features.hybrid_min_retrace,
        "same_bar": features.hybrid_same_bar,
    }


def save_encoder(encoder: Encoder, card: dict[str, Any], folder: Path) -> None:
    """Write weights, card and the task heads, if there are any, into a folder, creating it."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    save_file(tensors, folder / ENCODER_WEIGHTS)
    if encoder.task_heads is not None:
        encoder.task_heads.save(folder)
    (folder / ENCODER_CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def load_from_path(path: Path) -> Encoder:
    """Return the encoder in a folder or in a ``.pt`` checkpoint, in evaluation mode, trainable.

    Raises: UserError if it is absent or broken, or holds other tensors than its card says.
    """
    return _from_folder(path) if path.is_dir() else _from_checkpoint(path)


def read_encoder_card(path: Path) -> dict[str, Any]:
    """Return an encoder's card. Raises: UserError if there is none, or it does not say what the encoder reads."""
    try:
        return _checked(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"'{path.parent}' is not an encoder folder: it lacks {path.name}") from None
    except BROKEN_FILE_ERRORS as e:
        raise UserError(f"'{path.parent}' is not a readable encoder folder: {' '.join(repr(e).split())}") from e


def _checked(card: dict[str, Any]) -> dict[str, Any]:
    """Check that the card has every field that the loader needs. Raises: one of ``BROKEN_FILE_ERRORS``."""
    features, window, architecture = card["features"], card["window"], card["architecture"]
    own = features_of(features)
    inputs = architecture.get("inputs", "features")  # encoders of earlier versions read the features
    num = len(input_names(own.set, inputs))
    if num != int(architecture["input_size"]):
        raise ValueError(
            f"features.set={own.set} and encoder.inputs={inputs} make {num} inputs, the network reads "
            f"{architecture['input_size']}"
        )
    needed = ("length", "warmup", *(("stride",) if "stride" in window else ()))  # labelled windows have no stride
    read = CutWindowsConfig.model_validate({key: window[key] for key in needed})
    check_card_fields(card, {"data": dict, "objective": dict, "model_id": str, "run_id": str})
    check_card_fields(card.get("objective", {}), {"name": str})
    check_card_times(card, "trained_from", "trained_until")
    int(architecture["output_size"])
    if "name" in (objective := card.get("objective", {})):
        card = {**card, "objective": {**objective, "name": current_name(objective["name"])}}
    return {
        **card,
        "architecture": {**architecture, "inputs": inputs},
        "features": {**features, "hybrid": asdict(own.hybrid)},
        "window": {**window, **read.model_dump(include=set(needed))},
    }


def features_of(spec: Mapping[str, Any]) -> FeatureChoice:
    """Return the features that a card names, checked. Raises: one of ``BROKEN_FILE_ERRORS``."""
    own = FeaturesConfig.model_validate(
        {"set": spec["set"], **{f"hybrid_{key}": value for key, value in spec["hybrid"].items()}}
    )
    return FeatureChoice(own.set, Hybrid(**_hybrid(own)))


def check_card_fields(card: dict[str, Any], kinds: dict[str, type]) -> None:
    """Refuse a field of another kind; an absent field is allowed. Raises: TypeError."""
    for name, kind in kinds.items():
        if name in card and not isinstance(card[name], kind):
            raise TypeError(f"{name} is a {type(card[name]).__name__}")


def check_card_times(card: dict[str, Any], first: str, last: str) -> None:
    """Refuse a time that cannot be read, or one end of a range without the other. Raises: ValueError or KeyError."""
    if first in card or last in card:
        for name in (first, last):
            np.datetime64(str(card[name]).rstrip("Z"), "ns")


def _from_folder(folder: Path) -> Encoder:
    card = read_encoder_card(folder / ENCODER_CARD)
    try:
        tensors = load_file(folder / ENCODER_WEIGHTS)
        parts = {name: card["architecture"][name] for name in EncoderConfig.model_fields}
        config = EncoderConfig.model_validate(parts)
        input_size = int(card["architecture"]["input_size"])
        task_heads = read_task_heads(folder)
    except FileNotFoundError:
        raise UserError(f"'{folder}' is not an encoder folder: it lacks {ENCODER_WEIGHTS}") from None
    except BROKEN_FILE_ERRORS as e:
        raise UserError(f"'{folder}' is not a readable encoder folder: {' '.join(repr(e).split())}") from e
    encoder = _filled(config, input_size, tensors, card, str(folder))
    encoder.task_heads = _fitting(task_heads, encoder, str(folder))
    return encoder


def _from_checkpoint(path: Path) -> Encoder:
    state, prefix = checkpoint.load_checkpoint(path), "encoder."
    try:
        config = make_config(TrainingKeys, state["config"], {})
        names = input_names(config.features.set, config.encoder.inputs)
        tensors = {k.removeprefix(prefix): v for k, v in state["model_state_dict"].items() if k.startswith(prefix)}
        made_by = {"run_id": str(state["run_id"]), "epochs": int(state["epoch"]) + 1}
    except BROKEN_FILE_ERRORS as e:
        raise UserError(
            f"'{path}' is a checkpoint, but not of this project's pretrain: {' '.join(repr(e).split())}"
        ) from e
    encoder = _filled(config.encoder, len(names), tensors, {}, str(path))
    encoder.card = {**describe_encoder(config, encoder), **describe_training(config), **made_by}
    encoder.task_heads = _fitting(task_heads_of(state["model_state_dict"]), encoder, str(path))
    return encoder


def _fitting(task_heads: TaskHeads | None, encoder: Encoder, source: str) -> TaskHeads | None:
    """Return task heads. Raises: UserError if they read encodings of another size."""
    if task_heads is not None and (size := task_heads.pointers.shape[-1]) != encoder.output_size:
        raise UserError(
            f"'{source}' has task heads for encodings of {size} numbers, its own have {encoder.output_size}"
        )
    return task_heads


def _filled(
    config: EncoderConfig, input_size: int, tensors: dict[str, Any], card: dict[str, Any], source: str
) -> Encoder:
    """Build an encoder around tensors. Shapes are compared first, without using memory: a file may claim any size."""
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
