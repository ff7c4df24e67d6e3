"""Of several runs of a phase the newest with scores is shown, and a baseline's result follows from its interval."""

from __future__ import annotations

from dataclasses import replace

import pytest
from run_figures import tuned
from run_records import record

from moola_mlflow.evaluation.bootstrap import Interval
from moola_mlflow.reports.document import Document
from moola_mlflow.reports.run_report.tuning import Pair, impact, phase, shown_of


def pairs(*scores: float | None, kind: str = "frozen") -> list[Pair]:
    """Runs of one phase, the oldest first; None is a run without scores."""
    out = []
    for i, score in enumerate(scores):
        found = {} if score is None else {"f1_macro": Interval(score, score - 0.1, score + 0.1)}
        one = tuned((0.1, 0.2), (-0.1, 0.1), run_id=f"r{i}", kind=kind, scores=found)
        out.append((record(run_id=f"r{i}", status="FAILED" if score is None else "FINISHED"), one))
    return out


def markdown(blocks: list) -> str:
    return Document("t", blocks).markdown()


def test_the_newest_run_with_scores_is_shown_not_the_best() -> None:
    found = shown_of(pairs(0.9, 0.5, None), "frozen")
    assert found is not None
    assert found[0].id == "r1"
    assert shown_of(pairs(None, None), "frozen")[0].id == "r1"  # type: ignore[index]
    assert shown_of(pairs(0.9), "unfrozen") is None


def test_a_phase_lists_all_its_runs_and_shows_one_in_full() -> None:
    text = markdown(phase("frozen", pairs(0.9, 0.5), "COMMAND"))
    assert "It is not chosen by its score." in text
    assert "| `r0` | name of r0 | FINISHED | 0.900 [0.800, 1.000] | – |" in text
    assert "| run | `r1` name of r1 |" in text
    assert "| F1 macro | 0.500 [0.400, 0.600] | – |" in text


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([], "> ⚠ No fine-tuning has used this encoder frozen. Command: `COMMAND`"),
        (pairs(None), "> ⚠ This run has no scores: it is FINISHED. Command: `COMMAND`"),
    ],
)
def test_a_phase_without_scores_names_the_command_that_makes_them(found: list[Pair], said: str) -> None:
    assert said in markdown(phase("frozen", found, "COMMAND"))


def test_a_baseline_is_called_by_what_its_interval_shows() -> None:
    run, one = pairs(0.5)[0]
    rows = {name: {"joint_success_at_3": Interval(0.4, 0.3, 0.5)} for name in (*one.differences, "rule")}
    differences = {**one.differences, "rule": {"joint_success_at_3": Interval(-0.4, -0.5, -0.3)}}
    strong = replace(one, baselines=rows, differences=differences)
    text = markdown(impact([(run, strong)], "COMMAND"))
    assert "> HEADLINE" in text
    assert (
        "| same network, trained from scratch | – | 0.400 [0.300, 0.500] | +0.150 [+0.100, +0.200] | **✔ gain** |"
        in text
    )
    assert "| path features alone, same head | – | 0.400 [0.300, 0.500] | +0.000 [-0.100, +0.100] | no gain |" in text
    assert "| -0.400 [-0.500, -0.300] | **✘ loss** |" in text
    weak = markdown(impact([(run, replace(strong, weak=True))], "COMMAND"))
    assert "| -0.400 [-0.500, -0.300] | not counted: it knows how weak labels are made |" in weak
