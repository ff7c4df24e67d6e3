"""What a scan leaves for people: candlesticks that can be read, a page that needs nothing else, an honest note."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from small_models import small_detector
from touched import windows_of

from moola_mlflow.bars.reader import Bars, SourceFile, read_bars
from moola_mlflow.bars.times import utc
from moola_mlflow.core import BarsConfig, DetectKeys, make_config
from moola_mlflow.models.detector import PatternDetector
from moola_mlflow.models.scanning import scan
from moola_mlflow.reports.detections import NO_EMPTY_CLASS, WEAK, DetectionsReport
from moola_mlflow.reports.touchable import MAX_BYTES, MOST_WINDOWS

SCRIPT = "<script>alert(1)</script>"
EVERYTHING = {"detect.min_probability": 0.0, "detect.min_span_score": 0.0, "detect.margin": 0}


def report_of(bars: Bars | None = None, detector: PatternDetector | None = None, **options: Any) -> DetectionsReport:
    config = make_config(DetectKeys, {}, {**EVERYTHING, **options})
    bars = read_bars(BarsConfig(sample_bars=3000)) if bars is None else bars
    detector = small_detector("price_path") if detector is None else detector
    found = scan(bars, detector, config.detect)
    return DetectionsReport.of(found, detector, "models:/moola-detector/3", config)


def test_the_page_has_a_chart_of_each_of_the_best_and_says_what_it_may_not_hide() -> None:
    found = report_of(**{"detect.top": 7})
    html = found.html()
    assert len(found.table) > 7
    (titles,) = windows_of(html)
    assert len(titles) == 7
    shown = [float(text) for text in re.findall(r", ([\d.]+)%,", "".join(titles))]
    assert len(shown) == 7
    assert shown == sorted(shown, reverse=True)
    assert shown[0] == round(100 * found.table["probability"].max(), 1)
    for text in (NO_EMPTY_CLASS, "models:/moola-detector/3", "joint_success_at_3", "the 7 most probable of"):
        assert text in html
    assert f"{found.share_above:.0%}" in html
    assert WEAK not in html


def test_weak_labels_are_called_weak_on_the_page_and_in_the_note() -> None:
    detector = small_detector("price_path")
    weak = replace(detector, card={**detector.card, "labels": {"weak": True, "num": 174, "counts": {"a": 174}}})
    found = report_of(detector=weak)
    assert WEAK in found.html().replace("&#x27;", "'")
    assert "are WEAK" in found.note(1.0)


def test_a_detector_that_knows_these_bars_says_so() -> None:
    bars = read_bars(BarsConfig(sample_bars=2000))
    months = replace(bars, files=(SourceFile(Path("months.parquet"), "", len(bars)),))
    ends = (utc(int(months.time_ns[500])), utc(int(months.time_ns[-1])))
    detector = small_detector("price_path")
    labels = {"path": "labels.csv", "labelled_from": ends[0], "labelled_until": ends[1]}
    labelled = replace(detector, card={**detector.card, "labels": labels})
    assert (
        "75% of these bars lie in the time that the detector's labels come from."
        in report_of(months, labelled).cautions()
    )
    assert not any(
        "labels come from" in text for text in report_of(bars, labelled).cautions()
    )  # the sample: other years
    trained = small_detector("encoding")
    assert trained.encoder is not None
    trained.encoder.card["data"] = {"sha256": bars.sha256}
    assert any("trained on these very bars" in text for text in report_of(bars, trained).cautions())
    trained.encoder.card["data"] = {"sha256": "of others"}
    assert not any("trained on these very bars" in text for text in report_of(bars, trained).cautions())


def test_a_detector_that_learned_from_longer_bars_says_so() -> None:
    detector = small_detector("price_path")
    longer = replace(detector, card={**detector.card, "labels": {"bar_minutes": 5}})
    told = "The detector learned from bars of 5 minutes, and these have one minute"
    assert any(told in text for text in report_of(detector=longer).cautions())
    bars = replace(read_bars(BarsConfig(sample_bars=2000)), minutes=5)
    assert not any("learned from bars" in text for text in report_of(bars, longer).cautions())


def test_names_that_look_like_html_stay_text() -> None:
    bars = read_bars(BarsConfig(sample_bars=1500))
    named = replace(bars, symbols=dict.fromkeys(bars.symbols, SCRIPT))
    detector = small_detector("price_path")
    classes = replace(detector, classes=(SCRIPT, '" onload="alert(1)'))
    html = report_of(named, classes).html()
    assert html.count("<script") == 3, "data, plotly, and the page's own"
    assert SCRIPT not in html
    assert 'onload="' not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 50
    assert re.search(r"(?<!\\)<script", report_of(named, classes).note(1.0)) is None


def test_the_page_refers_to_nothing_outside_and_is_the_same_every_time() -> None:
    html = report_of().html()
    own = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)  # the policy lets its scripts fetch nothing
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", own)
    assert not re.search(r"https?://|@import|url\(", own)
    assert html == report_of().html()


def test_fifty_charts_stay_light() -> None:
    found = report_of(read_bars(BarsConfig(sample_bars=20_000)))
    html = found.html()
    assert len(windows_of(html)[0]) == 50
    assert len(html.encode()) < MAX_BYTES
    most = report_of(read_bars(BarsConfig(sample_bars=20_000)), **{"detect.top": 1000}).html()
    assert len(windows_of(most)[0]) == MOST_WINDOWS
    assert len(most.encode()) < MAX_BYTES


def test_where_nothing_is_found_the_page_and_the_note_say_so() -> None:
    found = report_of(**{"detect.min_probability": 1.0})
    assert len(found.table) == 0
    assert "No hit passes the thresholds" in found.html()
    assert "<script" not in found.html()
    assert found.note(1.0).startswith("**0 hits (0 consolidation, 0 retracement) in 3,000 bars.**")


def test_the_figures_count_hits_by_class_and_windows_above() -> None:
    found = report_of(**{"detect.min_probability": 0.52})
    figures = found.metrics(2.0)
    assert figures["hits/consolidation"] + figures["hits/retracement"] == figures["detect/hits"] == len(found.table)
    assert figures["detect/windows_per_second"] == figures["detect/windows"] / 2
    assert 0 < figures["detect/share_above"] == figures["detect/windows_above"] / figures["detect/windows"] < 1
    odd = replace(found.detector, classes=("a+b", "c"))
    assert "hits/a_b" in replace(found, detector=odd).metrics(1.0)
