"""Steps of the commands that scan bars with a detector: load it, place it, choose the precision, show progress."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from moola_mlflow.core import ScanKeys, UserError, pick_device
from moola_mlflow.models import EventDetector, PatternDetector
from moola_mlflow.tracking import (
    CANDIDATE,
    Run,
    Tags,
    find_model,
    load_detector,
    log_model_inputs,
    resolve_origin,
)

MODELS = "models:/"
MOST_ROWS = 1000
"""Rows of a table in MLflow's UI, which loads all of them. The parquet file has every row."""
Detector = PatternDetector | EventDetector


def open_detector(active: Run, uri: str) -> tuple[Detector, str]:
    """Load the detector of a run, log it as its input, and return it with the version that the name means now."""
    detector = _load(uri)
    origin = resolve_origin(uri, detector.card)
    log_model_inputs(active.id, [origin.model_id] if origin.model_id else [])
    active.tags({Tags.DETECTOR: origin.uri})
    print(f"Detector: {origin.said(uri)}", flush=True)
    return detector, origin.uri


def log_best_rows(active: Run, table: pd.DataFrame, score: str, name: str) -> None:
    """Log the rows of the highest scores as a table that the UI can show, filter and compare between runs."""
    best = table.sort_values(score, ascending=False, kind="stable").head(MOST_ROWS)
    if len(best):
        active.table(json.loads(best.to_json(orient="records", date_format="iso", date_unit="s")), name)


def results_folder(out: str, *files: str) -> Path | None:
    """Return the folder that results are copied to. Raises: UserError if it is a file."""
    folder = Path(out).expanduser() if out else None
    if folder is not None and folder.exists() and not folder.is_dir():
        raise UserError(f"out='{out}' is a file; give a folder, which gets {' and '.join(files)}")
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


def place_detector(detector: Detector, config: ScanKeys) -> str:
    """Move the detector to its device. It computes there as it does when served: in fp32, without TF32."""
    import torch  # takes seconds: a detector that the store lacks is refused before

    device = pick_device(config.runtime.device)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    if isinstance(detector, EventDetector):
        detector.to(device)
        return str(device)
    detector.head.to(device)
    if detector.encoder is not None:
        detector.encoder.to(device)
    return str(device)


def scan_precision(config: ScanKeys) -> str:
    """Return fp32, in which the detector was calibrated and is served, unless the user asks for bf16."""
    if config.runtime.precision == "fp16":
        raise UserError("runtime.precision='fp16': a scan computes in fp32 (auto) or in bf16, which is faster")
    return "bf16" if config.runtime.precision == "bf16" else "fp32"


def show_windows(active: Run, every_s: float = 20.0) -> Callable[[int, int], None]:
    """Return a function that prints how many windows are read, and beats so that the run does not look stale."""
    last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= every_s:
            last = time.monotonic()
            active.beat()
            print(f"{done:,} of {total:,} windows", flush=True)

    return show
