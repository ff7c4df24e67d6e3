"""The first signal ends the step that is under way, then the run; inside `deferred` it waits."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from moola_mlflow.core.signals import HANDLED, Interrupted, Interrupts, undisturbed


@pytest.fixture
def interrupts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Interrupts]:
    """Handlers that are installed for one test."""
    before = {number: signal.getsignal(number) for number in HANDLED}
    monkeypatch.setattr(Interrupts, "current", None)
    made = Interrupts()
    made.install()
    yield made
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_raises_at_once_with_the_exit_code_of_a_shell(
    interrupts: Interrupts, number: signal.Signals, code: int
) -> None:
    with pytest.raises(Interrupted) as caught:
        signal.raise_signal(number)
    assert (caught.value.exit_code, str(caught.value), interrupts.reason()) == (code, number.name, number.name)


def test_no_except_exception_swallows_it() -> None:
    assert not issubclass(Interrupted, Exception)


def test_inside_deferred_a_step_is_finished_first(interrupts: Interrupts) -> None:
    done = []

    def step() -> None:
        with interrupts.deferred():
            with interrupts.deferred():  # an inner one does not let it out either
                signal.raise_signal(signal.SIGTERM)
                done.append("inner")
            assert interrupts.reason() == "SIGTERM"
            done.append("outer")

    with pytest.raises(Interrupted, match="SIGTERM"):
        step()
    assert done == ["inner", "outer"]


def test_only_the_first_signal_counts_and_it_is_raised_once(interrupts: Interrupts) -> None:
    def step() -> None:
        with interrupts.deferred():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match="SIGTERM"):
        step()
    with interrupts.deferred():
        pass
    signal.raise_signal(signal.SIGTERM)  # the exit is under way: nothing more is raised
    assert interrupts.reason() == "SIGTERM"


def test_without_a_signal_there_is_no_reason_to_stop(interrupts: Interrupts) -> None:
    with interrupts.deferred():
        assert interrupts.reason() is None


def test_a_watched_parent_that_is_gone_is_a_reason_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    watched, alone = Interrupts(watch_parent=True), Interrupts()
    assert (watched.reason(), watched.orphaned) == (None, False)
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert (watched.orphaned, alone.orphaned, alone.reason()) == (True, False, None)
    with pytest.raises(Interrupted, match="SIGTERM"), watched.deferred():
        assert watched.reason() == "SIGTERM"


def test_what_nohup_ignores_stays_ignored(interrupts: Interrupts) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    Interrupts().install()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_outside_the_main_thread_nothing_is_installed_or_held_back(interrupts: Interrupts) -> None:
    other = Interrupts()

    def elsewhere() -> None:
        other.install()
        with undisturbed():
            depth.append(interrupts._depth)

    depth: list[int] = []
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert Interrupts.current is interrupts
    assert depth == [0]


def test_undisturbed_holds_a_signal_back_in_the_main_thread(interrupts: Interrupts) -> None:
    written = []

    def end_run() -> None:
        with undisturbed():
            signal.raise_signal(signal.SIGINT)
            written.append("status")

    with pytest.raises(Interrupted):
        end_run()
    assert written == ["status"]


def test_undisturbed_without_handlers_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Interrupts, "current", None)
    with undisturbed():
        pass
