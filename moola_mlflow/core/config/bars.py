"""Section ``bars``: where bars come from and how they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from moola_mlflow.core.config.base import Section, from_text

RESAMPLED = {"1min": 1, "5min": 5, "15min": 15}
"""Minutes of the bars that ``bars.resample`` makes."""
GAP_BARS = 5
"""``bars.max_gap_minutes`` is that many bars where it is not given."""


def _number(value: Any) -> Any:
    """Return the number that a text of digits says; any other value as it is."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


class SampleLengthConfig(Section):
    """The embedded sample series."""

    sample_bars: int = Field(200_000, ge=1, lt=2**31)
    """Number of bars in the embedded sample series."""


class SampleBarsConfig(SampleLengthConfig):
    """The embedded sample series, which labels=sample is made from."""

    sample_seed: int = Field(1, ge=0)
    """Seed of the embedded sample series."""
    max_gap_minutes: int = Field(5, ge=1)
    """A gap of more minutes between two bars ends a segment; no window crosses it. Unset: five bars."""


class BarFilesConfig(Section):
    """The files that bars come from, and how they are read."""

    path: str = "sample"
    """A file, a folder, a glob, or `sample` for the embedded sample series."""
    instrument: str | None = None
    """A symbol or id, `front` (the highest volume of each trade date), or `all`. Needed if a file holds several."""
    timezone: str = "UTC"
    """Clock of times that name no zone: an IANA name, an offset such as +02:00, or both: America/New_York+7."""
    stamp: Literal["start", "end"] = "start"
    """Whether a bar's time is its start or its end."""
    repair: Literal["refuse", "drop", "drop_filled", "drop_all"] = "refuse"
    """Refuse bad rows, or drop and count them (drop); drop minutes that a vendor filled in (drop_filled); or both."""
    dates: Literal["auto", "month_first", "day_first"] = "auto"
    """Order of dates such as 03/04/2024; auto: as fits the file, or another file of the folder."""
    epoch: Literal["auto", "unix", "excel", "sierra", "stata", "cocoa", "dotnet", "filetime", "matlab"] = "auto"
    """What times that are numbers count from; auto: Unix in any unit, or days of Excel."""
    columns: dict[str, str] = Field({})
    """Names of columns, where they are unusual: {time: when, close: settle}; a date and a time: {time: d+t}."""

    instrument_from: Literal["column", "file", "folder"] = "column"
    """What names the instrument: a column, the name of the file, or the name of its folder."""
    resample: Literal["1min", "5min", "15min"] | None = None
    """Put ticks, or shorter bars, together into bars of this length. Unset: the file's bars have `minutes`."""
    minutes: Literal[1, 5, 15] = 1
    """Length of a bar in minutes. A window of 105 bars then lasts 105 times as long."""

    @field_validator("columns", mode="before")
    @classmethod
    def _columns_from_text(cls, value: Any) -> Any:
        value = from_text(value, "{time: when, close: settle}")
        return {str(role): str(name) for role, name in value.items()} if isinstance(value, Mapping) else value

    @field_validator("minutes", mode="before")
    @classmethod
    def _minutes_from_text(cls, value: Any) -> Any:
        return _number(value)

    @model_validator(mode="before")
    @classmethod
    def _length_of_resampled(cls, given: Any) -> Any:
        """Set ``minutes`` as ``resample`` says."""
        if not isinstance(given, Mapping) or "minutes" in given:
            return given
        minutes = RESAMPLED.get(str(given.get("resample")))  # any value may come here: a list has no hash
        return given if minutes is None else {**given, "minutes": minutes}

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.resample is not None and RESAMPLED[self.resample] != self.minutes:
            raise ValueError(
                f"bars.resample={self.resample} makes bars of {RESAMPLED[self.resample]} minutes, and bars.minutes is "
                f"{self.minutes}; leave one of the two out"
            )
        return self


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
        Clock of times that name no zone; ``UTC`` by default. An IANA name, an offset such as ``+02:00``, or both:
        ``America/New_York+7`` is seven hours ahead of New York.
    stamp
        Whether a bar's time is its ``start`` (default) or its ``end``.
    repair
        What to do with bad rows: ``refuse`` the file (default), or ``drop`` them. ``drop_filled`` drops minutes that a
        vendor filled in, ``drop_all`` both.
    dates
        Order of dates such as 03/04/2024: ``month_first``, ``day_first``, or ``auto`` (default), as fits the files.
    epoch
        What times that are numbers count from; ``auto`` (default) reads Unix epochs and days of Excel.
    columns
        Names of columns by role, where they are unusual: ``{"time": "when", "close": "settle"}``.
    instrument_from
        What names the instrument: a ``column`` (default), the name of the ``file``, or of its ``folder``.
    resample
        ``1min``, ``5min`` or ``15min`` puts ticks, or shorter bars, together into bars of that length.
    minutes
        Length of a bar in minutes: 1 (default), 5 or 15.
    sample_bars
        Number of bars in the embedded sample series.
    sample_seed
        Seed of the embedded sample series.
    max_gap_minutes
        A gap of more minutes between two bars ends a segment; no window crosses it. By default it is five bars.

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

    @model_validator(mode="before")
    @classmethod
    def _gap_of_five_bars(cls, given: Any) -> Any:
        """Set ``max_gap_minutes`` to five bars where it is not given."""
        if not isinstance(given, Mapping) or "max_gap_minutes" in given:
            return given
        minutes = RESAMPLED.get(str(given.get("resample")), _number(given.get("minutes")))
        return {**given, "max_gap_minutes": GAP_BARS * minutes} if minutes in (5, 15) else given

    @model_validator(mode="after")
    def _gap_of_a_bar(self) -> Self:
        if self.max_gap_minutes < self.minutes:
            raise ValueError(
                f"bars.max_gap_minutes={self.max_gap_minutes} is less than a bar of {self.minutes} minutes, so no two "
                f"bars would be neighbours; give {self.minutes} or more, or leave it out"
            )
        return self
