"""The tables of docs/explanation/events.md, from the results of events_study.py.

python -m benchmarks.science.events_tables
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from moola_mlflow.core import markdown_table

RESULTS = Path(__file__).resolve().parents[1] / "results" / "events_study.json"
PATH, RULES = "price-path features", "encoder trained on rules"


def _mean(row: dict[str, Any], name: str) -> float:
    return float(np.mean([draw[name] for draw in row["draws"]]))


def _each(row: dict[str, Any], name: str = "map") -> str:
    return ", ".join(f"{draw[name]:.3f}" for draw in row["draws"])


def _interval(value: dict[str, float]) -> str:
    return f"{value['mean']:+.3f} ({value['lo']:+.3f} to {value['hi']:+.3f})"


def _bars(row: dict[str, Any]) -> str:
    return row["bars"] if row["rule"] == "surge-1" else f"{row['bars']}, {row['rule']}"


def _windows(row: dict[str, Any]) -> str:
    return str(row["labels"] or "none")


def main_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return mAP of the event detector, the lines that were set before, and the gain of the encoder."""
    cells = []
    for row in rows:
        if row["method"] in (PATH, RULES):
            line = f"{row['line']:.2f}, {'met' if row['met'] else 'missed'}" if "line" in row else ""
            gain = _interval(row["gain"]) if "gain" in row else ""
            cells.append(
                (_bars(row), row["method"], _windows(row), f"{row['map']['mean']:.3f}", _each(row), line, gain)
            )
    heads = ("bars", "inputs", "windows looked at", "mAP", "each draw", "line", "gain over price-path features")
    return markdown_table(heads, cells)


def threshold_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return precision, recall and calibration at the threshold that was chosen on the windows looked at."""
    cells = [
        (
            row["method"], _windows(row), f"{_mean(row, 'precision_strict'):.2f}", _each(row, "precision_strict"),
            f"{_mean(row, 'precision'):.2f}", f"{_mean(row, 'recall'):.2f}", f"{_mean(row, 'event_ece'):.3f}",
            f"{_mean(row, 'event_ece_strict'):.3f}",
        )
        for row in rows
        if row["method"] in (PATH, RULES) and _bars(row) == "sample"
    ]  # fmt: skip
    heads = (
        "inputs", "windows looked at", "precision, unclear events wrong", "each draw", "unclear left out", "recall",
        "calibration error, unclear left out", "unclear wrong",
    )  # fmt: skip
    return markdown_table(heads, cells)


def baseline_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return mAP of the baselines on sample bars, and by how much price-path features score more."""
    cells = []
    for row in rows:
        if row["method"] not in (PATH, RULES):
            less = _interval(row["gain"]) if "gain" in row else ""
            cells.append((row["method"], _windows(row), f"{row['map']['mean']:.3f}", _each(row), less))
    return markdown_table(("baseline", "windows looked at", "mAP", "each draw", "less the event detector"), cells)


def pair_table(pairs: Sequence[dict[str, float]]) -> str:
    """Return recall in windows with one event and with two."""
    heads = ("draw", "events alone", "first of two", "second of two", "both", "second / first", "in pairs / alone")
    cells = [
        (
            str(i + 1), *(f"{one[name]:.2f}" for name in ("alone", "first", "second", "both")),
            f"{one['second'] / one['first']:.2f}", f"{one['ratio']:.2f}",
        )
        for i, one in enumerate(pairs)
    ]  # fmt: skip
    return markdown_table(heads, cells)


def tables() -> list[str]:
    """Return all tables of the page."""
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    rows = sorted(found["rows"], key=lambda row: (row["bars"] != "sample", row["rule"], row["method"], row["labels"]))
    return [main_table(rows), threshold_table(rows), baseline_table(rows), pair_table(found["pairs"])]


if __name__ == "__main__":
    print("\n\n".join(tables()))
