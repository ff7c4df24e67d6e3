"""The page of labelled windows: tables, what to check, and charts by class within a size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from event_files import some_events
from plotly.offline import get_plotlyjs
from touched import figures_of, windows_of

from moola_mlflow.labels import EventLabels
from moola_mlflow.reports import LabelsReport, labels_report
from moola_mlflow.reports.touchable import MAX_BYTES


def report(labels: EventLabels, charts: int = 400) -> LabelsReport:
    return LabelsReport(labels, charts)


def test_a_class_has_its_events_share_and_span_lengths() -> None:
    assert report(some_events()).class_rows() == [("fall", "5", "62%", "5 / 6 / 7"), ("rise", "3", "38%", "5 / 9 / 10")]


def test_what_is_known_of_the_windows_is_counted() -> None:
    facts = dict(report(some_events()).facts)
    assert facts["windows by events"] == "4 with 0, 4 with 1, 2 with 2"
    assert facts["drawn"] == "5 random, 5 uncertain"
    assert facts["annotator"] == "7 ann, 5 bob"
    assert facts["grade"] == "4 D, 3 A, 3 B, 2 C"
    assert facts["seconds"] == "median 6, in all 1 minutes"
    assert facts["times"].startswith("2023-11-15T22:13Z to 2023-11-")


def test_nothing_is_said_of_what_is_not_known() -> None:
    facts = dict(report(replace(some_events(), extra=None, drawn=None, start_ns=None, end_ns=None)).facts)
    assert facts.keys() == {"windows by events", "instrument", "content SHA-256"}


def test_cautions_name_weak_labels_missing_rejects_few_events_and_missing_times() -> None:
    labels = some_events().select([0, 2, 5, 6])
    said = " ".join(report(replace(labels, weak=True, start_ns=None, end_ns=None)).cautions())
    assert "These labels are WEAK" in said
    assert "Every window holds an event" in said
    assert "Class rise has 1 events; five folds need 10 or more." in said
    assert "The windows have no times" in said
    many = some_events().select(np.tile(np.arange(10), 8))
    assert "Class" not in " ".join(report(many).cautions())
    assert "70 windows overlap another one" in " ".join(report(many).cautions())


def test_every_window_has_a_chart_with_a_shade_for_each_event_under_its_class() -> None:
    page = report(some_events()).html()
    assert [len(titles) for titles in windows_of(page)] == [3, 1, 2, 4]
    charts = [figure["layout"] for figure in figures_of(page).values()]
    shades = [chart["shapes"] for chart in charts if "sliders" not in chart]
    shades += [step["args"][1]["shapes"] for c in charts for s in c.get("sliders", []) for step in s["steps"]]
    assert sum(map(len, shades)) == some_events().num_events
    titles = ["Charts: fall (3)", "Charts: rise (1)", "Charts: several events (2)", "Charts: none (4)"]
    places = [page.index(f">{title}</h2>") for title in titles]
    assert places == sorted(places)


def test_a_smaller_number_of_charts_is_spread_over_the_groups_and_the_page_says_so() -> None:
    page = report(some_events().select(np.tile(np.arange(10), 5)), charts=20).html()
    assert sum(map(len, windows_of(page))) == 20
    assert "Charts show 20 of 50 windows" in page
    assert ">Charts: none (8 of 20)</h2>" in page


def test_a_page_stays_small_whatever_the_windows_hold() -> None:
    page = report(some_events().select(np.tile(np.arange(10), 50)), charts=900).html()
    shown = windows_of(page)
    assert len(page.encode()) < MAX_BYTES
    assert len(shown) == 4, "every group has charts"
    assert 120 < sum(map(len, shown)) < 300
    assert f"Charts show {sum(map(len, shown))} of 500 windows" in page


def test_of_windows_of_any_size_each_group_has_a_chart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels_report, "ROOM", 100)
    assert [len(titles) for titles in windows_of(report(some_events()).html())] == [1, 1, 1, 1]


def test_names_from_the_file_are_text_on_the_page() -> None:
    labels = replace(
        some_events(), classes=("<b>fall</b>", "rise"), window_id=np.array([f"<i>{i}</i>" for i in range(10)]),
        extra=pa.table({"annotator": ["<script>alert(1)</script>"] * 12}),
    )  # fmt: skip
    page = report(labels).html()
    assert "<script>alert" not in page
    assert "<i>" not in page.replace(get_plotlyjs(), "")
    assert "<b>fall" not in page


def test_a_set_without_any_event_has_a_page() -> None:
    page = report(some_events().select([1, 4])).html()
    assert [len(titles) for titles in windows_of(page)] == [2]
    assert "2 windows looked at, 0 events" in page


def test_a_chart_says_what_is_where_and_has_times_where_they_are_known() -> None:
    labels = some_events()
    assert labels.end_ns is not None
    chart = figures_of(report(labels.select([0])).html())["plot-0"]
    assert chart["data"][0]["x"][0] == "2023-11-15T22:13:20"
    assert " in bars 40 to " in chart["layout"]["title"]["text"]
    gap = replace(labels, end_ns=labels.end_ns + 60 * 10**9).select([0])
    chart = figures_of(report(gap).html())["plot-0"]
    assert chart["data"][0]["x"][:3] == [0, 1, 2]
    assert "2023-11-15T22:13Z to 23:58" in chart["layout"]["title"]["text"]
