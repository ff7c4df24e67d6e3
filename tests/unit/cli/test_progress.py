"""A training shows one plain line an epoch in a file, and one live display on a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from moola_mlflow.cli.progress import TrainingDisplay, epoch_line
from moola_mlflow.core import Metrics
from moola_mlflow.training.events import EpochEnded, MemoryRanOut, StepEnded

METRICS = {
    Metrics.TRAIN_LOSS: 0.123456,
    Metrics.VAL_LOSS: 0.2,
    Metrics.LR: 0.001,
    Metrics.EPOCH_SECONDS: 1.25,
    Metrics.VAL_HUBER: 0.3,
    Metrics.VAL_SKILL: 0.4567,
    Metrics.WINDOWS_PER_SECOND: 1234.0,
}
ENDED = EpochEnded(0, 3, METRICS, improved=True)


def test_epochs_count_from_one_and_figures_keep_their_digits() -> None:
    line = epoch_line(ENDED)
    assert line.startswith("Epoch   1 | Train Loss: 0.123456 | Val Loss: 0.200000 | LR: 0.001000 | Time: 1.2s")
    assert line.endswith("Huber: 0.300000 | Skill: 0.4567")


def test_in_a_file_each_epoch_is_its_line_and_steps_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(file=io.StringIO())
    with TrainingDisplay(3, 10, console) as display:
        display(StepEnded(0, 5, 10))
        display(ENDED)
    assert capsys.readouterr().out == epoch_line(ENDED) + "\n"


def test_on_a_terminal_steps_move_the_bar_and_an_epoch_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=160)
    with TrainingDisplay(3, 10, console) as display:
        display(StepEnded(1, 5, 10))
        display(ENDED)
        (task,) = display.progress.tasks
        assert (task.completed, task.total, task.description) == (15, 30, "epoch 1/3")
        assert "skill 0.457" in task.fields["scores"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("terminal", [False, True])
def test_a_change_of_way_is_told_everywhere(capsys: pytest.CaptureFixture[str], terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=160)
    with TrainingDisplay(3, 10, console) as display:
        display(MemoryRanOut(16))
    assert "computed 16 windows at a time" in capsys.readouterr().out
