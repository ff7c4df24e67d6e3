"""detect: bars and a registered detector to a table of found patterns and charts of the best."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from functools import partial
from pathlib import Path
from typing import TextIO

from moola_mlflow.cli.bar_steps import load_bars
from moola_mlflow.cli.following import STANDARD_INPUT, Followed, follow_bars
from moola_mlflow.cli.scanning import (
    log_best_rows,
    open_detector,
    place_detector,
    results_folder,
    scan_precision,
    show_windows,
)
from moola_mlflow.core import (
    DetectKeys,
    Interrupts,
    UserError,
    check_outputs,
    configure_allocator,
    configure_threads,
    is_true,
    note_outputs,
    reader_stream,
    result_of,
)
from moola_mlflow.reports import DetectionsReport, DetectResult, EventDetectionsReport, report_scan, result_fields
from moola_mlflow.tracking import Artifacts, Run, Tags, run_name

TABLE, PAGE = Artifacts.DETECTIONS_TABLE, Artifacts.DETECTIONS_PAGE
FURTHER = (Artifacts.EVENTS_TABLE, Artifacts.AFTER_EVENTS, Artifacts.SIGNALS)
"""Files that only the results of event detectors have."""
KIND = "detections"


def run(
    config: DetectKeys, preset: str, interrupts: Interrupts, out: str = "", overwrite: str = "false"
) -> DetectResult | None:
    """Slide a detector over bars, log what it finds as a table, a page and a picture; copy the first two to ``out``.

    With ``detect.follow`` bars are read as they come, and the result is None if too few came. If events are printed as
    JSON, nothing else is on standard output.
    """
    options, events_to = config.detect, reader_stream()
    quiet = options.follow and options.lines == "json"
    with contextlib.redirect_stdout(sys.stderr) if quiet else contextlib.nullcontext():
        return _run(config, interrupts, out, overwrite, events_to)


def _run(
    config: DetectKeys, interrupts: Interrupts, out: str, overwrite: str, events_to: TextIO
) -> DetectResult | None:
    allocator = configure_allocator(config.runtime)
    source = "stdin" if config.bars.path == STANDARD_INPUT else Path(config.bars.path).stem
    name = run_name("detect", source, 0, config.project.name)
    with Run.start("detect", name, config.tracking.experiment) as active:
        active.config(config)
        active.params({"out": out or "none"})
        configure_threads(config.runtime)
        folder = results_folder(out, TABLE, PAGE)
        outputs = [folder / file for file in (TABLE, PAGE, *FURTHER)] if folder else []
        check_outputs(outputs, KIND, is_true("overwrite", overwrite))
        detector, uri = open_detector(active, config.detect.detector)
        precision, device = scan_precision(config), place_detector(detector, config)
        active.tags({Tags.DEVICE: device, Tags.PRECISION: precision, Tags.ALLOCATOR: allocator})
        if config.detect.follow:
            followed = follow_bars(active, config, detector, precision, interrupts, events_to)
            found = _log_followed(active, config, followed, uri, precision, folder)
        else:
            bars = load_bars(active, config.bars, detector.length, "detect")
            started = time.perf_counter()
            found = report_scan(bars, detector, uri, config, precision, show_windows(active))
            _log(active, found, time.perf_counter() - started, folder)
        note_outputs([path for path in outputs if path.exists()], KIND)
    if found is None:
        return None
    return DetectResult(**result_fields(active), table=found.table, pictures=found.pictures())


def _log_followed(
    active: Run, config: DetectKeys, followed: Followed, uri: str, precision: str, folder: Path | None
) -> DetectionsReport | EventDetectionsReport | None:
    """Scan the bars that came: the same events, and those that are not final yet. Raises: UserError of the source."""
    found = None
    step, detector = len(followed.seen), followed.live.detector
    active.metrics(followed.metrics(), step=step)
    print(followed.summary(), flush=True)
    if not followed.live.num_windows:
        active.note(f"{step:,} bars came. An event detector needs {detector.length} bars without a gap.\n")
    else:
        name = "standard input" if config.bars.path == STANDARD_INPUT else config.bars.path
        bars = followed.seen.bars(name, config.bars.minutes)
        active.bars(bars, "detect")
        found = report_scan(bars, detector, uri, config, precision, lambda done, of: None)
        _log(active, found, followed.seconds, folder, step)
    if followed.refusal is not None:
        raise followed.refusal
    return found


def _log(
    active: Run, found: DetectionsReport | EventDetectionsReport, seconds: float, folder: Path | None, step: int = 0
) -> None:
    """Log table, page, pictures, metrics and note, and copy all but the pictures to the folder."""
    drawn, files = found.drawn, (TABLE, PAGE, *found.files())  # a worker draws meanwhile
    _write(found, active.folder)
    if folder:
        _copy([active.folder / file for file in files], folder)
    score = "score" if "score" in found.table else "probability"
    with active.together():
        for file in files:
            active.artifact(active.folder / file)
        log_best_rows(active, found.table, score, Artifacts.HITS_TABLE)
        active.metrics(found.metrics(seconds), step=step)
        active.note(found.note(seconds))
        for name, picture in drawn.items():
            active.png(partial(result_of, picture), name)
    for text in found.cautions():
        print(f"Note: {text}", flush=True)
    where = f"{folder / PAGE} and {folder / TABLE}" if folder else f"{PAGE} and {TABLE} of the run"
    windows = found.scan.windows
    speed = f"{len(windows) / seconds:,.0f} windows/s, {len(windows.bars) / seconds:,.0f} bars/s"
    print(f"{found.scanned()}\n{found.summary()} -> {where}\n{speed}", flush=True)


def _write(found: DetectionsReport | EventDetectionsReport, folder: Path) -> None:
    found.table.to_parquet(folder / TABLE, index=False)
    (folder / PAGE).write_text(found.html(), encoding="utf-8")
    for name, write in found.files().items():
        write(folder / name)


def _copy(files: list[Path], folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copyfile(file, folder / file.name)
    except OSError as e:
        raise UserError(f"out='{folder}' cannot be written: {e}; give a folder you may write to") from e
