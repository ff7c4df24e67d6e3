"""The tables of README and docs are those that the benchmarks' results make."""

from __future__ import annotations

import json
import sys
from types import ModuleType

import pytest
from paths import ROOT

sys.path.insert(0, str(ROOT))

from benchmarks.science import annotate_study, best_epoch, events_tables, fresh_labels, labels, rules_tables
from benchmarks.science.objectives import summary
from benchmarks.speed import peers, step_share
from moola_mlflow.core import EncoderLimits

TABLES = {
    "labels": (labels, "docs/explanation/evidence.md"),
    "fresh_labels": (fresh_labels, "docs/explanation/evidence.md"),
    "best_epoch": (best_epoch, "docs/explanation/evidence.md"),
    "objectives": (summary, "docs/explanation/objectives.md"),
    "peers_amx": (peers, "docs/explanation/performance.md"),
    "step_share": (step_share, "docs/explanation/performance.md"),
}


def rows_of(made: str) -> list[str]:
    return [line for line in made.splitlines() if line.startswith("|")]


@pytest.mark.parametrize("name", TABLES)
def test_a_page_holds_every_row_of_its_benchmark(name: str) -> None:
    made_by, page = TABLES[name]
    assert isinstance(made_by, ModuleType)
    report = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    rows, told = rows_of(made_by.tables(report)), (ROOT / page).read_text(encoding="utf-8").splitlines()
    assert len(rows) >= 6
    assert [row for row in rows if row not in told] == []


def test_the_page_of_annotate_has_the_table_of_its_study() -> None:
    result = json.loads((ROOT / "benchmarks" / "results" / "annotate_study.json").read_text())
    page = (ROOT / "docs" / "explanation" / "annotate.md").read_text(encoding="utf-8")
    assert annotate_study.table(result) in page
    assert annotate_study.judged(result["draws"]) == result["lines"]


def test_the_readme_quotes_four_numbers_from_the_results() -> None:
    names = ("labels", "five_years", "rules_study", "events_study")
    evidence, speed, rules, events = (
        json.loads((ROOT / "benchmarks" / "results" / f"{n}.json").read_text()) for n in names
    )
    found = {(row["detector"], row["baseline"]): row["joint_success_at_3"] for row in evidence["differences"]}
    mean, low, high = found["detector, both", labels.PATH_ALONE]
    gain = {(row["labeller"], row["labels"]): row["joint_success_at_3_gain"] for row in rules["rows"]}
    (event,) = (
        row
        for row in events["rows"]
        if (row["method"], row["labels"], row["bars"], row["rule"])
        == ("encoder trained on rules", 174, "sample", "surge-1")
    )
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Four numbers\n")[2]
    rows = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[1] for row in rows[1:]] == [
        _interval(gain[1, 174]),
        f"{event['map']['mean']:.3f}, {_interval(event['gain'])}",
        f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]",
        f"{speed['seconds'] / 60:.1f} minutes",
    ]
    assert _interval(gain[3, 174]) in section
    assert f"{speed['bars']:,} bars, {speed['epochs']} epochs" in rows[4]


def _interval(value: dict[str, float]) -> str:
    return f"{value['mean']:+.3f} ({value['lo']:+.3f} to {value['hi']:+.3f})"


def test_the_page_about_rules_holds_the_tables_of_its_studies() -> None:
    told = (ROOT / "docs" / "explanation" / "rules.md").read_text(encoding="utf-8").splitlines()
    made = [rows_of(table) for table in rules_tables.tables()]
    assert [len(rows) for rows in made] == [12, 12, 9, 13, 10, 6, 5, 6, 8]
    assert [row for rows in made for row in rows if row not in told] == []
    limit = json.loads((ROOT / "benchmarks" / "results" / "rules_gate.json").read_text())["limit"]
    assert limit == EncoderLimits().few_shot_gain


def test_the_page_about_event_detectors_holds_the_tables_of_its_study() -> None:
    told = (ROOT / "docs" / "explanation" / "events.md").read_text(encoding="utf-8").splitlines()
    made = [rows_of(table) for table in events_tables.tables()]
    assert min(len(rows) for rows in made) >= 5
    again = rows_of(events_tables.tables("events_study_again")[0])
    assert len(again) == 9
    assert [row for rows in [*made, again] for row in rows if row not in told] == []
