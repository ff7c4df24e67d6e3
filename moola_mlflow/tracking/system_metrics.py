"""What the machine does while a run is at work: MLflow's system metrics, written to the run's journal.

MLflow's own monitor asks the store about the run at every sample, gives up for good when it does not answer, and has
the process wait for it at its end. Here a sample goes to the journal and leaves with whatever is sent next.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

from moola_mlflow.tracking.delivery import journal
from moola_mlflow.tracking.delivery.journal import Journal
from moola_mlflow.tracking.names import Metrics

STAGES = ("pretrain", "finetune", "sweep")
"""Stages that take long enough for it to matter."""
SWITCH, INTERVAL = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"
"""MLflow's own settings: with the first set, MLflow does as it says; the second is in seconds."""
FIRST_S, EVERY_S = 1.0, 10.0
PREFIX = Metrics.SYSTEM
SAMPLED = f"{PREFIX}cpu_utilization_percentage"
"""A metric that every sample has."""


class Watch:
    """Samples the processor, memory, disk, network and GPUs in a thread, from its making until ``stop``."""

    def __init__(self, book: Journal) -> None:
        """Go on counting where the journal of a resumed run ends."""
        self._book = book
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._monitors = [] if os.environ.get(SWITCH) else _monitors()
        if not self._monitors:
            return
        self._step = max(journal.logged_steps(book.folder, SAMPLED), default=-1) + 1
        self._every_s = float(os.environ.get(INTERVAL) or EVERY_S)
        self._thread = threading.Thread(target=self._go, name="moola-machine", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no further sample; the journal may then be closed."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _go(self) -> None:
        self._sample()  # psutil tells the processor's share since this thread asked before, and 0 the first time
        wait_s = min(FIRST_S, self._every_s)
        while not self._over.wait(wait_s):
            wait_s = self._every_s
            try:
                self._book.append({"kind": "metrics", "step": self._step, "metrics": self._sample()})
            except (OSError, ValueError):  # a full disk, or a journal that was closed: the run itself will tell
                return
            self._step += 1

    def _sample(self) -> dict[str, float]:
        figures: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            figures |= {f"{PREFIX}{key}": float(value) for key, value in monitor.aggregate_metrics().items()}
            monitor.clear_metrics()
        return figures


def _monitors() -> list[Any]:
    """Return MLflow's monitors of what this machine has; none where psutil is not installed."""
    try:
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
        from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
    except ImportError:
        return []
    found: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    try:
        found.append(GPUMonitor())
    except Exception as e:  # no NVIDIA driver, or no binding for it; NVML has errors of its own
        logging.getLogger(__name__).debug("no GPU is watched: %s", e)
    return found
