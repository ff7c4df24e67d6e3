"""Sections ``windows`` and ``split``: how bars are cut, and which windows train, choose and test."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator, model_validator

from moola_mlflow.core.config.base import Section, from_text


class WindowLengthConfig(Section):
    """How long a window is."""

    length: int = Field(105, ge=2, lt=2**31)
    """Bars in a window."""


class LabelledWindowsConfig(WindowLengthConfig):
    """How long a window is, and which of its steps are scored."""

    warmup: int = Field(20, ge=0)
    """First steps of a window that are never scored: their features have seen too few bars."""

    @model_validator(mode="after")
    def _warmup_fits(self) -> LabelledWindowsConfig:
        if self.warmup >= self.length:
            raise ValueError(
                f"warmup {self.warmup} leaves no valid step in a window of {self.length}; lower windows.warmup below it"
            )
        return self


class CutWindowsConfig(LabelledWindowsConfig):
    """How segments of bars are cut into windows."""

    stride: int = Field(52, ge=1, lt=2**31)
    """Bars between the starts of two neighbouring windows."""


class WindowsConfig(CutWindowsConfig):
    """How segments of bars are cut into windows, and how often each is drawn."""

    weights: dict[str, float] = Field({})
    """How often windows of an instrument (symbol or id) are drawn for training; instruments without a weight: 1."""

    @field_validator("weights", mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        value = from_text(value, "{ES: 2, NQ: 0.5}")
        return {str(name): weight for name, weight in value.items()} if isinstance(value, Mapping) else value

    @field_validator("weights")
    @classmethod
    def _not_negative(cls, value: dict[str, float]) -> dict[str, float]:
        if any(weight < 0 or weight > 1e6 for weight in value.values()):
            raise ValueError("a weight is a number from 0 (never drawn) to 1000000")
        return value


class SplitConfig(Section):
    """Which windows train, choose the epoch, and test: by shares of time, or by dates."""

    train: float = Field(0.8, gt=0, lt=1)
    """Share of the time-ordered windows for training."""
    val: float = Field(0.1, gt=0, lt=1)
    """Share for validation, which chooses the epoch."""
    test: float = Field(0.1, gt=0, lt=1)
    """Share for the test, which is scored once."""
    train_end: dt.date | None = None
    """Last UTC date of the training windows. Dates replace the shares; give all three or none."""
    val_end: dt.date | None = None
    """Last UTC date of the validation windows."""
    test_end: dt.date | None = None
    """Last UTC date of the test windows."""

    @model_validator(mode="after")
    def _consistent(self) -> SplitConfig:
        dates = [self.train_end, self.val_end, self.test_end]
        given = [date for date in dates if date is not None]
        if given and len(given) < 3:
            raise ValueError("train_end, val_end and test_end come together: give all three or none")
        if given != sorted(set(given)):
            shown = ", ".join(str(date) for date in given)
            raise ValueError(f"train_end < val_end < test_end is needed, the dates are {shown}; put them in order")
        if given and not (given[0].year >= 1900 and given[-1].year <= 2200):
            raise ValueError(f"dates from {given[0]} to {given[-1]}; allowed: years 1900 to 2200")
        if not given and self.train + self.val + self.test > 1 + 1e-9:
            total = self.train + self.val + self.test
            raise ValueError(f"train + val + test = {total:g}, more than 1; lower one of them")
        return self
