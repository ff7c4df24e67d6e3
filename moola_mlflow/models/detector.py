"""From raw OHLC windows to the patterns in them: the code that fine-tuning and serving share, so both give the same.

Shape legend: N windows, T steps, F raw features, P inputs of the head a step, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from moola_mlflow.features import PRICE_PATH_FEATURE_NAMES, FeatureChoice, price_path_features
from moola_mlflow.models.calibration import apply_temperature
from moola_mlflow.models.embedding import check_windows, encoder_inputs
from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.encoders.ensemble import members_of
from moola_mlflow.models.heads import HIT_BARS, Detector, Inputs, Output, SpanHead, parts_of, span_scores

CHUNK = 256
"""Windows computed together: the inputs of 256-number encodings and price-path features take 35 MB."""


@dataclass(frozen=True)
class Found:
    """What a detector finds in each window.

    Shapes: label text [N]; probability float64 [N, C], calibrated, in the order of the detector's classes; start and
    end int64 [N], the first and last step of the expansion; span_score float64 [N].
    """

    label: np.ndarray
    probability: np.ndarray
    start: np.ndarray
    end: np.ndarray
    span_score: np.ndarray
    """Probability that the span head gives to spans with a centre within 3 bars of this one's: 0 to 1, not calibrated;
    NaN for other heads."""

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class PatternDetector:
    """A fitted head with everything that it reads. It is saved, served and promoted as one.

    Raises: ValueError if the parts do not fit each other.
    """

    head: Detector
    encoder: Encoder | None
    """Needed if the head reads an encoding."""
    inputs: Inputs
    classes: tuple[str, ...]
    temperature: float
    card: dict[str, Any]
    """Where it comes from, and the evidence that `promote` judges."""
    features: FeatureChoice | None = None
    """The hand-made features that the head reads beside the rest; needed for inputs with ``+features``."""

    def __post_init__(self) -> None:
        if self.inputs not in get_args(Inputs):
            raise ValueError(f"inputs='{self.inputs}'; allowed: {', '.join(get_args(Inputs))}")
        size = num_inputs(self.encoder, self.inputs, self.features)
        if len(self.head.mean) != size:
            raise ValueError(f"the head reads {len(self.head.mean)} inputs a step, inputs='{self.inputs}' makes {size}")
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes {list(self.classes)}; needed: two or more, each once")
        if not 0 < self.temperature < np.inf:
            raise ValueError(f"temperature={self.temperature}; allowed: a finite number above 0")

    @property
    def length(self) -> int:
        """Bars of a window."""
        return self.head.head.num_steps

    @torch.no_grad()
    def predict(self, ohlc_NT4: np.ndarray, precision: str = "fp32") -> Found:
        """Return class, calibrated probabilities and span of each window. They do not depend on the other windows.

        With ``precision`` bf16 the encoder is faster. Probabilities then differ from those that are served and that
        the temperature was fitted on: measured 0.0004 on average and 0.02 at most.

        Shapes: [N, T, 4], any N, T as in training. Raises: UserError for malformed windows.
        """
        ohlc = check_windows(ohlc_NT4, self.length)
        # An empty first part, so that no windows at all give empty columns.
        none: tuple[np.ndarray, ...] = (np.zeros((0, len(self.classes))), *np.zeros((2, 0), np.int64), np.zeros(0))
        parts = [none]
        with evaluating([self.head]):
            for lo in range(0, len(ohlc), CHUNK):
                part = ohlc[lo : lo + CHUNK]
                device = self.head.mean.device
                x_BTP = detector_inputs(self.encoder, self.inputs, part, device, precision, self.features)
                output = self.head(x_BTP)
                start, end = self.head.decode(output)
                score = span_score(self.head, output, start, end)
                columns = (output.class_logits, start, end, score)
                parts.append(tuple(column.numpy(force=True) for column in columns))
        logits_NC, start_N, end_N, score_N = (np.concatenate(column) for column in zip(*parts, strict=True))
        probability_NC = apply_temperature(logits_NC, self.temperature)
        label_N = np.array(self.classes)[probability_NC.argmax(1)]
        return Found(label_N, probability_NC, start_N, end_N, score_N)


def span_score(detector: Detector, output: Output, start_N: Tensor, end_N: Tensor) -> Tensor:
    """Return the probability that a span head gives to spans near the one it found; NaN for a head without spans.

    The probability is the softmax of log p_start + log p_end over the allowed spans; near is a centre within 3 bars.

    Shapes: start and end [N] -> float64 [N] on the CPU.
    """
    if not isinstance(detector.head, SpanHead):
        return torch.full(start_N.shape, torch.nan, dtype=torch.float64)
    score_NST = span_scores(*output.pointers, detector.head.lengths).cpu().double()  # on the CPU: MPS has no float64
    start_N, end_N = start_N.cpu(), end_N.cpu()
    num_lengths, num_steps = score_NST.shape[1:]
    length_S1 = torch.arange(num_lengths)[:, None] + detector.head.lengths[0]
    twice_centre_ST = 2 * torch.arange(num_steps) + length_S1 - 1
    near_NST = (twice_centre_ST - (start_N + end_N)[:, None, None]).abs() <= 2 * HIT_BARS
    return (score_NST.flatten(1).softmax(1) * near_NST.flatten(1)).sum(1)


def num_inputs(encoder: Encoder | None, which: Inputs, features: FeatureChoice | None = None) -> int:
    """Return how many inputs a step :func:`detector_inputs` makes.

    Raises: ValueError if an encoding is wanted and there is no encoder, or features and no set of them.
    """
    return sum(input_sizes(encoder, which, features))


def input_sizes(encoder: Encoder | None, which: Inputs, features: FeatureChoice | None) -> tuple[int, ...]:
    """Return the number of inputs of each part."""
    parts = parts_of(which)
    if "encoding" in parts and encoder is None:
        raise ValueError(f"inputs='{which}' needs an encoder; without one inputs='price_path' is allowed")
    if "features" in parts and features is None:
        raise ValueError(f"inputs='{which}' needs a set of features")
    size = {
        "encoding": encoder.output_size if encoder is not None else 0,
        "price_path": len(PRICE_PATH_FEATURE_NAMES),
        "features": len(features.names) if features is not None else 0,
    }
    return tuple(size[part] for part in parts)


def encoder_features(encoder: Encoder, ohlc_NT4: np.ndarray) -> Tensor:
    """Return the raw inputs that an encoder reads, as its card says; for an ensemble, those of all members.

    Shapes: [N, T, 4] -> float32 [N, T, F].
    """
    # Members mostly read the same features, which are then computed once.
    computed: dict[str, np.ndarray] = {}
    parts = []
    for member in members_of(encoder):
        spec = str((member.card["features"], member.card["architecture"].get("inputs")))
        if spec not in computed:
            computed[spec] = encoder_inputs(member.card, ohlc_NT4)
        parts.append(computed[spec])
    return torch.from_numpy(np.concatenate(parts, -1))


@torch.no_grad()
def detector_inputs(
    encoder: Encoder | None,
    which: Inputs,
    ohlc_NT4: np.ndarray,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    features: FeatureChoice | None = None,
) -> Tensor:
    """Return a head's inputs from raw windows: frozen encodings, price-path features, features of a set, in this order.

    The encoder runs in evaluation mode on its own device, under autocast if ``precision`` is bf16. The result is put
    on ``device``.

    Shapes: [N, T, 4] -> float32 [N, T, P]. Raises: ValueError as :func:`num_inputs` does.
    """
    sizes = input_sizes(encoder, which, features)
    ohlc_NT4 = np.asarray(ohlc_NT4, np.float64)
    inputs_NTP = torch.empty((*ohlc_NT4.shape[:2], sum(sizes)), device=device)
    reads = encoder if "encoding" in parts_of(which) else None
    with evaluating([reads] if reads is not None else []):
        for lo in range(0, len(ohlc_NT4), CHUNK):
            ohlc_BT4 = ohlc_NT4[lo : lo + CHUNK]
            columns = inputs_NTP[lo : lo + CHUNK].split(sizes, -1)
            for part, column_BTP in zip(parts_of(which), columns, strict=True):
                if part == "encoding" and reads is not None:
                    column_BTP.copy_(_encoded(reads, ohlc_BT4, precision))
                else:
                    column_BTP.copy_(further_inputs(part, ohlc_BT4, features))
    return inputs_NTP


def further_inputs(which: str, ohlc_NT4: np.ndarray, features: FeatureChoice | None) -> Tensor:
    """Return the inputs of a head that no encoder makes: those of every part but the encoding.

    Shapes: [N, T, 4] -> float32 [N, T, P].
    """
    parts = [np.zeros((*ohlc_NT4.shape[:2], 0), np.float32)]
    for part in parts_of(which):
        if part == "price_path":
            parts.append(price_path_features(ohlc_NT4))
        if part == "features" and features is not None:
            parts.append(features.compute(ohlc_NT4))
    return torch.from_numpy(np.concatenate(parts, -1))


def _encoded(encoder: Encoder, ohlc_NT4: np.ndarray, precision: str) -> Tensor:
    device = encoder.mean.device
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        return encoder(encoder_features(encoder, ohlc_NT4).to(device))


@contextmanager
def evaluating(modules: Sequence[torch.nn.Module]) -> Iterator[None]:
    """Put modules into evaluation mode inside, and each back as it was afterwards."""
    before = [module.training for module in modules]
    try:
        for module in modules:
            module.eval()
        yield
    finally:
        for module, training in zip(modules, before, strict=True):
            module.train(training)
