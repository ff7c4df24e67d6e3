"""detect: bars and a registered detector to a table of found patterns and charts of the best."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from moola_mlflow.cli import steps
from moola_mlflow.core import (
    DetectKeys,
    Interrupts,
    UserError,
    check_outputs,
    configure_allocator,
    configure_threads,
    is_true,
    note_outputs,
    pick_device,
)
from moola_mlflow.models import EventDetector, PatternDetector
from moola_mlflow.reports import DetectionsReport, EventDetectionsReport, report_scan
from moola_mlflow.tracking import (
    CANDIDATE,
    Artifacts,
    Run,
    Tags,
    find_model,
    load_detector,
    log_model_inputs,
    resolve_origin,
    run_name,
)

TABLE, PAGE = Artifacts.DETECTIONS_TABLE, Artifacts.DETECTIONS_PAGE
MODELS = "models:/"
KIND = "detections"
Detector = PatternDetector | EventDetector


def run(config: DetectKeys, preset: str, interrupts: Interrupts, out: str = "", overwrite: str = "false") -> None:
    """Slide a detector over bars, log what it finds as a table, a page and a picture; copy the first two to ``out``."""
    allocator = configure_allocator(config.runtime)
    name = run_name("detect", Path(config.bars.path).stem, 0, config.project.name)
    with Run.start("detect", name, config.tracking.experiment) as active:
        active.config(config)
        active.params({"out": out or "none"})
        configure_threads(config.runtime)
        folder = _folder(out)
        outputs = [folder / file for file in (TABLE, PAGE)] if folder else []
        check_outputs(outputs, KIND, is_true("overwrite", overwrite))
        detector = _load(config.detect.detector)
        origin = resolve_origin(config.detect.detector, detector.card)
        log_model_inputs(active.id, [origin.model_id] if origin.model_id else [])
        print(f"Detector: {origin.said(config.detect.detector)}", flush=True)
        precision, device = _precision(config), _place(detector, config)
        active.tags({Tags.DETECTOR: origin.uri, Tags.DEVICE: device})
        active.tags({Tags.PRECISION: precision, Tags.ALLOCATOR: allocator})
        bars = steps.load_bars(active, config.bars, detector.length, "detect")
        started = time.perf_counter()
        found = report_scan(bars, detector, origin.uri, config, precision, _progress(active))
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


def _folder(out: str) -> Path | None:
    """Return the folder that results are copied to. Raises: UserError if it is a file."""
    folder = Path(out).expanduser() if out else None
    if folder is not None and folder.exists() and not folder.is_dir():
        raise UserError(f"out='{out}' is a file; give a folder, which gets {TABLE} and {PAGE}")
    return folder


def _load(uri: str) -> Detector:
    """Load the detector; if its alias is not set, list the versions and say what to do."""
    name, at, alias = uri.removeprefix(MODELS).partition("@")
    if uri.startswith(MODELS) and at:
        try:
            model = find_model(name)
        except UserError as e:
            raise UserError(f"detector='{uri}': {e}. Make one: `moola finetune`, then `moola promote`") from None
        if alias not in model.aliases:
            held = ", ".join(f"{other} (version {number})" for other, number in sorted(model.aliases.items())) or "none"
            raise UserError(
                f"detector='{uri}': {name} has no {alias}. Versions: {', '.join(model.versions) or 'none'}; aliases: "
                f"{held}. Promote one: `moola promote --model {name} --alias {alias}`, or scan with the newest: "
                f"--detector {MODELS}{name}@{CANDIDATE}"
            )
    return load_detector(uri)


def _place(detector: Detector, config: DetectKeys) -> str:
    """Move the detector to its device. It computes there as it does when served: in fp32, without TF32."""
    import torch  # takes seconds: a detector that the store lacks is refused before

    if isinstance(detector, EventDetector):
        return "cpu"  # its nets are small, and the maps are averaged there
    device = pick_device(config.runtime.device)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    detector.head.to(device)
    if detector.encoder is not None:
        detector.encoder.to(device)
    return str(device)


def _precision(config: DetectKeys) -> str:
    """Return fp32, in which the detector was calibrated and is served, unless the user asks for bf16."""
    if config.runtime.precision == "fp16":
        raise UserError("runtime.precision='fp16': detect computes in fp32 (auto) or in bf16, which is faster")
    return "bf16" if config.runtime.precision == "bf16" else "fp32"


def _progress(active: Run, every_s: float = 20.0) -> Callable[[int, int], None]:
    """Return a function that prints how many windows are read, and beats so that the run does not look stale."""
    last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= every_s:
            last = time.monotonic()
            active.beat()
            print(f"{done:,} of {total:,} windows", flush=True)

    return show


def _write(found: DetectionsReport | EventDetectionsReport, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found.table.to_parquet(folder / TABLE, index=False)
        (folder / PAGE).write_text(found.html(), encoding="utf-8")
    except OSError as e:
        raise UserError(f"out='{folder}' cannot be written: {e}; give a folder you may write to") from e
