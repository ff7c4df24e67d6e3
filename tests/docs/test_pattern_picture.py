"""The picture of the README shows what a detector finds, and can be made again."""

from __future__ import annotations

import candle_pictures
import pattern_picture
from small_models import CLASSES, small_detector

import moola_mlflow as moola


def test_the_picture_shows_the_most_probable_patterns_of_each_class_with_their_spans() -> None:
    bars = moola.read_bars(moola.BarsConfig(path="sample", sample_bars=20_000, sample_seed=7))
    hits = moola.scan(bars, small_detector("price_path"), min_probability=0, min_span_score=0)
    shown = pattern_picture.best(hits)
    assert set(shown["label"]) <= set(CLASSES)
    for name, group in shown.groupby("label"):
        rest = hits[hits["label"] == name].drop(group.index)
        assert group["probability"].min() >= rest["probability"].max()
    windows = pattern_picture.pictures(bars, shown)
    figure = candle_pictures.figure_of(windows, 2)
    assert [ax.get_title("left") for ax in figure.axes] == [window.title for window in windows]
    assert len(windows) == len(shown) > 1
    for window, (_, hit) in zip(windows, shown.iterrows(), strict=True):
        (span,) = window.spans
        assert window.times[span.start] == hit["start"].to_datetime64()
        assert window.times[span.end] == hit["end"].to_datetime64()
        assert span.name == hit["label"]
