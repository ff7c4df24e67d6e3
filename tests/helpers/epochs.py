"""Wait until trainings in other processes have come some epochs far."""

from __future__ import annotations

import subprocess
import time

from harness import Store

PATIENCE_S = 240


def epochs_logged(store: Store) -> int:
    """Count the epochs in the journals of a store's folder."""
    return sum(p.read_text().count('"val/huber"') for p in store.folder.glob(".moola/runs/*/journal.jsonl"))


def wait_for_epochs(store: Store, epochs: int, *processes: subprocess.Popen[str]) -> None:
    """Wait until journals hold so many epochs. Fails if all of the processes that train end before."""
    deadline = time.monotonic() + PATIENCE_S
    while epochs_logged(store) < epochs and any(process.poll() is None for process in processes):
        assert time.monotonic() < deadline, "the training did not come that far in time"
        time.sleep(0.02)
    assert epochs_logged(store) >= epochs, "the training ended before"
