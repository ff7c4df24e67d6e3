"""Figures are read from runs as they are; a gate knows its margin, and what cannot be read is left out."""

from __future__ import annotations

import pytest
from run_figures import tuned

from moola_mlflow.reports.run_report.conclusions import gate_text
from moola_mlflow.reports.run_report.facts import GateRow, gate_rows


@pytest.mark.parametrize(
    ("row", "margin", "said"),
    [
        (GateRow("a", 0.7, ">=", 0.6, True), 0.1, "met by 0.1"),
        (GateRow("a", 0.5, ">", 0.6, False), -0.1, "missed by 0.1"),
        (GateRow("ece", 0.13, "<", 0.1, False), -0.03, "missed by 0.03"),
        (GateRow("ece", 0.03, "<", 0.1, True), 0.07, "met by 0.07"),
        (GateRow("identity", 1.0, "=", 0.0, False), -1.0, "missed by 1"),
        (GateRow("identity", 0.0, "=", 0.0, True), 0.0, "met"),
        (GateRow("a", None, ">", 0.6, False), None, "missed: no value"),
    ],
)
def test_a_gates_margin_is_positive_where_it_is_met(row: GateRow, margin: float | None, said: str) -> None:
    assert row.margin == (None if margin is None else pytest.approx(margin))
    assert gate_text(row) == said


def test_gates_of_another_shape_are_left_out_and_the_rest_is_read() -> None:
    good = {"gate": "skill", "value": 0.2, "needed": "> 0.10", "passed": True}
    assert gate_rows([{"gate": "x"}, "text", good]) == [GateRow("skill", 0.2, ">", 0.1, True)]
    assert gate_rows(None) == gate_rows({"no": "list"}) == []


def test_the_least_sure_network_counts_not_the_kindest() -> None:
    # Beyond the random encoder it is clear by 0.45; beyond scratch it is not.
    found = tuned((-0.1, 0.1), (-0.1, 0.1)).least_sure()
    assert found is not None
    assert found[0] == "scratch"
