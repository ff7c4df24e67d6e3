"""Section ``annotate``: how windows are shown to a person who labels them, and which comes next."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator

from moola_mlflow.core.config.base import Section


class AnnotatedLabelsConfig(Section):
    """The labels file that a person adds to."""

    path: str = "my_labels.parquet"
    """Parquet file that gets the labels. If it exists, its labels stay and new ones are added. Each decision is first
    appended to the file NAME.decisions.jsonl beside it."""


class GivenDetectorConfig(Section):
    """A detector that orders windows before one can be fitted on the labels."""

    detector: str = ""
    """Event detector whose scores order the windows until the first refit: models:/ or runs:/ URI, or folder. The
    windows of annotate.first_random come before it: set that to 0 to let it choose from the start."""


class AnnotateConfig(Section):
    """Who labels, what is asked, and in which order windows are shown."""

    annotator: str = "me"
    """Name of the person who labels; each has a queue of their own."""
    classes: str = ""
    """Classes to choose from, with commas between them; not set: those of the labels file, else those of the detector,
    else consolidation,retracement."""
    order: Literal["uncertain", "random", "top", "list"] = "uncertain"
    """uncertain: windows whose best event is nearest to a score of 0.5; random; top: the highest scores; list: the
    windows of annotate.list. All but list begin with random windows and keep some random ones."""
    list: str = ""
    """Windows to show in the order list, or hits to review: a file with a window_id in each line, or a
    detections.parquet of detect."""
    suggestions: bool = True
    """Whether events that the detector finds are shown in windows that are not blind."""
    review: bool = False
    """Whether to go through the labels of the file, those first that out-of-fold predictions contradict, and
    through the hits of annotate.list."""
    first_random: int = Field(60, ge=0, lt=2**31)
    """Windows at the start that are drawn at random and shown without suggestions, before the detector orders any."""
    ordered_share: float = Field(0.5, ge=0, le=1)
    """Share of the later windows that the order chooses. The others are random."""
    blind_share: float = Field(0.2, ge=0, le=1)
    """Share of the later windows that are random and shown without suggestions. The detector is scored on these and on
    the first random ones."""
    overlap: float = Field(0.1, ge=0, le=1)
    """Share of windows that every annotator of the same seed is shown, to measure their agreement."""
    refit_every: int = Field(25, ge=1, lt=2**31)
    """Number of decisions between two fits of the detector in the background."""
    encoder: str = ""
    """Pre-trained encoder whose encoding the refitted detector also reads; several, separated by commas, are an
    ensemble."""
    stride: int = Field(105, ge=1, lt=2**31)
    """Bars between the starts of two windows that may be shown. With the length of a window, no bar is in two
    windows."""
    context_bars: int = Field(210, ge=0, le=5000)
    """Largest number of bars before a window, and after it, that the page shows on request."""
    zone: str = "America/New_York"
    """Clock of the times on the axis: an IANA name."""
    seed: int = Field(17, ge=0, lt=2**32)
    """Seed of the random windows and of the refits."""
    host: str = "127.0.0.1"
    """Address to listen on. Only this machine can reach 127.0.0.1."""
    port: int = Field(8765, ge=0, le=65535)
    """Port to listen on; 0: a free one."""

    @field_validator("annotator")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not re.fullmatch(r"[\w .@+-]{1,60}", value) or not value.strip():
            raise ValueError("a name has 1 to 60 letters, digits, spaces and . _ - @ +")
        return value.strip()

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        from zoneinfo import ZoneInfo

        try:
            ZoneInfo(value)
        except (OSError, ValueError, KeyError) as e:
            raise ValueError("no such zone; give an IANA name such as America/Chicago") from e
        return value

    @field_validator("classes")
    @classmethod
    def _plain_classes(cls, value: str) -> str:
        names = [name.strip() for name in value.split(",") if name.strip()]
        if "none" in [name.casefold() for name in names]:
            raise ValueError("none is no class: it says that a window holds no event")
        if len({name.casefold() for name in names}) < len(names):
            raise ValueError("a class is given twice")
        if len(names) > 9:
            raise ValueError("give at most 9 classes: each has a number key")
        return ",".join(names)

    def class_names(self) -> tuple[Any, ...]:
        """Return the classes that were asked for."""
        return tuple(name for name in self.classes.split(",") if name)
