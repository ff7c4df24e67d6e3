"""The windows of ``annotate.list``: names of windows, one a line, or the table of events that ``detect`` writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from moola_mlflow.annotate.candidates import Candidates
from moola_mlflow.core import UserError, nearest_name

NEEDED = ("instrument", "start", "end", "label")


@dataclass
class ListedWindows:
    """Windows to look at, in order, by the row of the first bar, and the hits of a detector in each."""

    rows: list[int] = field(default_factory=list)
    hits: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    left_out: int = 0
    """Names or hits that are in no window of the bars."""


def read_listed(text: str, candidates: Candidates) -> ListedWindows:
    """Return the windows that ``annotate.list`` names. Raises: UserError if the file cannot be read or names none."""
    path = Path(text).expanduser()
    if not path.is_file():
        raise UserError(f"annotate.list='{text}' is no file; give one with a window_id a line, or a detections.parquet")
    made = _hits(path, candidates) if path.suffix in (".parquet", ".pq") else _names(path, candidates)
    if not made.rows:
        raise UserError(f"annotate.list='{text}' names no window of these bars ({made.left_out:,} were looked for)")
    return made


def _names(path: Path, candidates: Candidates) -> ListedWindows:
    try:
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"annotate.list='{path}' cannot be read as text: {e}") from e
    row_of = dict(zip(candidates.names(candidates.starts), candidates.starts.tolist(), strict=True))
    rows = [row_of[name] for name in dict.fromkeys(lines) if name in row_of]
    return ListedWindows(rows, {}, len(set(lines)) - len(rows))


def _hits(path: Path, candidates: Candidates) -> ListedWindows:
    try:
        table = pd.read_parquet(path)
    except Exception as e:
        raise UserError(f"annotate.list='{path}' cannot be read as parquet: {e}") from e
    for name in NEEDED:
        if name not in table.columns:
            hint = nearest_name(name, [str(column) for column in table.columns])
            raise UserError(f"annotate.list='{path}' has no column '{name}'{hint} detect writes such a table")
    score = next((table[name] for name in ("score", "probability") if name in table.columns), None)
    scores = np.full(len(table), np.nan) if score is None else score.to_numpy(np.float64)
    ends = [
        pd.to_datetime(table[name], utc=True).astype("datetime64[ns, UTC]").astype("int64") for name in ("start", "end")
    ]
    made = ListedWindows()
    order = np.argsort(-np.nan_to_num(scores), kind="stable").tolist()
    for i in order:
        start_ns, end_ns = (int(column.iloc[i]) for column in ends)
        row = candidates.around(str(table["instrument"].iloc[i]), start_ns, end_ns)
        if row < 0:
            made.left_out += 1
            continue
        time_ns = candidates.bars.time_ns[row : row + candidates.length]
        first = int(np.searchsorted(time_ns, start_ns, "right")) - 1
        last = int(np.searchsorted(time_ns, end_ns, "right")) - 1
        hit = {"label": str(table["label"].iloc[i]), "start": max(first, 0), "end": last}
        hit["score"] = None if np.isnan(scores[i]) else round(float(scores[i]), 4)
        if row not in made.hits:
            made.rows.append(row)
        made.hits.setdefault(row, []).append(hit)
    return made
