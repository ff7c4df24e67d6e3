"""The tables of docs/explanation/events.md, from the results of events_study.py.

python -m benchmarks.science.events_tables [events_study_again]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from moola_mlflow.core import markdown_table

RESULTS = Path(__file__).resolve().parents[1] / "results"
PATH, RULES = "price-path features", "encoder trained on rules"
JOINT = "joint nets, "


def _values(row: dict[str, Any], name: str) -> list[float]:
    """Return a figure of each draw; precision is undefined if no event reached the threshold."""
    return [draw[name] for draw in row["draws"] if draw[name] is not None]


def _mean(row: dict[str, Any], name: str, form: str = ".2f") -> str:
    values = _values(row, name)
    return f"{np.mean(values):{form}}" if values else "none found"


def _each(row: dict[str, Any], name: str = "map", form: str = ".3f") -> str:
    return ", ".join("none found" if draw[name] is None else f"{draw[name]:{form}}" for draw in row["draws"])


def _interval(value: dict[str, float]) -> str:
    return f"{value['mean']:+.3f} ({value['lo']:+.3f} to {value['hi']:+.3f})"


def _gain(row: dict[str, Any]) -> str:
    """Return the gain with its interval. On real bars all draws scan the same few bars: each draw's gain is shown."""
    if row["bars"] == "sample":
        return _interval(row["gain"])
    return f"{row['gain']['mean']:+.3f} (each draw {', '.join(f'{gain:+.3f}' for gain in row['gains'])})"


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
            gain = _gain(row) if "gain" in row else ""
            cells.append(
                (_bars(row), row["method"], _windows(row), f"{row['map']['mean']:.3f}", _each(row), line, gain)
            )
    heads = ("bars", "inputs", "windows looked at", "mAP", "each draw", "line", "gain over price-path features")
    return markdown_table(heads, cells)


def threshold_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return precision, recall and calibration at the threshold that was chosen on the windows looked at."""
    cells = [
        (
            row["method"], _windows(row), _mean(row, "precision_strict"), _each(row, "precision_strict", ".2f"),
            _mean(row, "precision"), _mean(row, "recall"), _mean(row, "event_ece", ".3f"),
            _mean(row, "event_ece_strict", ".3f"),
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
    """Return mAP of the baselines on sample bars, next to price-path features in the same draws."""
    ours = {row["labels"]: _values(row, "map") for row in rows if row["method"] == PATH and _bars(row) == "sample"}
    cells = [
        (
            row["method"], _windows(row), f"{row['map']['mean']:.3f}", _each(row),
            f"{np.mean(ours[row['labels']][: len(row['draws'])]):.3f}" if row["labels"] in ours else "",
        )
        for row in rows
        if row["method"] not in (PATH, RULES) and not row["method"].startswith(JOINT)
    ]  # fmt: skip
    heads = ("baseline", "windows looked at", "mAP", "each draw", "event detector, price-path features")
    return markdown_table(heads, cells)


def unlabelled_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return mAP of joint nets with and without rejects and unlabelled windows."""
    cells = [
        (
            row["method"].removeprefix(JOINT), ", ".join(str(draw["looked_at"]) for draw in row["draws"]),
            f"{row['map']['mean']:.3f}", _each(row),
        )
        for row in rows
        if row["method"].startswith(JOINT)
    ]  # fmt: skip
    return markdown_table(("joint nets", "windows looked at", "mAP", "each draw"), cells)


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


def tables(name: str = "events_study") -> list[str]:
    """Return all tables of the page."""
    found = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    rows = sorted(found["rows"], key=lambda row: (row["bars"] != "sample", row["rule"], row["method"], row["labels"]))
    return [
        main_table(rows),
        threshold_table(rows),
        baseline_table(rows),
        unlabelled_table(rows),
        pair_table(found["pairs"]),
    ]


if __name__ == "__main__":
    print("\n\n".join(tables(*sys.argv[1:2])))
