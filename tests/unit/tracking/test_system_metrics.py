"""System metrics: samples in a run's journal, which go where everything else of the run goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from moola_mlflow.tracking import system_metrics
from moola_mlflow.tracking.delivery import journal
from moola_mlflow.tracking.delivery.journal import Journal
from moola_mlflow.tracking.system_metrics import Watch


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(system_metrics.SWITCH, raising=False)
    monkeypatch.setenv(system_metrics.INTERVAL, "0.02")


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Journal]:
    book = Journal(tmp_path)
    yield book
    book.close()


def sampled(book: Journal, number: int) -> None:
    """Watch until the journal holds so many samples."""
    watch, deadline = Watch(book), time.monotonic() + 60
    while len(journal.logged_steps(book.folder, system_metrics.SAMPLED)) < number and time.monotonic() < deadline:
        time.sleep(0.01)
    watch.stop()


def test_samples_have_mlflows_names_and_sensible_values(book: Journal) -> None:
    sampled(book, 2)
    for event in journal.read_events(book.folder):
        figures = event.record["metrics"]
        assert event.kind == "metrics"
        assert {"cpu_utilization_percentage", "system_memory_usage_megabytes", "disk_usage_percentage"} <= {
            name.removeprefix("system/") for name in figures
        }
        assert 0 <= figures["system/cpu_utilization_percentage"] <= 100
        assert 0 < figures["system/system_memory_usage_percentage"] <= 100


def test_a_resumed_run_goes_on_counting(book: Journal) -> None:
    sampled(book, 2)
    before = journal.logged_steps(book.folder, system_metrics.SAMPLED)
    sampled(book, len(before) + 2)
    steps = [event.record["step"] for event in journal.read_events(book.folder)]
    assert steps == list(range(len(steps)))
    assert len(steps) >= len(before) + 2


def test_after_stop_nothing_is_written_and_a_stopped_watch_stops_again(book: Journal) -> None:
    watch = Watch(book)
    watch.stop()
    size = book.size
    book.close()
    watch.stop()
    assert (book.folder / "journal.jsonl").stat().st_size == size


@pytest.mark.parametrize("setting", ["false", "true"])
def test_mlflows_own_switch_leaves_it_to_mlflow(book: Journal, setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(system_metrics.SWITCH, setting)
    watch = Watch(book)
    assert watch._thread is None
    watch.stop()
    assert list(journal.read_events(book.folder)) == []


def test_a_journal_that_cannot_be_written_ends_the_watch_not_the_run(book: Journal) -> None:
    watch = Watch(book)
    book.close()
    assert watch._thread is not None
    watch._thread.join(60)
    assert not watch._thread.is_alive()
    watch.stop()
