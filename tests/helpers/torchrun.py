"""Trainings by several processes, which torchrun starts."""

from __future__ import annotations

import subprocess
import time

from harness import Store
from warm_process import start_python


def start_processes(store: Store, processes: int, parameters: dict[str, str]) -> subprocess.Popen[str]:
    words = [word for key, value in parameters.items() for word in (f"--{key}", value)]
    return launch(store, processes, ["-m", "moola_mlflow", "pretrain", *words])


def launch(store: Store, processes: int, program: list[str]) -> subprocess.Popen[str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return start_python([*torchrun, *program], store.folder, store.environment)


def wait_for_epochs(store: Store, epochs: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        text = "".join(p.read_text() for p in store.folder.glob(".moola/runs/*/journal.jsonl"))
        if text.count('"val/huber"') >= epochs:
            return
        time.sleep(0.05)
    raise AssertionError("the training did not come that far")
