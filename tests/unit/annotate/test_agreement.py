"""Agreement of two annotators: by hand on few windows, and what is left out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sklearn.metrics import cohen_kappa_score

from moola_mlflow.annotate.agreement import agreement_of
from moola_mlflow.annotate.decisions import Decision, MarkedEvent

EMPTY = Decision(
    "w", "ES", 1, "ann", 1, "label", (), "", "", 6.0, "2026-01-01T00:00:00Z", "human", "random", False, False
)  # fmt: skip


def marked(*events: tuple[str, int, int]) -> Decision:
    return replace(EMPTY, events=tuple(MarkedEvent(*one) for one in events))


def test_kappa_is_that_of_the_classes_and_spans_match_within_three_bars() -> None:
    ann = {1: marked(("flag", 10, 20)), 2: EMPTY, 3: marked(("wedge", 40, 50)), 4: marked(("flag", 5, 9)), 9: EMPTY}
    bob = {1: marked(("flag", 12, 24)), 2: EMPTY, 3: marked(("flag", 40, 50)), 4: marked(("flag", 30, 40)), 8: EMPTY}
    found = agreement_of({"ann": ann, "bob": bob})
    assert found is not None
    assert found["windows"] == 4
    assert found["kappa"] == pytest.approx(
        cohen_kappa_score(["flag", "none", "wedge", "flag"], ["flag", "none", "flag", "flag"])
    )
    assert found["spans"] == pytest.approx(2 * 1 / 6)


def test_each_event_is_matched_once() -> None:
    found = agreement_of({
        "ann": {1: marked(("flag", 10, 12), ("flag", 14, 16))},
        "bob": {1: marked(("flag", 12, 14))},
    })  # fmt: skip
    assert found == {"kappa": None, "windows": 1, "spans": pytest.approx(2 / 3)}


def test_skipped_windows_and_windows_of_one_annotator_do_not_count() -> None:
    assert agreement_of({"ann": {1: EMPTY}, "bob": {2: EMPTY}}) is None
    assert agreement_of({"ann": {1: EMPTY}, "bob": {1: replace(EMPTY, action="skip")}}) is None
    assert agreement_of({"ann": {1: EMPTY}}) is None


def test_three_annotators_give_three_pairs() -> None:
    same = {1: marked(("flag", 10, 12)), 2: EMPTY}
    assert agreement_of({"a": same, "b": same, "c": same}) == {"kappa": 1.0, "windows": 6, "spans": 1.0}
