"""A detector on disk: ``detector.json``, ``weights.safetensors`` of the head, and a folder ``encoders/``. No pickle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from moola_mlflow.core import UserError, current_name
from moola_mlflow.features import FeatureChoice
from moola_mlflow.models.detector import PatternDetector
from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.encoders.ensemble import Ensemble, members_of
from moola_mlflow.models.files.encoder import (
    BROKEN_FILE_ERRORS,
    ENCODER_WEIGHTS,
    check_card_fields,
    check_card_times,
    features_of,
    load_from_path,
    save_encoder,
)
from moola_mlflow.models.heads import SAVED_HEADS, Detector, parts_of

DETECTOR_CARD = "detector.json"
ENCODERS = "encoders"
SPAN_KIND, EVENT_KIND = "span", "event"
"""Kinds of a detector, as its card says. A span detector finds one span in every window."""


def save_detector(detector: PatternDetector, folder: Path) -> None:
    """Write card, head and encoders into a folder, creating it. Each encoder is a folder that loads on its own."""
    folder.mkdir(parents=True, exist_ok=True)
    head = detector.head
    reads = detector.encoder if "encoding" in parts_of(detector.inputs) else None
    encoders = members_of(reads) if reads is not None else []
    card = {
        **detector.card,
        "classes": list(detector.classes),
        "temperature": detector.temperature,
        "inputs": detector.inputs,
        **({"features": detector.features.described()} if detector.features is not None else {}),
        "window": {"length": detector.length},
        "architecture": {
            "head": next(name for name, make in SAVED_HEADS.items() if make is type(head.head)),
            "lengths": list(head.head.lengths),
            "num_inputs": len(head.mean),
            "num_encoders": len(encoders),
        },
    }
    save_file(
        {k: tensor.detach().cpu().contiguous() for k, tensor in head.state_dict().items()}, folder / ENCODER_WEIGHTS
    )
    for i, encoder in enumerate(encoders):
        save_encoder(encoder, encoder.card, folder / ENCODERS / str(i))
    (folder / DETECTOR_CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


@contextmanager
def readable_detector(path: Path) -> Iterator[None]:
    """Turn errors of a detector's files into messages. Raises: UserError for a file that is absent or broken."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as e:
        raise UserError(
            f"'{path}' is not a detector folder: it lacks {Path(e.filename or ENCODER_WEIGHTS).name}"
        ) from None
    except (*BROKEN_FILE_ERRORS, RuntimeError) as e:
        raise UserError(f"'{path}' is not a readable detector folder: {' '.join(repr(e).split())}") from e


def load_detector_folder(path: Path) -> PatternDetector:
    """Return the detector in a folder, in evaluation mode.

    Raises: UserError if it is absent or broken, or if its parts do not fit each other.
    """
    card = read_detector_card(path / DETECTOR_CARD)
    if detector_kind(card) != SPAN_KIND:
        raise UserError(f"'{path}' holds an event detector; load_event_detector_folder reads it")
    with readable_detector(path):
        architecture = card["architecture"]
        encoders = read_encoders(path, int(architecture["num_encoders"]))
        low, high = architecture["lengths"]
        classes = tuple(str(name) for name in card["classes"])
        num_inputs, num_steps = int(architecture["num_inputs"]), int(card["window"]["length"])
        make = partial(Detector, architecture["head"], num_inputs, len(classes), (int(low), int(high)), num_steps)
        tensors = load_file(path / ENCODER_WEIGHTS)
        with torch.device("meta"):  # compares shapes without using memory: a file may claim any size
            make().load_state_dict({name: tensor.to("meta") for name, tensor in tensors.items()})
        head = make()
        head.load_state_dict(tensors)
        return PatternDetector(
            head.eval(), joined_encoders(encoders), card["inputs"], classes, float(card["temperature"]), card,
            read_feature_choice(card.get("features")),
        )  # fmt: skip


def read_detector_card(path: Path) -> dict[str, Any]:
    """Return a detector's card. Raises: UserError if there is none, or one of its parts is of another kind."""
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"'{path.parent}' is not a detector folder: it lacks {path.name}") from None
    except (OSError, ValueError, RecursionError) as e:
        raise UserError(f"'{path}' is not readable JSON: {e}") from e
    if not isinstance(card, dict):
        raise UserError(f"'{path}' holds a {type(card).__name__}; expected an object with the model's description")
    try:
        given = {name: card[name] for name in ("labels", "evidence", "encoders") if card.get(name) is not None}
        check_card_fields(given, {"labels": dict, "evidence": dict, "encoders": list})
        for encoder in given.get("encoders", []):
            check_card_fields({"encoder": encoder}, {"encoder": dict})
        check_card_fields(given.get("labels", {}), {"counts": dict})
        check_card_times(given.get("labels", {}), "labelled_from", "labelled_until")
        if isinstance(card.get("inputs"), str):
            card["inputs"] = current_name(card["inputs"])
    except BROKEN_FILE_ERRORS as e:
        raise UserError(f"'{path}' is not a readable description of a detector: {' '.join(repr(e).split())}") from e
    return card


def detector_kind(card: dict[str, Any]) -> str:
    """Return the kind of a detector: ``event`` if it can say that a window has no event, else ``span``.

    Raises: UserError for a kind that this version does not know.
    """
    kind = card.get("kind", SPAN_KIND)  # detectors of earlier versions do not say
    if kind not in (SPAN_KIND, EVENT_KIND):
        raise UserError(f"the detector is of kind '{kind}'; this version knows {SPAN_KIND} and {EVENT_KIND}")
    return str(kind)


def read_encoders(path: Path, num: int) -> list[Encoder]:
    """Return the encoders in a detector's folder. Raises: UserError if one is absent or broken."""
    return [_encoder(path / ENCODERS / str(i)) for i in range(num)]


def _encoder(folder: Path) -> Encoder:
    if not folder.is_dir():
        raise UserError(f"'{folder.parent.parent}' is not a whole detector folder: it lacks {ENCODERS}/{folder.name}")
    return load_from_path(folder)


def read_feature_choice(spec: dict[str, Any] | None) -> FeatureChoice | None:
    """Return the hand-made features that a detector reads. Raises: ValueError if the set now has others."""
    if spec is None:
        return None
    choice = features_of(spec)
    if list(choice.names) != spec["names"]:
        raise ValueError(f"features.set={choice.set} is now {list(choice.names)}, the head reads {spec['names']}")
    return choice


def joined_encoders(encoders: list[Encoder]) -> Encoder | None:
    """Return no encoder, the encoder, or several as one ensemble."""
    return Ensemble(encoders) if len(encoders) > 1 else encoders[0] if encoders else None
