"""Section ``labels``: labelled windows, from a file or made by a rule."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from moola_mlflow.core.config.base import Section


class WeakLabelsConfig(Section):
    """Labels that a rule makes from bars."""

    n: int = Field(174, ge=2, lt=2**31)
    """Labelled windows to make; if fewer are found, all of them."""
    sample_seed: int = Field(1001, ge=0)
    """Seed of the sample bars that are labelled; it must differ from bars.sample_seed, which pre-training reads."""
    overlap: bool = False
    """Whether windows that a rule labels may share bars."""
    rule: str = "surge-1"
    """Rule that labels windows: surge-1, one of your own, or a drawn rule such as strict-0-12."""
    rejects: bool = False
    """Whether windows that the rule does not label are kept as `none`; labels.n then counts the windows looked at."""


class LabelsConfig(WeakLabelsConfig):
    """Labelled windows, from a file or made by a rule from sample bars."""

    path: str = "sample"
    """A parquet file of labelled windows, a folder or a glob of such files, runs:/ID of a run of `label`, or `sample`:
    weak labels on sample bars."""
    duplicates: Literal["refuse", "newest"] = "refuse"
    """What becomes of a window that two of several files hold, bar by bar: refuse, or newest: the one labelled last
    stays, by the column labelled_at or the time of its file."""
    seed: int = Field(17, ge=0, lt=2**32)
    """Seed that draws the windows of `sample`, and where events lie in windows cut around times; not trainer.seed."""


class TrueLabelsConfig(Section):
    """Windows looked at, which say what is true."""

    path: str = Field("", description=LabelsConfig.model_fields["path"].description)
    duplicates: Literal["refuse", "newest"] = Field(
        "refuse", description=LabelsConfig.model_fields["duplicates"].description
    )


class ShownLabelsConfig(LabelsConfig):
    """Labelled windows of any form: how they are read, and which of them get a chart."""

    rest: Literal["unknown", "none"] = "unknown"
    """What bars outside all spans of a CSV or of Label Studio mean: unknown: no window is cut there; none: somebody
    looked at all of them, so windows without an event are cut there."""

    windows: str = ""
    """Parquet that says which bars the windows of annotation batches show: window_id, and features, start_time or
    center_timestamp; not set: the one in the folder of the batches."""
    centre_bar: int = Field(52, ge=0)
    """Bar of a window that its center_timestamp means."""
    charts: int = Field(400, ge=0, le=900)
    """Windows that get a chart on the page, spread over classes and rejects; a page holds about 230 of 105 bars."""
