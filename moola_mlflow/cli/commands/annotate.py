"""annotate: label windows by eye on a local page; each decision is kept before the next window shows."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from moola_mlflow.annotate import AnnotateSession, PageServer, build_app
from moola_mlflow.cli import steps
from moola_mlflow.core import AnnotateKeys, Interrupted, Interrupts
from moola_mlflow.tracking import Run, run_name

BEAT_S = 2.0
"""Seconds between two looks at what was decided."""


def run(config: AnnotateKeys, preset: str, interrupts: Interrupts) -> None:
    """Serve the page until Finish or Ctrl-C; log progress and the labels file."""
    name = run_name("annotate", Path(config.bars.path).stem, config.annotate.seed, config.project.name)
    with Run.start("annotate", name, config.tracking.experiment) as active:
        active.config(config)
        bars = steps.load_bars(active, config.bars, config.windows.length, "annotate")
        server = PageServer(config.annotate.host, config.annotate.port)
        with AnnotateSession.open(config, bars) as session:
            finished = threading.Event()

            def finish() -> dict[str, Any]:
                finished.set()
                return session.reached()

            server.start(build_app(session.desk, finish))
            print(f"{len(session.candidates):,} windows. Open {server.link}", flush=True)
            try:
                while not finished.wait(BEAT_S):
                    active.beat()
            except Interrupted as e:
                print(f"{e}: the session ends", flush=True)
            server.stop()
        active.artifact(session.file.path)
        print(f"{session.reached()}", flush=True)
