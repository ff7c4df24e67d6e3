"""detect: bars and a registered detector to a table of found patterns and charts of the best."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from moola_mlflow.bars import Bars
from moola_mlflow.cli import steps
from moola_mlflow.core import DetectKeys, Interrupts, UserError, configure_allocator, configure_threads, pick_device
from moola_mlflow.models import PatternDetector, members_of, scan
from moola_mlflow.reports import DetectionsReport, overview_figure
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


def run(config: DetectKeys, preset: str, interrupts: Interrupts, out: str = "") -> None:
    """Slide a detector over bars, log what it finds as a table, a page and a picture; copy the first two to ``out``."""
    allocator = configure_allocator(config.runtime)
    name = run_name("detect", Path(config.bars.path).stem, 0)
    with Run.start("detect", name, config.tracking.experiment) as active:
        active.config(config)
        active.params({"out": out or "none"})
        configure_threads(config.runtime)
        folder = _folder(out)
        detector = _load(config.detect.detector)
        origin = resolve_origin(config.detect.detector, detector.card)
        log_model_inputs(active.id, [origin.model_id] if origin.model_id else [])
        precision, device = _precision(config), _place(detector, config)
        active.tags({Tags.DETECTOR: origin.uri, Tags.DEVICE: device})
        active.tags({Tags.PRECISION: precision, Tags.ALLOCATOR: allocator})
        bars = steps.load_bars(active, config.bars, detector.length, "detect")
        started = time.perf_counter()
        scanned = scan(bars, detector, config.detect, config.bars.max_gap_minutes, _progress(active), precision)
        seconds = time.perf_counter() - started
        found = DetectionsReport(
            scanned, scanned.table(), detector, origin.uri, config, tuple(_seen_before(detector, bars))
        )
        for place in [active.folder, *([folder] if folder else [])]:
            _write(found, place)
        for file in (TABLE, PAGE):
            active.artifact(active.folder / file)
        first, last = scanned.rows(scanned.kept)
        labels = found.table["label"].tolist()
        active.figure(
            overview_figure(
                bars.ohlc[:, 3], bars.time_ns, first, last, labels, scanned.confidence(), config.detect.min_probability,
                detector.classes,
            ),
            Artifacts.DETECTIONS_FIGURE,
        )  # fmt: skip
        active.metrics(found.metrics(seconds))
        active.note(found.note(seconds))
        for text in found.cautions():
            print(f"Note: {text}", flush=True)
        where = f"{folder / PAGE} and {folder / TABLE}" if folder else f"{PAGE} and {TABLE} of the run"
        speed = f"{len(scanned.windows) / seconds:,.0f} windows/s, {len(bars) / seconds:,.0f} bars/s"
        print(f"{found.scanned()}\n{found.summary()} -> {where}\n{speed}", flush=True)


def _folder(out: str) -> Path | None:
    """Return the folder that results are copied to. Raises: UserError where it is a file."""
    folder = Path(out).expanduser() if out else None
    if folder is not None and folder.exists() and not folder.is_dir():
        raise UserError(f"out='{out}' is a file; give a folder, which gets {TABLE} and {PAGE}")
    return folder


def _load(uri: str) -> PatternDetector:
    """Load the detector; where an alias is not set, say which versions there are and what to do."""
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


def _place(detector: PatternDetector, config: DetectKeys) -> str:
    """Move the detector to its device, where it computes with the numbers that it is served with: fp32."""
    import torch  # the store is asked first, and torch takes seconds

    device = pick_device(config.runtime.device)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    detector.head.to(device)
    if detector.encoder is not None:
        detector.encoder.to(device)
    return str(device)


def _precision(config: DetectKeys) -> str:
    """Return fp32, with which the detector is served and was calibrated, unless bf16 is asked for."""
    if config.runtime.precision == "fp16":
        raise UserError("runtime.precision='fp16': detect computes in fp32 (auto) or in bf16, which is faster")
    return "bf16" if config.runtime.precision == "bf16" else "fp32"


def _progress(active: Run, every_s: float = 20.0) -> Callable[[int, int], None]:
    told = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told >= every_s:
            told = time.monotonic()
            active.beat()
            print(f"{done:,} of {total:,} windows", flush=True)

    return tell


def _seen_before(detector: PatternDetector, bars: Bars) -> list[str]:
    """Return warnings where the detector knows these bars."""
    encoders = members_of(detector.encoder) if detector.encoder is not None else []
    known = any(encoder.card.get("data", {}).get("sha256") == bars.sha256 for encoder in encoders)
    said = ["An encoder of this detector was trained on these very bars: hits on unseen bars may be fewer."] * known
    labels = detector.card.get("labels") or {}
    sample = "sample" in (str(labels.get("path")), str(bars.files[0].path))
    if "labelled_from" in labels and not sample:
        ends = (np.datetime64(str(labels[key]).rstrip("Z"), "ns") for key in ("labelled_from", "labelled_until"))
        first, last = (int(end.astype(np.int64)) for end in ends)
        share = float(((bars.time_ns >= first) & (bars.time_ns <= last)).mean())
        if share > 0:
            said.append(f"{share:.0%} of these bars lie in the time that the detector's labels come from.")
    return said


def _write(found: DetectionsReport, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found.table.to_parquet(folder / TABLE, index=False)
        (folder / PAGE).write_text(found.html(), encoding="utf-8")
    except OSError as e:
        raise UserError(f"out='{folder}' cannot be written: {e}; give a folder you may write to") from e
