"""A class has one colour in every picture of a detector, and a bar its time of day."""

from __future__ import annotations

from moola_mlflow.reports.plots.candles import CLASS_COLORS, class_color, clock
from moola_mlflow.windows.windows import MINUTE_NS


def test_classes_have_colours_of_their_own_until_there_are_more_classes_than_colours() -> None:
    names = [f"class {i}" for i in range(len(CLASS_COLORS) + 1)]
    colors = [class_color(names, name) for name in names]
    assert len(set(colors[:-1])) == len(CLASS_COLORS)
    assert colors[-1] == colors[0]


def test_the_time_of_day_is_that_of_utc() -> None:
    assert clock((24 * 60 + 9 * 60 + 5) * MINUTE_NS) == "09:05"
