"""MLflow's system metrics (processor, memory, disk, network, GPU), written to the run's journal.

MLflow's own monitor asks the store about the run at every sample. It stops for good if the store does not answer, and
the process waits for it at its end. Here a sample goes to the journal and is sent with the next event.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Any

from moola_mlflow.tracking.delivery import Delivery, logged_steps
from moola_mlflow.tracking.names import Metrics

SAMPLED_COMMANDS = ("pretrain", "finetune", "sweep")
"""Commands that take long enough to be sampled."""
SWITCH, INTERVAL = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"
"""MLflow's own settings. If the first is set, MLflow samples or not by itself; the second is in seconds."""
FIRST_S, EVERY_S = 1.0, 10.0
CPU = f"{Metrics.SYSTEM}cpu_utilization_percentage"
"""A metric that every sample has."""


class SystemMetrics:
    """Samples system metrics in a thread, until :meth:`stop`."""

    def __init__(self, delivery: Delivery, folder: Path) -> None:
        """Start sampling. Steps continue where the journal of a resumed run ends."""
        self._delivery = delivery
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._monitors = [] if os.environ.get(SWITCH) else _monitors()
        if not self._monitors:
            return
        self._step = max(logged_steps(folder, CPU), default=-1) + 1
        self._every_s = float(os.environ.get(INTERVAL) or EVERY_S)
        self._thread = threading.Thread(target=self._work, name="moola-system-metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no further sample. The journal may then be closed."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        self._sample()  # psutil gives the CPU share since the thread's last call, and 0 at the first call
        wait_s = min(FIRST_S, self._every_s)
        while not self._stopped.wait(wait_s):
            wait_s = self._every_s
            try:
                self._delivery.write({"kind": "metrics", "step": self._step, "metrics": self._sample()}, send=False)
            except (OSError, ValueError):  # a full disk or a closed journal: the run itself will fail and say so
                return
            self._step += 1

    def _sample(self) -> dict[str, float]:
        figures: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            figures |= {f"{Metrics.SYSTEM}{key}": float(value) for key, value in monitor.aggregate_metrics().items()}
            monitor.clear_metrics()
        return figures


def _monitors() -> list[Any]:
    """Return MLflow's monitors of this machine, none if psutil is not installed."""
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
    except Exception as e:  # no NVIDIA driver or no Python binding for it; NVML raises errors of its own
        logging.getLogger(__name__).debug("no GPU is sampled: %s", e)
    return found
