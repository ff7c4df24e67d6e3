"""What the tour takes from the notes of its steps, what it says of them, and what it goes on with."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moola_mlflow.cli.child_commands import REFUSED, ChildCommands, headline, refusal
from moola_mlflow.cli.commands import tour as tour_command
from moola_mlflow.core import TourKeys, make_config
from moola_mlflow.core.signals import Interrupts


def test_a_steps_result_is_its_notes_first_paragraph_without_markup() -> None:
    assert headline("**12 bars, `x.parquet`.**\n\nMore.") == "12 bars, x.parquet."
    assert headline("**On [a run](#/experiments/1/runs/2) &lt;b&gt;, [0.1, 0.2].**") == "On a run <b>, [0.1, 0.2]."
    assert headline("") == "done"


def test_a_refusal_names_the_gates_that_were_missed() -> None:
    note = (
        "**Failed:** m version 1 misses 2 of 7 gates, champion stays unset:\n\n- a 1 <= 2\n- b 3 < 4\n\nforce=true ..."
    )
    assert refusal(note) == "m version 1 misses 2 of 7 gates, champion stays unset: a 1 <= 2; b 3 < 4"


@pytest.mark.parametrize(
    ("code", "note", "said"),
    [
        (0, "**12 bars.**\n\nMore.", "  12 bars. ("),
        (REFUSED, "**Failed:** no.\n\n- a 1 <= 2", "  Not done: no. a 1 <= 2 ("),
    ],
)
def test_a_step_says_in_one_line_what_came_out_and_where_to_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int, note: str, said: str
) -> None:
    made: Any = SimpleNamespace(id="abc", tags={"mlflow.note.content": note})
    monkeypatch.setattr(ChildCommands, "_process", lambda *_: code)
    monkeypatch.setattr(ChildCommands, "_newest", lambda _: made)
    tour = ChildCommands(SimpleNamespace(id="parent"), Interrupts(), tmp_path, 3)  # type: ignore[arg-type]
    assert tour.step("Bars", "data", "the note", {"bars": "sample"}) is made
    first, command, result = capsys.readouterr().out.splitlines()
    assert (first, command) == ("[1/3] Bars", "  $ moola data --bars=sample")
    assert result.startswith(said)
    assert result.endswith("; look at: the note of run abc")


@pytest.mark.parametrize(("status", "encoder"), [("FINISHED", "moola-encoder@champion"), ("FAILED", "moola-encoder/7")])
def test_what_was_not_promoted_is_gone_on_with_by_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str, encoder: str
) -> None:
    steps = []

    def step(why: str, command: str, look: str, arguments: dict[str, object]) -> SimpleNamespace:
        steps.append(command)
        figures = {"probe/r2_gain": len(steps), "cv/map": len(steps)}
        return SimpleNamespace(id=str(len(steps)), status=status, metrics=figures)

    monkeypatch.setattr(tour_command, "_version", lambda model, made: "7")
    tour: Any = SimpleNamespace(folder=tmp_path, step=step)
    assert tour_command._walk(tour, make_config(TourKeys, {}, {}), "moola") == f"models:/{encoder}"
    assert len(steps) == tour_command.NUM_STEPS
