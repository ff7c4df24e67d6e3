"""The overview of a scan marks every hit."""

from __future__ import annotations

import pickle

import numpy as np

from moola_mlflow.reports.plots.figure import png_bytes
from moola_mlflow.reports.plots.overview import OverviewPicture
from moola_mlflow.reports.plots.png import draw_png
from moola_mlflow.windows.windows import MINUTE_NS


def test_the_overview_marks_every_hit_also_of_classes_with_odd_names() -> None:
    close, times = np.linspace(1, 2, 5000), np.arange(5000) * MINUTE_NS
    first = np.array([10, 2000, 4000])
    picture = OverviewPicture.of(
        close, times, first, first + 5, ["$a$", "b", "b"], np.array([0.5, 0.9]), 0.8, ["$a$", "b"]
    )
    figure = picture.draw()
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["\\$a\\$ (1)", "b (2)"]
    middles = [line.get_xdata() for line in figure.axes[0].lines[1:]]
    assert [[*map(int, middle)] for middle in middles] == [[12], [2002, 4002]]
    assert draw_png(pickle.loads(pickle.dumps(picture))) == png_bytes(figure), "as a worker draws it"
