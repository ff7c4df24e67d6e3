"""Commands of moola that die right before their k-th change of the disk, as kill -9 ends them: nothing is cleaned up.

A script for `warm_process`: it imports the commands once, and each command is a copy of it in a folder of its own.
Changes are ``os.replace``, ``os.rename``, ``os.link``, ``os.unlink`` and ``os.fsync``.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

CHANGES = ("replace", "rename", "link", "unlink", "fsync")
DEAD = 137
IMPORTED = ("cli.commands.pretrain", "cli.parser", "reports.run_report.build", "reports.plots.training")


def die_before(number: int) -> list[str]:
    """Count the changes of this process, and end it right before one of them (from 0; -1: never)."""
    done: list[str] = []
    lock = threading.Lock()

    def watched(name: str, change: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            with lock:
                if len(done) == number:
                    os._exit(DEAD)
                done.append(f"{name} {given[0]}")
            return change(*given, **named)

        return call

    for name in CHANGES:
        setattr(os, name, watched(name, getattr(os, name)))
    return done


def run(folder: Path, words: Sequence[str], number: int) -> int:
    """Run a command in a copy of this process and return its exit code. What it says is in the folder's ``said``."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.chdir(folder)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    said = os.open("said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    done = die_before(number)
    from moola_mlflow.cli.main import run_cli

    code = run_cli(words)
    sys.stdout.flush()
    (folder / "changes").write_text("\n".join(done), encoding="utf-8")
    os._exit(code)


def without_drawing(figure: Figure, path: Path, **_: Any) -> None:
    path.write_bytes(b"a picture")


def main(work: Path, words: Sequence[str]) -> None:
    """Run a command whole, then once for each of its changes: killed before it, and started again.

    ``work`` holds an empty folder ``store`` that each folder is a copy of. The exit codes are in ``codes.json``, and
    how many changes a run had where it ended before it reached its kill (what it sends at once depends on the time).
    """
    for name in IMPORTED:
        importlib.import_module(f"moola_mlflow.{name}")
    Figure.savefig = without_drawing  # half of the time of a small run
    from moola_mlflow.tracking import count_unsent

    assert threading.active_count() == 1

    def folder_of(name: str) -> Path:
        return Path(shutil.copytree(work / "store", work / name))

    whole = folder_of("whole")
    codes: dict[str, list[int]] = {"whole": [run(whole, words, -1)]}
    changes = (whole / "changes").read_text(encoding="utf-8").splitlines()
    early: dict[str, int] = {}
    for number in range(len(changes)):
        folder = folder_of(f"{number:04d}")
        codes[folder.name] = [run(folder, words, number)]
        if codes[folder.name] != [DEAD]:
            early[folder.name] = len((folder / "changes").read_text(encoding="utf-8").splitlines())
        codes[folder.name].append(run(folder, words, -1))
        for left in folder.glob(".moola/runs/*"):
            if count_unsent(left):  # killed between the end of the run and its message
                run(folder, ["sync", str(left)], -1)
    (work / "codes.json").write_text(json.dumps({"codes": codes, "changes": changes, "early": early}), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
