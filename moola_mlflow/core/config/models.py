"""Sections ``encoder``, ``objective`` and ``detect``: the network, what it learns, and how a detector scans bars."""

from __future__ import annotations

import zoneinfo
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from moola_mlflow.core.config.base import Section, current_name


class EncoderSizeConfig(Section):
    """The network that reads a window."""

    hidden: int = Field(128, ge=1, le=2**16)
    """Units in each direction; the encoding of a step has twice as many numbers."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout between layers."""


class EncoderConfig(EncoderSizeConfig):
    """The network that reads a window."""

    layers: int = Field(2, ge=1, le=64)
    """Stacked layers."""
    name: str = "bilstm"
    """Architecture: bilstm, mingru, attention, dilated, or the name of your file in models/encoders/."""
    inputs: Literal["features", "price_path", "both"] = "features"
    """What the encoder reads at each step: the features, the price-path features, or both."""


class DrawnRulesConfig(Section):
    """Which labelling rules are drawn."""

    num_rules: int = Field(256, ge=2, le=2**16)
    """Number of random labelling rules that the objective `rules` learns to imitate."""
    family: Literal["strict", "broad", "shapes", "ultra"] = "strict"
    """Rules to draw from; broad adds rules that search as the sample's labels do, shapes adds chart patterns."""
    rules_seed: int = Field(0, ge=0, lt=2**32)
    """Seed that draws the rules; it is not trainer.seed."""


class ObjectiveConfig(DrawnRulesConfig):
    """What the encoder learns in pre-training."""

    name: str = "masked"
    """Objective: the name of a file in models/objectives/, or a weighted sum such as `price_path+0.5*masked`."""
    mask_strategy: Literal["random", "patch"] = "random"
    """Hide single steps (random) or blocks of steps (patch)."""
    mask_ratio: float | None = Field(None, gt=0, lt=1)
    """Share of the valid steps to hide; default 0.15 (random) or 0.4 (patch)."""
    mask_patch: int = Field(10, ge=1)
    """Steps in a block of the patch strategy."""
    hide_masked: bool = True
    """Whether masked steps are hidden from the encoder; false, as published, lets it copy its input."""
    uncertainty: bool = False
    """Learn a scale s of the error together with the network: the loss is Huber / (2 s^2) + log s."""
    log_sigma_min: float = -3.0
    """Lowest value of the learned log s (published: -6)."""
    units: Literal["z", "raw"] = "z"
    """Units of the loss: z-scored features (z) or raw features (raw, as published)."""
    jitter_sigma: float = Field(0.03, ge=0)
    """Gaussian noise on the input in training, in z units; the target stays clean."""
    rules_per_step: int = Field(32, ge=1, le=2**16)
    """Rules that one step trains, drawn again for each step."""

    @model_validator(mode="before")
    @classmethod
    def _ratio_by_strategy(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("mask_ratio") is None:
            return {**data, "mask_ratio": 0.4 if data.get("mask_strategy") == "patch" else 0.15}
        return data

    @field_validator("name")
    @classmethod
    def _current_name(cls, value: str) -> str:
        return current_name(value)


class DetectConfig(Section):
    """The detector that scans the bars, and which of its hits are kept."""

    detector: str = "models:/moola-detector@champion"
    """Detector: models:/ or runs:/ URI, or folder."""
    stride: int = Field(21, ge=1, lt=2**31)
    """Bars between two windows that are read. A span detector also reads a window that ends at a segment's last bar."""
    min_probability: float = Field(0.8, ge=0, le=1)
    """Least calibrated probability of a hit: a detector names a class in every window."""
    min_span_score: float = Field(0.8, ge=0, le=1)
    """Least probability that the span head gives to the 3 bars around the centre; other heads have no such score."""
    margin: int = Field(20, ge=0)
    """Least number of bars in the window before and after a hit's span: the class is read from them."""
    min_score: float | None = Field(None, ge=0, le=1)
    """Event detectors: least calibrated score of an event; none: the detector's own threshold."""
    precision: float | None = Field(None, gt=0, lt=1)
    """Event detectors: choose the threshold for this expected precision on the bars that are scanned."""
    max_per_day: float | None = Field(None, gt=0)
    """Event detectors: choose the threshold for at most this many events a day on average."""
    top: int = Field(50, ge=0, le=1000)
    """Charts on the page, of the most probable hits or events; at most 80 of a kind."""


class FollowConfig(DetectConfig):
    """The detector that scans the bars, and which of its hits are kept."""

    follow: bool = False
    """Event detectors: follow bars that come one by one, from a file that grows or, with bars=-, from standard input,
    and print each event once it is final. Ctrl-C ends the run."""
    lines: Literal["table", "json"] = "table"
    """How an event is printed while bars are followed: a line to read, or a JSON object."""
    clock: str = "America/New_York"
    """Event detectors: clock of the hours in the tables of what follows events, an IANA name."""
    signals: bool = False
    """Event detectors: also write signals.parquet for backtests: the bars, with columns that say when events are
    known."""
    idle_s: float | None = Field(None, ge=0)
    """End after so many seconds without a new line; none: go on until Ctrl-C, or until standard input ends."""

    @field_validator("clock")
    @classmethod
    def _known_clock(cls, value: str) -> str:
        try:
            zoneinfo.ZoneInfo(value)
        except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
            raise ValueError("give an IANA name such as America/Chicago or UTC") from None
        return value
