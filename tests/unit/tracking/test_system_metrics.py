"""System metrics: samples in a run's journal, which go where everything else of the run goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from moola_mlflow.tracking import system_metrics
from moola_mlflow.tracking.delivery import Delivery, JournalDelivery, SendPolicy, journal
from moola_mlflow.tracking.store import store_client
from moola_mlflow.tracking.system_metrics import CPU, SystemMetrics


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(system_metrics.SWITCH, raising=False)
    monkeypatch.setenv(system_metrics.INTERVAL, "0.02")


@pytest.fixture
def delivery(tmp_path: Path) -> Iterator[Delivery]:
    delivery = JournalDelivery(tmp_path, store_client(down=True), "abc", None, SendPolicy())
    yield delivery
    delivery.close(0)


def sample(delivery: Delivery, folder: Path, number: int) -> None:
    """Sample until the journal holds so many samples."""
    sampler, deadline = SystemMetrics(delivery, folder), time.monotonic() + 60
    while len(journal.logged_steps(folder, CPU)) < number and time.monotonic() < deadline:
        time.sleep(0.01)
    sampler.stop()


def test_samples_have_mlflows_names_and_sensible_values(delivery: Delivery, tmp_path: Path) -> None:
    sample(delivery, tmp_path, 2)
    for event in journal.read_events(tmp_path):
        figures = event.record["metrics"]
        assert event.kind == "metrics"
        assert {"cpu_utilization_percentage", "system_memory_usage_megabytes", "disk_usage_percentage"} <= {
            name.removeprefix("system/") for name in figures
        }
        assert 0 <= figures["system/cpu_utilization_percentage"] <= 100
        assert 0 < figures["system/system_memory_usage_percentage"] <= 100


def test_a_resumed_run_goes_on_counting(delivery: Delivery, tmp_path: Path) -> None:
    sample(delivery, tmp_path, 2)
    before = journal.logged_steps(tmp_path, CPU)
    sample(delivery, tmp_path, len(before) + 2)
    steps = [event.record["step"] for event in journal.read_events(tmp_path)]
    assert steps == list(range(len(steps)))
    assert len(steps) >= len(before) + 2


def test_after_stop_nothing_is_written_and_a_stopped_sampler_stops_again(delivery: Delivery, tmp_path: Path) -> None:
    sampler = SystemMetrics(delivery, tmp_path)
    sampler.stop()
    size = (tmp_path / "journal.jsonl").stat().st_size
    delivery.close(0)
    sampler.stop()
    assert (tmp_path / "journal.jsonl").stat().st_size == size


@pytest.mark.parametrize("setting", ["false", "true"])
def test_mlflows_own_switch_leaves_it_to_mlflow(
    delivery: Delivery, tmp_path: Path, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(system_metrics.SWITCH, setting)
    sampler = SystemMetrics(delivery, tmp_path)
    assert sampler._thread is None
    sampler.stop()
    assert list(journal.read_events(tmp_path)) == []


def test_a_journal_that_cannot_be_written_ends_the_sampling_not_the_run(delivery: Delivery, tmp_path: Path) -> None:
    sampler = SystemMetrics(delivery, tmp_path)
    delivery.close(0)
    assert sampler._thread is not None
    sampler._thread.join(60)
    assert not sampler._thread.is_alive()
    sampler.stop()
