"""Makes docs/images/patterns.png: the most probable patterns that a detector finds in sample bars it has not seen.

python tools/pattern_picture.py            fits a detector on sample labels first: some minutes
python tools/pattern_picture.py FOLDER     uses a folder that holds a detector.json
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from candle_pictures import figure_of, save

import moola_mlflow as moola
from moola_mlflow.reports.plots.candles import class_color
from moola_mlflow.reports.plots.interactive import ShownSpan, WindowPicture, local_times

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "images" / "patterns.png"
NEW_BARS = {"sample_bars": 40_000, "sample_seed": 7}
"""Neither the bars of pre-training (seed 1) nor those of the sample labels (seed 1001)."""
LENGTH = 105
EACH = 2
"""Patterns of each class."""


def fit(folder: Path) -> Path:
    """Fit a detector on the sample's labels with the command that users run, and return its folder."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    words = [sys.executable, "-m", "moola_mlflow", "finetune", "--finetune.inputs", "price_path", "--register", "none"]
    words += ["--config", str(ROOT / "configs" / "finetune.yaml")]
    subprocess.run(words, cwd=folder, env={**kept, "PYTHONPATH": str(ROOT)}, check=True, stdout=subprocess.DEVNULL)
    (card,) = folder.glob(".moola/runs/*/detector/detector.json")
    return card.parent


def best(hits: pd.DataFrame) -> pd.DataFrame:
    """Return the most probable hits of each class, the classes in the order of the alphabet."""
    ranked = hits.sort_values(["label", "probability", "start"], ascending=[True, False, True], kind="stable")
    return ranked.groupby("label", sort=True).head(EACH)


def pictures(bars: moola.Bars, hits: pd.DataFrame) -> list[WindowPicture]:
    """Return the window of each hit, its span shaded."""
    classes = sorted(set(hits["label"]))
    found = []
    for hit in hits.to_dict("records"):
        first = int(np.searchsorted(bars.time_ns, hit["window_start"].value))
        color = class_color(classes, hit["label"])
        span = ShownSpan(int(hit["expansion_start"]), int(hit["expansion_end"]), hit["label"], color)
        title = f"{hit['label']}, probability {hit['probability']:.2f}, {hit['start']:%Y-%m-%d %H:%M} UTC"
        rows = slice(first, first + LENGTH)
        times = local_times(bars.time_ns[rows], "UTC")
        found.append(WindowPicture(title, bars.ohlc[rows], times, "UTC", (span,)))
    return found


def main(arguments: list[str]) -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory(prefix="moola-picture-") as scratch:
        detector = Path(arguments[0]) if arguments else fit(Path(scratch))
        bars = moola.read_bars(moola.BarsConfig(path="sample", **NEW_BARS))
        hits = moola.scan(bars, str(detector))
    save(figure_of(pictures(bars, best(hits)), 2), PICTURE)


if __name__ == "__main__":
    main(sys.argv[1:])
