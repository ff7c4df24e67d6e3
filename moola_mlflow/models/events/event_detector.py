"""A detector that can say "nothing here": nets whose beliefs are averaged, and the encoder that they need.

Shape legend: N windows, C classes, S allowed lengths, T steps, P inputs a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from moola_mlflow.features import FeatureChoice
from moola_mlflow.models.calibration import apply_temperature
from moola_mlflow.models.detector import CHUNK, detector_inputs, num_inputs
from moola_mlflow.models.embedding import check_windows
from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.events.belief import best_spans, centre_maps
from moola_mlflow.models.events.counting import several_events
from moola_mlflow.models.events.nets import EventNet
from moola_mlflow.models.events.presence import PresenceReader
from moola_mlflow.models.events.score_calibration import ScoreCalibration
from moola_mlflow.models.heads import Inputs

NONE = "none"
LEAST = 1e-12
"""Probabilities below this are raised to it before their logarithm is taken."""


@dataclass(frozen=True)
class EventPart:
    """A net, the inputs that it reads, and its weight in the average."""

    net: EventNet | PresenceReader
    columns: tuple[int, int]
    """First input of each step that the net reads, and the one after the last."""
    weight: float


@dataclass(frozen=True)
class Reading:
    """The predictions of all nets for some windows, averaged and not calibrated.

    Shapes: probability float64 [N, C + 1], the last column none; maps float32 [N, 3, C, T], see ``centre_maps``; start
    and end int64 [N, C], the most probable span of each class.
    """

    probability: np.ndarray
    maps: np.ndarray
    start: np.ndarray
    end: np.ndarray


@dataclass(frozen=True)
class EventFound:
    """What an event detector finds in each window.

    Shapes: label text [N], a class or ``none``; probability float64 [N, C + 1], calibrated, in the order of the
    detector's classes, the last column ``none``; start and end int64 [N], the span of the label's class, -1 for none.
    """

    label: np.ndarray
    probability: np.ndarray
    start: np.ndarray
    end: np.ndarray

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class EventDetector:
    """Fitted nets, and everything that is needed to run them. It is saved, served and promoted as one detector.

    Raises: ValueError if the parts do not fit each other.
    """

    parts: tuple[EventPart, ...]
    encoder: Encoder | None
    """Needed if a net reads an encoding."""
    inputs: Inputs
    classes: tuple[str, ...]
    """Without ``none``."""
    temperature: float
    """Calibrates the probabilities of a window."""
    calibration: ScoreCalibration
    """Calibrates the scores of the events that a scan finds."""
    threshold: float
    """Calibrated score at and above which a scan reports an event."""
    card: dict[str, Any]
    """Where it comes from, and the evidence that `promote` judges."""
    features: FeatureChoice | None = None
    """The hand-made features that the nets also read; needed for inputs with ``+features``."""

    def __post_init__(self) -> None:
        if self.inputs not in get_args(Inputs):
            raise ValueError(f"inputs='{self.inputs}'; allowed: {', '.join(get_args(Inputs))}")
        if not self.classes or len(set(self.classes)) < len(self.classes) or NONE in self.classes:
            raise ValueError(f"classes {list(self.classes)}; needed: one or more, each once, none of them '{NONE}'")
        if not self.parts or not np.isclose(sum(part.weight for part in self.parts), 1):
            raise ValueError(
                f"the weights of {len(self.parts)} nets sum to {sum(p.weight for p in self.parts):g}, not 1"
            )
        shapes = {(part.net.shape.num_classes, part.net.shape.lengths, part.net.shape.num_steps) for part in self.parts}
        if len(shapes) > 1 or self.parts[0].net.shape.num_classes != len(self.classes):
            raise ValueError(
                f"the nets read (classes, lengths, steps) {sorted(shapes)}, the classes are {self.classes}"
            )
        size = num_inputs(self.encoder, self.inputs, self.features)
        for part in self.parts:
            first, last = part.columns
            if not 0 <= first < last <= size or last - first != part.net.shape.num_inputs:
                raise ValueError(
                    f"a net of {part.net.shape.num_inputs} inputs reads columns {first} to {last} of {size} "
                    f"(inputs='{self.inputs}')"
                )
        if not 0 < self.temperature < np.inf:
            raise ValueError(f"temperature={self.temperature}; allowed: a finite number above 0")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold={self.threshold}; allowed: 0 to 1")

    def with_card(self, card: dict[str, Any]) -> EventDetector:
        """Return the same detector with another card."""
        return replace(self, card=card)

    @property
    def length(self) -> int:
        """Bars of a window."""
        return self.parts[0].net.shape.num_steps

    @property
    def lengths(self) -> tuple[int, int]:
        """Shortest and longest event, in bars."""
        return self.parts[0].net.shape.lengths

    def predict(self, ohlc_NT4: np.ndarray, precision: str = "fp32") -> EventFound:
        """Return label, calibrated probabilities and span of each window. They do not depend on the other windows.

        With ``precision`` bf16 the encoder is faster and the probabilities differ a little.

        Shapes: [N, T, 4], any N, T as in training. Raises: UserError for malformed windows.
        """
        reading = self.read(ohlc_NT4, precision)
        logits = np.log(np.maximum(reading.probability, LEAST))
        probability = apply_temperature(logits, self.temperature)
        best, rows = probability.argmax(1), np.arange(len(probability))
        label = np.array([*self.classes, NONE])[best]
        is_none, at = best == len(self.classes), np.minimum(best, len(self.classes) - 1)
        start, end = (np.where(is_none, -1, ends[rows, at]) for ends in (reading.start, reading.end))
        return EventFound(label, probability, start, end)

    def to(self, device: torch.device | str) -> EventDetector:
        """Move the nets and the encoder to a device, and return this detector."""
        for part in self.parts:
            part.net.to(device)
        if self.encoder is not None:
            self.encoder.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """The device of the nets."""
        return next(self.parts[0].net.parameters()).device

    @torch.no_grad()
    def read(self, ohlc_NT4: np.ndarray, precision: str = "fp32") -> Reading:
        """Return the predictions for raw windows, before calibration. Raises: UserError for malformed windows."""
        ohlc = check_windows(ohlc_NT4, self.length)
        device = self.device
        if not len(ohlc):  # no windows give empty columns
            return read_inputs(self.parts, torch.zeros((0, self.length, self._num_inputs), device=device))
        readings = []
        for lo in range(0, len(ohlc), CHUNK):
            x_BTP = detector_inputs(self.encoder, self.inputs, ohlc[lo : lo + CHUNK], device, precision, self.features)
            readings.append(read_inputs(self.parts, x_BTP))
        return joined_readings(readings)

    @property
    def _num_inputs(self) -> int:
        return num_inputs(self.encoder, self.inputs, self.features)


@torch.no_grad()
def read_inputs(parts: Sequence[EventPart], x_NTP: Tensor) -> Reading:
    """Return the averaged predictions of nets, from the inputs of all of them.

    The inputs are on the device of the nets. Shapes: float32 [N, T, P].
    """
    readings = []
    for x_BTP in x_NTP.split(CHUNK) if len(x_NTP) else (x_NTP,):
        class_BC, maps_B3CT, start_BC, end_BC = averaged(parts, x_BTP)
        known_BC = class_BC.cpu().double()  # on the CPU: MPS has no float64
        none_B1 = (1 - known_BC.sum(1, keepdim=True)).clamp(min=0)
        columns = (torch.cat([known_BC, none_B1], 1), maps_B3CT, start_BC, end_BC)
        readings.append(Reading(*(column.cpu().numpy() for column in columns)))
    return joined_readings(readings)


def averaged(parts: Sequence[EventPart], x_BTP: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what nets believe on average, on their device: mass of each class, maps, and the most probable spans.

    Shapes: [B, C], [B, 3, C, T], and first and last step [B, C] each.
    """
    shape, device = parts[0].net.shape, x_BTP.device
    belief_BCST = torch.zeros((len(x_BTP), shape.num_classes, *shape.spans), device=device)
    events_B, counting = torch.zeros(len(x_BTP), device=device), 0.0
    for part in parts:
        belief, events = part.net.read(x_BTP[..., part.columns[0] : part.columns[1]])
        belief_BCST.add_(belief, alpha=part.weight)
        if events is not None:
            events_B, counting = events_B + part.weight * events, counting + part.weight
    class_BC = belief_BCST.sum((2, 3))
    every = [
        best_spans(belief_BCST, torch.full((len(x_BTP),), label, device=device), shape.lengths)
        for label in range(shape.num_classes)
    ]
    start_BC, end_BC = (torch.stack(ends, 1) for ends in zip(*every, strict=True))
    maps_B3CT = centre_maps(belief_BCST, shape.lengths)
    if counting:
        none_B = (1 - class_BC.sum(1)).clamp(min=0)
        maps_B3CT = several_events(maps_B3CT, none_B, events_B / counting)
    return class_BC, maps_B3CT, start_BC, end_BC


def joined_readings(readings: Sequence[Reading]) -> Reading:
    """Return readings of several groups of windows as one."""
    names = ("probability", "maps", "start", "end")
    return Reading(*(np.concatenate([getattr(one, name) for one in readings]) for name in names))
