"""Refits happen in another process; what fails there is said and hurts nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest
from small_events import looked_at
from small_sessions import wait_for

from moola_mlflow.annotate.learning import Learned, LearningTask
from moola_mlflow.annotate.refits import Learner, Refits
from moola_mlflow.core import UserError

NONE = np.zeros(0, np.int64)


def task(num: int = 40) -> LearningTask:
    labels = looked_at(60).select(np.arange(num))
    return LearningTask(labels, np.ones(num, bool), NONE, np.zeros((0, 105, 4)), 3)


@pytest.fixture
def learner() -> Iterator[Learner]:
    made = Learner()
    yield made
    made.stop()


def test_a_task_is_learned_in_another_process_and_its_failure_is_told(learner: Learner) -> None:
    with pytest.raises(UserError, match=r"folds|no window with an event"):
        learner.ask(task(2))
    assert learner.ask(task()).map is not None


def test_a_process_that_is_killed_is_said_and_started_again(learner: Learner) -> None:
    learner.ask(task())
    assert learner._process is not None
    os.kill(learner._process.pid or 0, signal.SIGKILL)
    learner._process.join()
    learner._process.is_alive = lambda: True  # type: ignore[method-assign]  # it dies after the look
    with pytest.raises(UserError, match="has died"):
        learner.ask(task())
    assert learner.ask(task()).map is not None


def test_a_failed_refit_is_shown_and_the_next_one_takes_its_place() -> None:
    taken: list[tuple[Learned, int]] = []
    sizes = [2, 40]
    refits = Refits(lambda: (task(sizes.pop(0)), 7), lambda learned, at: taken.append((learned, at)))
    assert refits.state == {"running": False, "at": None, "failed": None}
    refits.start()
    refits.due()
    wait_for(lambda: refits.state["failed"])
    assert not taken
    refits.due()
    wait_for(lambda: taken and not refits.state["running"])
    assert refits.state == {"running": False, "at": 7, "failed": None}
    refits.close()


def test_a_session_ends_in_the_middle_of_a_fit() -> None:
    refits = Refits(lambda: (task(60), 7), lambda learned, at: None)
    refits.start()
    refits.due()
    wait_for(lambda: refits.learner._process is not None)
    refits.close()
    assert refits.failed is None
