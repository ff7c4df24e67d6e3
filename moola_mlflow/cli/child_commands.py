"""Run commands one after the other, each in its own process, with their runs nested under one run."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from moola_mlflow.core import Interrupts, TrainingError
from moola_mlflow.tracking import Run, RunRecord, Tags, search_runs

REFUSED = 3
"""Exit code of ``promote`` where the evidence does not suffice: a result, not a failure."""


@dataclass
class ChildCommands:
    """Runs commands in their own processes. Their output goes to files; the console shows a line for each result."""

    active: Run
    interrupts: Interrupts
    folder: Path
    num_steps: int
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    """Command, result and run of every step so far."""

    def step(self, why: str, command: str, look: str, arguments: Mapping[str, object]) -> RunRecord:
        """Run a command, print its result and where to look, and return its run.

        Raises: TrainingError if it fails. A promotion that gates refuse is no failure.
        """
        started, number = time.perf_counter(), len(self.rows) + 1
        words = [command, *(f"--{key}={value}" for key, value in arguments.items())]
        print(f"[{number}/{self.num_steps}] {why}\n  $ moola {' '.join(words)}", flush=True)
        log = self.folder / f"{number:02d}-{command}.log"
        code = self._process(words, log)
        if code not in (0, REFUSED):
            last = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""])[-1]
            raise TrainingError(f"step {number}, {command}, ended with exit code {code}: {last}; all it said: {log}")
        made = self._newest()
        note = made.tags.get(Tags.NOTE, "")
        result = f"Not done: {refusal(note)}" if code == REFUSED else headline(note)
        seconds = time.perf_counter() - started
        print(f"  {result} ({seconds:.0f} s); look at: {look} of run {made.id}", flush=True)
        self.rows.append((command, result, made.id))
        return made

    def _process(self, words: list[str], log: Path) -> int:
        environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_RUN_ID"}
        context = {Tags.PARENT: self.active.id}  # MLflow puts these tags on every run that is started
        environment["MLFLOW_RUN_CONTEXT"] = json.dumps(context)
        words = [sys.executable, "-m", "moola_mlflow", *words]
        with open(log, "w", encoding="utf-8") as output, self.interrupts.deferred():
            process = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, env=environment)
            try:
                while process.poll() is None and not self.interrupts.reason():
                    try:
                        process.wait(0.2)
                    except subprocess.TimeoutExpired:
                        continue
            finally:
                if process.poll() is None:
                    process.terminate()
                code = process.wait()
        return code

    def _newest(self) -> RunRecord:
        """Return the run that the last step made."""
        made = search_runs({Tags.PARENT: self.active.id}, [self.active.experiment_id])
        if len(made) <= len(self.rows):
            raise TrainingError(f"step {len(self.rows) + 1} left no run in experiment {self.active.experiment_id}")
        return made[-1]


def headline(note: str) -> str:
    """Return a note's first paragraph, which states the result, as plain text on one line."""
    return _plain(note.strip().split("\n\n")[0]) or "done"


def refusal(note: str) -> str:
    """Return why a promotion was refused, with the gates that were missed, as plain text on one line."""
    said, *rest = note.strip().split("\n\n")
    missed = [line.removeprefix("- ") for paragraph in rest for line in paragraph.splitlines() if line.startswith("- ")]
    return _plain(f"{said.removeprefix('**Failed:** ')} {'; '.join(missed)}")


def _plain(markdown: str) -> str:
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(markdown.split()))  # links: what they say
    return html.unescape(re.sub(r"\*\*|`|\\(?=[^\w\s])", "", text))
