"""What a caller hands over, as a command takes it: a path, a version, or a file made of a table in memory."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd

from moola_mlflow.bars import Bars, bars_from_table, write_parquet
from moola_mlflow.core import UserError
from moola_mlflow.labels import EventLabels, LabelledSet, write_labels
from moola_mlflow.reports import FinetuneResult, LabelResult, PretrainResult

BarsLike = str | Path | pd.DataFrame | Bars
LabelsLike = str | Path | pd.DataFrame | EventLabels | LabelledSet | LabelResult
EncoderLike = str | Path | PretrainResult | None
DetectorLike = str | Path | FinetuneResult | None


def bars_path(bars: BarsLike, folder: Path) -> str:
    """Return the path of bars. Bars in memory are written to a file in ``folder``, named by their content."""
    if isinstance(bars, str | Path):
        return str(bars)
    if isinstance(bars, pd.DataFrame):
        bars = bars_from_table(bars, 1)
    if not isinstance(bars, Bars):
        raise UserError(
            f"bars is a {type(bars).__name__}; allowed: a path, a pandas DataFrame, bars of read_bars, or 'sample'"
        )
    path = folder / f"bars_{bars.sha256[:12]}.parquet"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_parquet(bars, path, "all")
    return str(path)


def labels_path(labels: LabelsLike, folder: Path) -> str:
    """Return the path of labels. Labels in memory are written to a file in ``folder``, named by their content."""
    if isinstance(labels, str | Path):
        return str(labels)
    if isinstance(labels, LabelResult):
        return str(labels.path)
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(labels, EventLabels | LabelledSet):
        path = folder / f"labels_{labels.sha256[:12] or 'mine'}.parquet"
        write_labels(labels, path)
        return str(path)
    if not isinstance(labels, pd.DataFrame):
        raise UserError(
            f"labels is a {type(labels).__name__}; allowed: a path, a pandas DataFrame with the columns of a labels "
            "file, labels of read_labels or labels_from_spans, what label returned, or 'sample'"
        )
    data = labels.to_parquet(index=False)
    path = folder / f"labels_{hashlib.sha256(data).hexdigest()[:12]}.parquet"
    path.write_bytes(data)
    return str(path)


def encoder_name(encoder: EncoderLike) -> str:
    """Return the name of an encoder: a version, a folder, or empty. Raises: UserError for anything else."""
    return _model_name("encoder", encoder.encoder if isinstance(encoder, PretrainResult) else encoder)


def detector_name(detector: DetectorLike) -> str:
    """Return the name of a detector: a version, a folder, or empty. Raises: UserError for anything else."""
    return _model_name("detector", detector.detector if isinstance(detector, FinetuneResult) else detector)


def _model_name(kind: str, model: object) -> str:
    if model is None:
        return ""
    if isinstance(model, str | Path):
        return str(model)
    loaded = " A loaded detector scans with moola_mlflow.scan." if kind == "detector" else ""
    made = "finetune" if kind == "detector" else "pretrain"
    raise UserError(
        f"{kind} is a {type(model).__name__}; allowed: models:/NAME@ALIAS, runs:/ID/{kind}, a folder, or what {made} "
        f"returned.{loaded}"
    )
