"""An event detector on disk: ``weights.safetensors`` beside ``detector.json`` and the encoders' folders. No pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from moola_mlflow.core import UserError
from moola_mlflow.models.detector import PatternDetector
from moola_mlflow.models.encoders.ensemble import members_of
from moola_mlflow.models.events.event_detector import EventDetector, EventPart
from moola_mlflow.models.events.nets import NETS, EventNet, NetShape
from moola_mlflow.models.events.presence import PresenceReader
from moola_mlflow.models.events.score_calibration import ScoreCalibration
from moola_mlflow.models.files.detector import (
    DETECTOR_CARD,
    ENCODERS,
    EVENT_KIND,
    detector_kind,
    joined_encoders,
    load_detector_folder,
    read_detector_card,
    read_encoders,
    read_feature_choice,
    readable_detector,
)
from moola_mlflow.models.files.encoder import ENCODER_WEIGHTS, save_encoder
from moola_mlflow.models.heads import parts_of

PRESENCE = "prior"


def save_event_detector(detector: EventDetector, folder: Path) -> None:
    """Write card, nets and encoders into a folder, creating it. Each encoder is a folder that loads on its own."""
    folder.mkdir(parents=True, exist_ok=True)
    reads = detector.encoder if "encoding" in parts_of(detector.inputs) else None
    encoders = members_of(reads) if reads is not None else []
    calibration = detector.calibration
    card = {
        **detector.card,
        "kind": EVENT_KIND,
        "classes": list(detector.classes),
        "temperature": detector.temperature,
        "calibration": {"slope": calibration.slope, "offset": calibration.offset},
        "threshold": detector.threshold,
        "inputs": detector.inputs,
        **({"features": detector.features.described()} if detector.features is not None else {}),
        "window": {"length": detector.length},
        "architecture": {
            "lengths": list(detector.lengths),
            "nets": [_described(part) for part in detector.parts],
            "num_encoders": len(encoders),
        },
    }
    tensors = {
        f"{i}.{name}": tensor.detach().cpu().contiguous()
        for i, part in enumerate(detector.parts)
        for name, tensor in part.net.state_dict().items()
    }
    save_file(tensors, folder / ENCODER_WEIGHTS)
    for i, encoder in enumerate(encoders):
        save_encoder(encoder, encoder.card, folder / ENCODERS / str(i))
    (folder / DETECTOR_CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def _described(part: EventPart) -> dict[str, Any]:
    """Return what rebuilds a net: its name, its columns and weight, and sizes that the others do not give."""
    net = part.net
    about = {"columns": list(part.columns), "weight": part.weight}
    if isinstance(net, PresenceReader):
        return {"name": PRESENCE, "num_directions": len(net.directions), **about}
    name = next(name for name, make in NETS.items() if make is type(net))
    return {"name": name, "hidden": net.hidden, "max_events": net.shape.max_events, **about}


def load_event_detector_folder(path: Path) -> EventDetector:
    """Return the event detector in a folder, in evaluation mode.

    Raises: UserError if it is absent or broken, holds a detector of another kind, or if its parts do not fit each
    other.
    """
    card = read_detector_card(path / DETECTOR_CARD)
    if detector_kind(card) != EVENT_KIND:
        raise UserError(f"'{path}' holds a span detector, which cannot say that a window has no event")
    with readable_detector(path):
        architecture = card["architecture"]
        encoders = read_encoders(path, int(architecture["num_encoders"]))
        classes = tuple(str(name) for name in card["classes"])
        low, high = architecture["lengths"]
        sizes = (len(classes), (int(low), int(high)), int(card["window"]["length"]))
        tensors = load_file(path / ENCODER_WEIGHTS)
        parts = tuple(_part(i, about, sizes, tensors) for i, about in enumerate(architecture["nets"]))
        calibration = ScoreCalibration(float(card["calibration"]["slope"]), float(card["calibration"]["offset"]))
        return EventDetector(
            parts, joined_encoders(encoders), card["inputs"], classes, float(card["temperature"]), calibration,
            float(card["threshold"]), card, read_feature_choice(card.get("features")),
        )  # fmt: skip


def load_any_detector_folder(path: Path) -> PatternDetector | EventDetector:
    """Return the detector in a folder, of whichever kind its card names. Raises: UserError as both loaders do."""
    if detector_kind(read_detector_card(path / DETECTOR_CARD)) == EVENT_KIND:
        return load_event_detector_folder(path)
    return load_detector_folder(path)


def _part(
    number: int, about: dict[str, Any], sizes: tuple[int, tuple[int, int], int], tensors: dict[str, Tensor]
) -> EventPart:
    """Return one net around its tensors. Shapes are compared first, without using memory: a file may claim any size."""
    first, last = (int(column) for column in about["columns"])
    shape = NetShape(last - first, *sizes, int(about.get("max_events", 1)))
    own = {name.removeprefix(f"{number}."): one for name, one in tensors.items() if name.startswith(f"{number}.")}

    def make() -> EventNet | PresenceReader:
        if about["name"] == PRESENCE:
            return PresenceReader(shape, int(about["num_directions"]))
        return NETS[about["name"]](shape, int(about["hidden"]))

    with torch.device("meta"):
        make().load_state_dict({name: tensor.to("meta") for name, tensor in own.items()})
    net = make()
    net.load_state_dict(own)
    return EventPart(net.eval(), (first, last), float(about["weight"]))
