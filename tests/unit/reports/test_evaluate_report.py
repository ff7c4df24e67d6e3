"""The report of an evaluation: table, cautions, note, and a page with charts of misses and false hits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from small_evaluations import found, truth
from small_events import looked_at, random_event_detector
from small_models import small_detector
from touched import figures_of, windows_of

from moola_mlflow.core import EvaluateKeys, UserError, make_config
from moola_mlflow.evaluation import BarsTruth, collect_bars_evidence
from moola_mlflow.reports.evaluate_report import OTHER_COLOR, SAME_LABELS, SPANS, WEAK, EvaluateReport
from moola_mlflow.reports.touchable import MAX_BYTES, MOST_WINDOWS

FOUND = [(0, 100, 105, 0.9), (1, 300, 306, 0.8), (0, 500, 504, 0.7), (0, 2, 4, 0.6), (0, 5990, 5995, 0.99)]
TRUE = [(0, 101, 106, 1.0), (0, 310, 315, 1.0), (1, 2000, 2005, 1.0), (1, 5980, 5984, 1.0)]
DETECTOR = random_event_detector(num_classes=2, labels={"sha256": "same", "weak": True, "rule": "surge-1"})


def report(by: BarsTruth | None = None, **keys: object) -> EvaluateReport:
    config = make_config(EvaluateKeys, {}, {key.replace("__", "."): value for key, value in keys.items()})
    evidence = collect_bars_evidence(found(FOUND), by or truth(TRUE), config.evaluate.block_bars)
    return EvaluateReport(evidence, DETECTOR, "models:/m/<1>", config)


def test_the_page_has_a_window_of_each_miss_and_each_false_hit_and_both_curves() -> None:
    page = report().html()
    assert "Misses (3)" in page
    assert "False hits (4)" in page
    assert [len(titles) for titles in windows_of(page)] == [3, 4]
    assert page.count('class="plot"') == 4
    assert "m/<1>" not in page
    few = report(detect__top=1).html()
    assert [len(titles) for titles in windows_of(few)] == [1, 1]
    assert "None." not in report(detect__top=0).html()
    assert "Misses (1 of 3)" in few
    assert "False hits (1 of 4)" in few


def test_a_window_shows_in_grey_what_lies_near_and_names_it() -> None:
    page = report().html()
    assert f'"fillcolor":"{OTHER_COLOR}"' in page
    misses, false_hits = windows_of(page)
    assert any("not found at any score" in title for title in misses)
    assert "score 0.990" in false_hits[0]
    shapes = figures_of(page)["plot-3"]["layout"]["sliders"][0]["steps"]
    named = {note["text"] for step in shapes for note in step["args"][1]["annotations"]}
    assert named == {"consolidation", "retracement"}


def test_a_page_with_many_windows_stays_below_its_limit() -> None:
    many = [(0, 60 + 25 * k, 64 + 25 * k, 0.9) for k in range(220)]
    evidence = collect_bars_evidence(found(many), truth(TRUE), 300)
    page = replace(report(detect__top=1000), evidence=evidence).html()
    assert len(page.encode()) < MAX_BYTES
    assert f"False hits ({MOST_WINDOWS} of " in page


def test_the_table_has_a_row_for_all_classes_and_one_for_each() -> None:
    rows = report().score_rows()
    assert [row[:2] for row in rows] == [("all classes", "4"), ("consolidation", "2"), ("retracement", "2")]
    one_class = report(truth(TRUE[:2])).score_rows()
    assert one_class[-1] == ("retracement", "0", "", "", "", "")
    assert "1 right, 4 wrong" in dict(report().figure_rows())["events at or above the threshold"]


def test_the_reader_is_warned_of_what_makes_scores_too_good() -> None:
    by_rule = report()
    assert by_rule.warnings == []
    assert "not what its events are worth" in by_rule.notes[0]
    labels = replace(looked_at(60), sha256="same")
    by_labels = replace(report(), labels=labels)
    assert by_labels.warnings == [SAME_LABELS]
    assert by_labels.notes[0] == WEAK
    assert {SAME_LABELS, WEAK} <= set(by_labels.cautions)
    assert replace(by_labels, labels=replace(labels, sha256="other")).warnings == []
    assert SPANS in replace(by_rule, detector=small_detector("price_path")).cautions
    assert any(text.startswith("Only 3 blocks of bars are scored") for text in by_rule.cautions)
    assert not any("blocks" in text for text in report(evaluate__block_bars=100).cautions)
    card = {"labels": {"bars_sha256": by_rule.evidence.found.bars.sha256}}
    assert any(
        "cut from these very bars" in text for text in replace(by_rule, detector=replace(DETECTOR, card=card)).cautions
    )


def test_the_note_says_the_result_first_and_the_next_command_last() -> None:
    note = report().note("abc")
    assert note.startswith("**mAP ")
    assert "moola compare --run_ids abc,ID" in note.splitlines()[-1]


def test_page_summary_and_table_are_written(tmp_path: Path) -> None:
    one = report()
    one.write(tmp_path / "new")
    summary = json.loads((tmp_path / "new" / "evaluation.json").read_text(encoding="utf-8"))
    assert summary["scores"]["map"]["mean"] == pytest.approx(one.evidence.intervals["map"].mean)
    assert summary["reported"] == {"right": 1, "wrong": 4, "neither": 0, "missed": 3}
    assert len(pd.read_parquet(tmp_path / "new" / "evaluation.parquet")) == len(FOUND) + 3
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        one.write(tmp_path / "file")
