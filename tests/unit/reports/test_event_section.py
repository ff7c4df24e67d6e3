"""The report's section on event detectors, and what the report concludes from them."""

from __future__ import annotations

from typing import Any, cast

from run_figures import tuned

from moola_mlflow.evaluation.bootstrap import Interval
from moola_mlflow.reports.document import Document
from moola_mlflow.reports.run_report.conclusions import main_conclusion
from moola_mlflow.reports.run_report.event_section import event_section
from moola_mlflow.reports.run_report.facts import EVENT, Tuned

SCORES = {"map": Interval(0.7, 0.6, 0.8), "precision": Interval(0.8, 0.7, 0.9), "recall": Interval(0.4, 0.3, 0.5)}


class Run:
    """A run without pictures."""

    id, name = "id", "finetune-event"

    def bytes(self, name: str) -> None:
        return None


def found(lo: float, hi: float) -> Tuned:
    return Tuned(
        "id", "finetune-event", "FINISHED", EVENT, scores=SCORES, baselines={"path_features": SCORES},
        differences={"path_features": {"map": Interval((lo + hi) / 2, lo, hi)}}, best={"map": "path_features"},
        counts={"a": 3, "none": 4}, headline="Gain: much",
    )  # fmt: skip


def pages(*tunings: Tuned) -> str:
    document = Document("title")
    document.add(*event_section(cast(Any, [(Run(), one) for one in tunings])))
    return document.markdown()


def test_the_newest_fine_tuning_is_shown_with_its_baselines_and_gains() -> None:
    page = pages(found(-0.1, 0.1), found(0.02, 0.08))
    assert "path features alone, same nets" in page
    assert "+0.050 [+0.020, +0.080]" in page
    assert "3 a, 4 none" in page
    assert "The newest of 2" in page


def test_without_an_event_detector_there_is_no_section() -> None:
    assert event_section([]) == []
    assert event_section(cast(Any, [(Run(), tuned((0.1, 0.2), (0.1, 0.2)))])) == []


def test_a_claim_is_about_the_gain_in_map() -> None:
    assert [found(*ends).claim() for ends in ((0.02, 0.08), (-0.1, 0.1), (-0.2, -0.1))] == ["gain", "no gain", "loss"]
    assert main_conclusion([found(0.02, 0.08)]).good is True
