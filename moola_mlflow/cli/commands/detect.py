"""detect: bars and a registered detector to a table of found patterns and charts of the best."""

from __future__ import annotations

import time
from pathlib import Path

from moola_mlflow.cli import steps
from moola_mlflow.cli.scanning import open_detector, place_detector, results_folder, scan_precision, show_windows
from moola_mlflow.core import (
    DetectKeys,
    Interrupts,
    UserError,
    check_outputs,
    configure_allocator,
    configure_threads,
    is_true,
    note_outputs,
)
from moola_mlflow.reports import DetectionsReport, EventDetectionsReport, report_scan
from moola_mlflow.tracking import Artifacts, Run, Tags, run_name

TABLE, PAGE = Artifacts.DETECTIONS_TABLE, Artifacts.DETECTIONS_PAGE
KIND = "detections"


def run(config: DetectKeys, preset: str, interrupts: Interrupts, out: str = "", overwrite: str = "false") -> None:
    """Slide a detector over bars, log what it finds as a table, a page and a picture; copy the first two to ``out``."""
    allocator = configure_allocator(config.runtime)
    name = run_name("detect", Path(config.bars.path).stem, 0, config.project.name)
    with Run.start("detect", name, config.tracking.experiment) as active:
        active.config(config)
        active.params({"out": out or "none"})
        configure_threads(config.runtime)
        folder = results_folder(out, TABLE, PAGE)
        outputs = [folder / file for file in (TABLE, PAGE)] if folder else []
        check_outputs(outputs, KIND, is_true("overwrite", overwrite))
        detector, uri = open_detector(active, config.detect.detector)
        precision, device = scan_precision(config), place_detector(detector, config)
        active.tags({Tags.DEVICE: device, Tags.PRECISION: precision, Tags.ALLOCATOR: allocator})
        bars = steps.load_bars(active, config.bars, detector.length, "detect")
        started = time.perf_counter()
        found = report_scan(bars, detector, uri, config, precision, show_windows(active))
        seconds = time.perf_counter() - started
        for place in [active.folder, *([folder] if folder else [])]:
            _write(found, place)
        note_outputs(outputs, KIND)
        for file in (TABLE, PAGE):
            active.artifact(active.folder / file)
        active.figure(found.figure(), Artifacts.DETECTIONS_FIGURE)
        active.metrics(found.metrics(seconds))
        active.note(found.note(seconds))
        for text in found.cautions():
            print(f"Note: {text}", flush=True)
        where = f"{folder / PAGE} and {folder / TABLE}" if folder else f"{PAGE} and {TABLE} of the run"
        speed = f"{len(found.scan.windows) / seconds:,.0f} windows/s, {len(bars) / seconds:,.0f} bars/s"
        print(f"{found.scanned()}\n{found.summary()} -> {where}\n{speed}", flush=True)


def _write(found: DetectionsReport | EventDetectionsReport, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found.table.to_parquet(folder / TABLE, index=False)
        (folder / PAGE).write_text(found.html(), encoding="utf-8")
    except OSError as e:
        raise UserError(f"out='{folder}' cannot be written: {e}; give a folder you may write to") from e
