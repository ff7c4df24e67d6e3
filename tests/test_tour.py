"""What the tour takes from the notes of its steps."""

from __future__ import annotations

from moola_mlflow.tour import headline, refusal


def test_a_steps_result_is_its_notes_first_paragraph_without_markup() -> None:
    assert headline("**12 bars, `x.parquet`.**\n\nMore.") == "12 bars, x.parquet."
    assert headline("**On [a run](#/experiments/1/runs/2) &lt;b&gt;, [0.1, 0.2].**") == "On a run <b>, [0.1, 0.2]."
    assert headline("") == "done"


def test_a_refusal_names_the_gates_that_were_missed() -> None:
    note = (
        "**Failed:** m version 1 misses 2 of 7 gates, champion stays unset:\n\n- a 1 <= 2\n- b 3 < 4\n\nforce=true ..."
    )
    assert refusal(note) == "m version 1 misses 2 of 7 gates, champion stays unset: a 1 <= 2; b 3 < 4"
