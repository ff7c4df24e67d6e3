"""The picture of what follows events has a line for each class and a grey one for random moments."""

from __future__ import annotations

import pickle

from small_events import random_event_detector, sample

from moola_mlflow.evaluation import follow_events
from moola_mlflow.models import scan_events
from moola_mlflow.reports.plots.after_events import AfterPicture
from moola_mlflow.reports.plots.figure import png_bytes
from moola_mlflow.reports.plots.png import draw_png


def test_every_class_and_the_random_moments_have_points_at_every_horizon() -> None:
    after = follow_events(scan_events(sample().rows(slice(0, 4000)), random_event_detector(), 0.0))
    picture = AfterPicture(after.table, after.classes)
    figure = picture.draw()
    move, size, hours = figure.axes
    for ax in (move, size):
        labels = [text.get_text() for text in ax.get_legend().get_texts()]
        assert [label.split(" (")[0] for label in labels] == [*after.classes, "random moments"]
        assert all(len(part.lines[0].get_xdata()) == 4 for part in ax.containers)
    assert len(hours.containers[0].lines[0].get_xdata()) == len(set(after.hour.tolist()))
    assert draw_png(pickle.loads(pickle.dumps(picture))) == png_bytes(figure), "as a worker draws it"
