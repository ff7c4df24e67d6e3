"""The pictures of the rules are those that the command draws, one for each selector."""

from __future__ import annotations

from xml.etree import ElementTree

import rule_pictures
from paths import ROOT

from moola_mlflow.labels import RULES, SELECTORS

SVG = "{http://www.w3.org/2000/svg}"


def test_every_selector_and_every_named_rule_has_a_picture_that_can_be_made_again() -> None:
    drawn = rule_pictures.pictures()
    assert set(drawn) == {*SELECTORS, *RULES}
    for name, svg in drawn.items():
        committed = (rule_pictures.PICTURES / f"{name}.svg").read_text(encoding="utf-8")
        assert committed == svg, "run python tools/rule_pictures.py"
        chart = ElementTree.fromstring(svg).find(f"{SVG}svg")
        assert chart is not None
        assert len(chart.findall(f"{SVG}rect")) == 1, "one shaded span"
    assert {path.stem for path in rule_pictures.PICTURES.iterdir()} == set(drawn)


def test_the_page_of_rules_shows_every_picture() -> None:
    page = (ROOT / "docs" / "explanation" / "rules.md").read_text(encoding="utf-8")
    assert all(f"(../images/rules/{name}.svg)" in page for name in SELECTORS)
