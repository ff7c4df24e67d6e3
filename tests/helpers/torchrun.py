"""Trainings by several processes, which torchrun starts."""

from __future__ import annotations

import subprocess

from harness import Store
from warm_process import start_python


def start_processes(store: Store, processes: int, parameters: dict[str, str]) -> subprocess.Popen[str]:
    words = [word for key, value in parameters.items() for word in (f"--{key}", value)]
    return launch(store, processes, ["-m", "moola_mlflow", "pretrain", *words])


def launch(store: Store, processes: int, program: list[str]) -> subprocess.Popen[str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return start_python([*torchrun, *program], store.folder, store.environment)
