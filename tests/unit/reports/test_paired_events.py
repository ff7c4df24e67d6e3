"""Two event detectors on the same windows: paired differences of mAP, precision, recall and F1, or why none."""

from __future__ import annotations

from typing import Any

import pytest
from run_records import record

from moola_mlflow.reports.compare import build_comparison
from moola_mlflow.reports.paired import Paired, pair
from moola_mlflow.reports.paired_events import scored_draws
from moola_mlflow.tracking.run_reader import RunRecord

NUM = 60


def run(right_of: int, found_of: int, folds: int = 5, repeats: int = 1, **changed: Any) -> RunRecord:
    """A fine-tuning of windows of which every second holds an event; so many of ten are found, so many right."""
    rows = [
        {
            "window_id": f"w{i}", "seed": 17, "repeat": repeat, "events": 1,
            "found": int(i % 10 < found_of), "right": int(i % 10 < right_of),
        }
        for repeat in range(1, repeats + 1) for i in range(NUM)
    ]  # fmt: skip
    summary = {
        "kind": "event",
        "scored_on": "all windows looked at",
        "num_groups": NUM,
        "config": {"cv": {"folds": folds}},
    }
    summary |= changed.pop("summary", {})
    table = {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}
    files = {"cv_summary.json": summary, "predictions.json": table}
    if (scored := changed.pop("scored", None)) is not None:
        files["scored_events.json"] = scored
    return record(files=files, **changed)


def test_the_differences_are_second_minus_first_at_their_thresholds() -> None:
    found = pair(run(3, 6), run(5, 6))
    assert isinstance(found, Paired)
    assert {name: round(one.mean, 6) for name, one in found.differences.items()} == {
        "precision": round(5 / 6 - 3 / 6, 6), "recall": 0.2, "f1": round(10 / 16 - 6 / 16, 6),
    }  # fmt: skip
    assert all(one.lo < one.mean < one.hi for one in found.differences.values())
    assert found.differences["recall"].lo > 0
    assert (found.num_windows, found.num_groups, found.num_repeats) == (NUM, NUM, 1)
    same = pair(run(4, 6), run(4, 6))
    assert isinstance(same, Paired)
    assert all(one.mean == one.lo == one.hi == 0 for one in same.differences.values())


def test_only_draws_that_both_have_count() -> None:
    found = pair(run(3, 6), run(5, 6, repeats=3))
    assert isinstance(found, Paired)
    assert (found.num_repeats, found.most_repeats) == (1, 3)


def events(right_of: int, repeats: int = 1, **changed: Any) -> dict[str, Any]:
    """One event in each window, and one found in each: in so many windows of ten the right one, else a wrong one."""
    labels = [i % 2 for i in range(NUM)]
    draw = {
        "label": labels, "group": list(range(NUM)), "mass": [0.9 - i / 1000 for i in range(NUM)],
        "right": [int(i % 10 < right_of) for i in range(NUM)],
    }  # fmt: skip
    draws = [{"seed": 17, "repeat": repeat, **draw} for repeat in range(1, repeats + 1)]
    true = {"label": labels, "group": list(range(NUM))}
    return {"classes": ["a", "b"], "num_groups": NUM, "true": true, "draws": draws, **changed}


def logged(of_ten: int, scored: Any, **changed: Any) -> RunRecord:
    """A run that also logged its out-of-fold events."""
    return run(of_ten, 10, scored=scored, **changed)


def test_runs_that_logged_their_events_also_have_the_difference_in_map() -> None:
    found = pair(logged(4, events(4)), logged(8, events(8)))
    assert isinstance(found, Paired)
    assert list(found.differences) == ["map", "precision", "recall", "f1"]
    gain = found.differences["map"]
    one, other = (scored_draws(events(right))[17, 1].scores(0.5)["map"] for right in (4, 8))
    assert gain.mean == pytest.approx(other - one)
    assert 0 < gain.lo < gain.mean < gain.hi
    same = pair(logged(4, events(4)), logged(4, events(4)))
    assert isinstance(same, Paired)
    assert tuple(same.differences["map"]) == (0, 0, 0)
    assert "| mAP | +" in build_comparison([logged(4, events(4)), logged(8, events(8), run_id="b")]).markdown()


def test_the_difference_in_map_is_over_the_draws_that_both_have() -> None:
    second = events(4, repeats=2)
    second["draws"][1]["right"] = [1] * NUM  # a draw that the first run lacks
    found = pair(logged(4, events(4)), logged(4, second, repeats=2))
    assert isinstance(found, Paired)
    assert found.differences["map"].mean == 0


@pytest.mark.parametrize(
    "scored",
    [
        None,  # a run of an earlier version
        events(4, true={"label": [0] * NUM, "group": list(range(NUM))}),  # other labelled events
        events(4, draws=[]),
        {**events(4), "classes": None},
        "not a table",
    ],
)
def test_without_the_same_events_of_both_runs_there_is_no_difference_in_map(scored: Any) -> None:
    found = pair(logged(4, events(4)), logged(4, scored))
    assert isinstance(found, Paired)
    assert list(found.differences) == ["precision", "recall", "f1"]


@pytest.mark.parametrize(
    ("second", "why"),
    [
        (run(3, 6, folds=4), "their folds differ (cv.folds 5 and 4)"),
        (run(3, 6, summary={"kind": "span"}), "one is of an event detector and one of a span detector"),
        (run(3, 6, summary={"scored_on": "the windows that were drawn at random"}), "a query chose some"),
    ],
)
def test_without_a_fair_comparison_there_is_a_reason(second: RunRecord, why: str) -> None:
    found = pair(run(3, 6), second)
    assert isinstance(found, str)
    assert why in found


def test_the_page_of_compare_shows_them() -> None:
    document = build_comparison([run(3, 6), run(5, 6, run_id="b")])
    text = document.markdown()
    assert "Paired differences" in text
    assert "| recall | +0.200 [" in text
