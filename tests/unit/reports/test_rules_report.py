"""What the page of rules says: shares, examples of every selector, and no word of a docstring lost in markup."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from touched import windows_of

from moola_mlflow.bars import read_bars
from moola_mlflow.core import BarsConfig, RulesKeys, make_config
from moola_mlflow.labels import OUTCOMES, SELECTORS
from moola_mlflow.reports import rules_report
from moola_mlflow.reports.rules_report import COLUMNS, RulesReport
from moola_mlflow.windows import make_windows

KEYS = {"objective.num_rules": 24, "objective.family": "broad", "objective.rules_seed": 2}


@pytest.fixture(scope="module")
def report() -> RulesReport:
    windows = make_windows(read_bars(BarsConfig(sample_bars=8000, sample_seed=5)), 105)
    return RulesReport.of(windows, make_config(RulesKeys, {}, KEYS))


def test_every_rule_has_the_share_of_windows_that_it_finds_a_span_in_and_of_each_class(report: RulesReport) -> None:
    rows = list(csv.DictReader(io.StringIO(report.csv())))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == len(report.rules) == 24 + sum(not row["selector"] for row in rows)
    for row, rule, mark in zip(rows, report.rules, report.marks, strict=True):
        assert (row["rule"], row["definition"]) == (rule.name, rule.describe())
        assert float(row["found"]) == pytest.approx(mark.found.mean(), abs=1e-4)
        shares = [int(part.rpartition(" ")[2].rstrip("%")) for part in row["classes"].split(", ")]
        assert len(shares) == len(rule.classes)
        assert sum(shares) == pytest.approx(100, abs=len(shares))


def test_selectors_and_outcomes_are_listed_with_how_often_they_were_drawn(report: RulesReport) -> None:
    assert [row[0] for row in report.selectors()] == list(SELECTORS)
    assert [row[0] for row in report.outcomes()] == list(OUTCOMES)
    for rows in (report.selectors(), report.outcomes()):
        assert sum(int(row[1]) for row in rows) == 24
        assert all(row[-1].endswith(".") and "`" not in row[-1] for row in rows)


def test_an_example_shows_a_window_that_the_rule_labels_with_its_span(report: RulesReport) -> None:
    pictures = report.pictures()
    assert {row["selector"] for row in report.rows} - {""} <= set(pictures)
    assert "surge-1" in pictures
    marks = {rule.name: (rule, mark) for rule, mark in zip(report.rules, report.marks, strict=True)}
    for name, picture in pictures.items():
        rule, mark = marks[picture.title.split(" ")[2].rstrip(",")]
        (span,) = picture.spans
        there = (mark.start == span.start) & (mark.end == span.end) & mark.labelled
        assert span.name in {rule.classes[k] for k in mark.outcome[there].tolist()}
        assert picture.title.startswith(f"{name}: rule {rule.name}, in ")
    page = report.html()
    assert windows_of(page) == [[picture.title for picture in pictures.values()]]
    assert all(rule.name in page for rule in report.rules)


def test_a_rule_that_labels_nothing_has_no_picture(report: RulesReport) -> None:
    silent = tuple(
        replace(mark, found=np.zeros_like(mark.found), outcome=np.full_like(mark.outcome, -1)) for mark in report.marks
    )
    empty = replace(report, marks=silent)
    assert empty.pictures() == {}
    assert "Plotly" not in empty.html()
    assert "find a span in 0% of" in empty.summary()


def test_of_many_windows_some_are_read_evenly_spaced(report: RulesReport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules_report, "MOST_WINDOWS", 40)
    windows = make_windows(read_bars(BarsConfig(sample_bars=8000, sample_seed=5)), 105)
    few = RulesReport.of(windows, make_config(RulesKeys, {}, {**KEYS, "objective.num_rules": 4}))
    assert len(few.windows) == 40 < len(windows)
    assert few.windows.starts[0] == windows.starts[0]
    assert few.windows.starts[-1] == windows.starts[-1]
    assert few.metrics()["rules/windows"] == 40
