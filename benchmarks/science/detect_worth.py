"""What a detector's hits and probabilities are worth on bars that it has not seen: the table of docs/how-to/detect.md.

Two detectors are trained on 174 weak labels of the sample, and scored on another sample and on real bars. From the
project's root, with the real bars in ../shared/data:

    moola pretrain --config configs/path.yaml --register worth-encoder
    moola finetune --encoder models:/worth-encoder@candidate --register worth-both
    moola finetune --finetune.inputs price_path --register worth-path
    python -m benchmarks.science.detect_worth --detector models:/worth-both@candidate models:/worth-path@candidate \\
        --bars sample ../shared/data/es_front_1min.parquet

[--instrument front] [--sample_seed 77] [--out benchmarks/results/detect_worth.json]

The bars are labelled by the rule of `moola label`. F1, Joint@3 and the calibration error (ECE, before and after the
temperature) are those of the windows that the rule labels and that share no bar; beside it stands the ECE that a
perfectly calibrated detector would show on as many windows with these probabilities. Then the bars are scanned as
`moola detect` does: how many windows pass its thresholds where the rule labels and where it finds no surge, and how
many hits are what the rule says. A detector is a models:/ or runs:/ URI, or a folder.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.synthetic_months import machine
from moola_mlflow.bars.reader import Bars, read_bars
from moola_mlflow.core import BarsConfig, runtime
from moola_mlflow.evaluation.metrics import ece, ece_if_calibrated, scores
from moola_mlflow.labels.surge_rule import CLASSES, NO_SURGE, apply_rule
from moola_mlflow.labels.weak import find_patterns
from moola_mlflow.models.calibration import apply_temperature
from moola_mlflow.models.detecting import detect_options
from moola_mlflow.models.detector import PatternDetector
from moola_mlflow.models.scanning import scan
from moola_mlflow.tracking.registry import models

RESULTS = Path(__file__).resolve().parents[1] / "results"
SEED = 17
"""Draws which of overlapping labelled windows stay."""
SHARES = ("above_labelled", "above_without_a_surge", "hits_right")
HEAD = """\
| detector | bars | windows | F1, Joint@3 | ECE before, after temperature (if perfect) \
| windows above: labelled by the rule, without a surge | of the hits right in class and centre |
|---|---|---|---|---|---|---|"""


def on_labels(detector: PatternDetector, bars: Bars) -> dict[str, Any]:
    """Return the scores on the windows that the rule labels and that share no bar."""
    patterns = find_patterns(bars, SEED)
    ohlc, label = patterns.windows.gather(np.arange(len(patterns.label))), patterns.label
    found = detector.predict(ohlc)
    order = [detector.classes.index(name) for name in CLASSES]
    probability = found.probability[:, order]
    span, predicted = np.stack([patterns.start, patterns.end], 1), np.stack([found.start, found.end], 1)
    row = scores(label, probability, predicted, span, CLASSES)
    # What the temperature does: its inverse, applied to the calibrated probabilities, gives the raw ones again.
    raw = apply_temperature(np.log(probability), 1 / detector.temperature)
    return {
        "labelled_windows": len(label), "f1_macro": row["f1_macro"], "joint_success_at_3": row["joint_success_at_3"],
        "ece_before": ece(label, raw), "ece": ece(label, probability), "temperature": detector.temperature,
        "ece_if_calibrated": float(ece_if_calibrated(probability[None])),
    }  # fmt: skip


def on_scan(detector: PatternDetector, bars: Bars) -> dict[str, Any]:
    """Return which windows pass the thresholds of a scan, and what the rule says of its hits."""
    scanned = scan(bars, detector, detect_options({}))
    outcome, start, end = apply_rule(scanned.windows.gather(np.arange(len(scanned.windows))))
    labelled = outcome < len(CLASSES)
    right = labelled & (np.array([*CLASSES, "", ""])[outcome] == scanned.found.label)
    right &= np.abs(start + end - scanned.found.start - scanned.found.end) <= 6
    above, kept = scanned.above, scanned.kept
    return {
        "windows": len(above), "above": _share(above), "above_labelled": _share(above[labelled]),
        "above_without_a_surge": _share(above[outcome == NO_SURGE]),
        "hits": len(kept), "hits_labelled": _share(labelled[kept]), "hits_right": _share(right[kept]),
    }  # fmt: skip


def _share(which: np.ndarray) -> float | None:
    return float(which.mean()) if len(which) else None


def row_of(result: dict[str, Any]) -> str:
    """Return a result as a row of the table."""
    percent = {key: "none" if value is None else f"{value:.0%}" for key, value in result.items() if key in SHARES}
    return (
        f"| {result['detector']} | {result['bars']} | {result['labelled_windows']:,} | {result['f1_macro']:.2f}, "
        f"{result['joint_success_at_3']:.2f} | {result['ece_before']:.3f}, {result['ece']:.3f} "
        f"({result['ece_if_calibrated']:.3f}) | {percent['above_labelled']}, {percent['above_without_a_surge']} | "
        f"{percent['hits_right']} of {result['hits']:,} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", nargs="+", required=True)
    parser.add_argument("--bars", nargs="+", default=["sample"])
    parser.add_argument("--instrument", default="front")
    parser.add_argument("--sample_seed", type=int, default=77, help="of bars that neither labels nor encoder had")
    parser.add_argument("--out", type=Path, default=RESULTS / "detect_worth.json")
    arguments = parser.parse_args()
    runtime.prepare_environment()
    rows = []
    print(HEAD)
    for uri in arguments.detector:
        detector = models.load_detector(uri)
        for path in arguments.bars:
            config = BarsConfig(path=path, instrument=arguments.instrument, sample_seed=arguments.sample_seed)
            bars = read_bars(config)
            about = {
                "detector": uri, "model_id": detector.card.get("model_id"), "bars": path, "bars_sha256": bars.sha256,
                "num_bars": len(bars),
            }  # fmt: skip
            rows.append({**about, **on_labels(detector, bars), **on_scan(detector, bars)})
            print(row_of(rows[-1]), flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
