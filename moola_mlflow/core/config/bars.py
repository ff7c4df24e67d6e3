"""Section ``bars``: where bars come from and how they are read."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from moola_mlflow.core.config.base import Section


class SampleLengthConfig(Section):
    """The embedded sample series."""

    sample_bars: int = Field(200_000, ge=1, lt=2**31)
    """Number of bars in the embedded sample series."""


class SampleBarsConfig(SampleLengthConfig):
    """The embedded sample series, which labels=sample is made from."""

    sample_seed: int = Field(1, ge=0)
    """Seed of the embedded sample series."""
    max_gap_minutes: int = Field(5, ge=1)
    """A gap of more minutes between two bars ends a segment; no window crosses it."""


class BarFilesConfig(Section):
    """The files that bars come from, and how they are read."""

    path: str = "sample"
    """A file, a folder, a glob, or `sample` for the embedded sample series."""
    instrument: str | None = None
    """A symbol or id, `front` (the highest volume of each trade date), or `all`. Needed if a file holds several."""
    timezone: str = "UTC"
    """IANA time zone of times that name no zone."""
    stamp: Literal["start", "end"] = "start"
    """Whether a bar's time is its start or its end."""
    repair: Literal["refuse", "drop"] = "refuse"
    """What to do with bad rows: refuse the file, or drop them and log how many of each kind."""


# Fields of the last base class come first: the keys of files lead the help.
class BarsConfig(SampleBarsConfig, BarFilesConfig):
    """Where bars come from, and how they are read.

    These are the keys of the section ``bars`` of a preset.

    Parameters
    ----------
    path
        A file, a folder, a glob, a bar store, or ``sample`` (default) for the embedded sample series.
    instrument
        A symbol or id, ``front`` (the highest volume of each trade date), or ``all``. Needed if a file holds several.
    timezone
        IANA time zone of times that name no zone; ``UTC`` by default.
    stamp
        Whether a bar's time is its ``start`` (default) or its ``end``.
    repair
        What to do with bad rows: ``refuse`` the file (default), or ``drop`` them.
    sample_bars
        Number of bars in the embedded sample series.
    sample_seed
        Seed of the embedded sample series.
    max_gap_minutes
        A gap of more minutes between two bars ends a segment; no window crosses it.

    Raises
    ------
    ValueError
        For an unknown key, or for a value that is not allowed.

    Examples
    --------
    >>> config = BarsConfig(path="bars.csv", timezone="America/New_York", stamp="end")
    >>> config.stamp, config.repair
    ('end', 'refuse')
    >>> BarsConfig(stamp="close")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    pydantic_core._pydantic_core.ValidationError: 1 validation error for BarsConfig
    stamp
    ...
    """
