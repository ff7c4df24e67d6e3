"""The pictures of the rules are the examples of the command, one for each selector."""

from __future__ import annotations

import candle_pictures
import numpy as np
import pytest
import rule_pictures
from matplotlib.patches import Rectangle
from paths import ROOT

from moola_mlflow.labels import RULES, SELECTORS


def test_every_selector_and_every_named_rule_has_a_picture_of_a_window_with_one_span() -> None:
    found = rule_pictures.pictures()
    assert set(found) == {*SELECTORS, *RULES}
    assert {path.stem for path in rule_pictures.PICTURES.iterdir()} == set(found)
    assert all(len(picture.spans) == 1 for picture in found.values())


def test_a_drawn_window_has_its_candles_its_span_and_its_times() -> None:
    window = rule_pictures.pictures()["spike"]
    (ax,) = candle_pictures.figure_of([window]).axes
    boxes = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    *bodies, shade = boxes
    assert [body.get_y() for body in bodies] == pytest.approx(window.ohlc[:, [0, 3]].min(1))
    assert [body.get_height() for body in bodies] == pytest.approx(np.abs(window.ohlc[:, 0] - window.ohlc[:, 3]))
    (span,) = window.spans
    assert (shade.get_x(), shade.get_x() + shade.get_width()) == (span.start - 0.5, span.end + 0.5)
    shown = [text.get_text() for text in ax.get_xticklabels()]
    assert (shown[0], shown[-1]) == (str(window.times[0])[11:16], str(window.times[-1])[11:16])


def test_the_page_of_rules_shows_every_picture() -> None:
    page = (ROOT / "docs" / "explanation" / "rules.md").read_text(encoding="utf-8")
    assert all(f"(../images/rules/{name}.png)" in page for name in SELECTORS)
