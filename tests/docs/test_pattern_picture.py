"""The picture of the README is drawn from what a detector finds, and can be made again."""

from __future__ import annotations

from xml.etree import ElementTree

import pattern_picture
from small_models import CLASSES, small_detector

import moola_mlflow as moola

SVG = "{http://www.w3.org/2000/svg}"


def test_the_picture_shows_the_most_probable_patterns_of_each_class_with_their_spans() -> None:
    bars = moola.read_bars(moola.BarsConfig(path="sample", sample_bars=20_000, sample_seed=7))
    hits = moola.scan(bars, small_detector("price_path"), min_probability=0, min_span_score=0)
    shown = pattern_picture.best(hits)
    assert set(shown["label"]) <= set(CLASSES)
    for name, group in shown.groupby("label"):
        rest = hits[hits["label"] == name].drop(group.index)
        assert group["probability"].min() >= rest["probability"].max()
    drawn = ElementTree.fromstring(pattern_picture.picture(bars, shown))
    charts = drawn.findall(f".//{SVG}svg")
    assert len(charts) == len(shown) > 1
    for chart, start in zip(charts, shown["start"], strict=True):
        assert len(chart.findall(f"{SVG}rect")) == 1, "one shaded span"
        assert f"{start:%H:%M}" in "".join(text.text or "" for text in chart.findall(f"{SVG}text"))


def test_the_committed_picture_has_two_patterns_of_each_class() -> None:
    drawn = ElementTree.parse(pattern_picture.PICTURE).getroot()
    names = [text.text or "" for text in drawn.iter(f"{SVG}text") if text.get("class") == "name"]
    assert [name.split(",")[0] for name in names] == ["consolidation"] * 2 + ["retracement"] * 2
