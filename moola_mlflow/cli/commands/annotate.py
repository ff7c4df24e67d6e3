"""annotate: label windows by eye on a local page; each decision is kept before the next window shows."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from moola_mlflow.annotate import AnnotateSession, PageServer, annotate_metrics, annotate_note, build_app
from moola_mlflow.cli.bar_steps import load_bars
from moola_mlflow.cli.scanning import open_detector
from moola_mlflow.core import AnnotateKeys, Interrupted, Interrupts
from moola_mlflow.labels import labels_target, read_event_labels
from moola_mlflow.tracking import Metrics, Run, Tags, run_name

LOOK_S = 2.0
"""Seconds between two looks at what was decided. A store may take longer than a decision."""


def run(config: AnnotateKeys, preset: str, interrupts: Interrupts) -> None:
    """Serve the page until Finish or Ctrl-C; log figures by decision and, at the end, the labels file."""
    name = run_name("annotate", Path(config.bars.path).stem, config.annotate.seed, config.project.name)
    with Run.start("annotate", name, config.tracking.experiment) as active:
        active.config(config)
        labels_target(config.labels.path)  # refused before bars are read
        active.tags({Tags.ANNOTATOR: config.annotate.annotator})
        classes: tuple[str, ...] = ()
        if config.detect.detector:
            detector, uri = open_detector(active, config.detect.detector)
            classes, pinned = detector.classes, config.detect.model_copy(update={"detector": uri})
            config = config.model_copy(update={"detect": pinned})
        bars = load_bars(active, config.bars, config.windows.length, "annotate")
        server = PageServer(config.annotate.host, config.annotate.port)
        try:
            with AnnotateSession.open(config, bars, classes) as session:
                _serve(active, session, server)
        finally:
            server.stop()
        _conclude(active, session)


def _serve(active: Run, session: AnnotateSession, server: PageServer) -> None:
    """Serve the page and log what is decided, until Finish or Ctrl-C."""
    finished = threading.Event()
    logged: tuple[int, int | None] = (-1, None)

    def finish() -> dict[str, Any]:
        finished.set()
        return session.reached()

    server.start(build_app(session.desk, finish))
    print(f"{len(session.candidates):,} windows to look at. Open {server.link}", flush=True)
    print("Decisions are on disk at once. Finish on the page, or press Ctrl-C.", flush=True)
    try:
        while not finished.wait(LOOK_S):
            active.beat()
            now = (session.desk.num_decisions, session.refits.at)
            if now != logged:
                _log(active, session)
                logged = now
    except Interrupted as e:
        print(f"{e}: the session ends", flush=True)
    server.stop()
    if session.desk.num_decisions:
        active.keep()


def _log(active: Run, session: AnnotateSession) -> None:
    figures = annotate_metrics(session)
    active.metrics(figures, step=int(figures[Metrics.ANNOTATE_LOOKED_AT]))
    if session.refits.at is not None:
        given = session.config.detect.detector
        active.tags({Tags.DETECTOR: f"refit at {session.refits.at}" if session.refits.at or not given else given})


def _conclude(active: Run, session: AnnotateSession) -> None:
    """Log the last figures, and the labels file with the hash of its content."""
    _log(active, session)
    active.note(annotate_note(session))
    path, reached = session.file.path, session.reached()
    if path.exists():
        labels = read_event_labels(path, session.config.windows.length)
        active.tags({Tags.LABELS_SHA256: labels.sha256})
        active.metrics({f"{Metrics.LABELS}{name}": count for name, count in labels.counts().items()})
        active.artifact(path)
        print(f"{path}: {len(labels):,} windows, sha256 {labels.sha256}", flush=True)
    print(f"{reached['looked_at']:,} windows looked at, {reached['kept']:,} with an event", flush=True)
