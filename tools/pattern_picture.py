"""Makes docs/images/patterns.svg: the most probable patterns that a detector finds in sample bars it has not seen.

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

import moola_mlflow as moola
from moola_mlflow.reports.plots.candles import HEIGHT, WIDTH, candles_svg, class_color

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "images" / "patterns.svg"
NEW_BARS = {"sample_bars": 40_000, "sample_seed": 7}
"""Neither the bars of pre-training (seed 1) nor those of the sample labels (seed 1001)."""
LENGTH = 105
EACH = 2
"""Patterns of each class."""
HEAD, GAP = 30, 14
STYLE = """<style>
text { font: 11px system-ui, sans-serif; fill: #444; } .name { font-size: 14px; fill: #111; }
.grid { stroke: #ddd; } .tick { stroke: #999; }
</style>"""


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


def picture(bars: moola.Bars, hits: pd.DataFrame) -> str:
    """Return one SVG with a chart of each hit, two to a row, its span shaded."""
    classes = sorted(set(hits["label"]))
    width, height = 2 * WIDTH + 3 * GAP, -(-len(hits) // 2) * (HEIGHT + HEAD + GAP) + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        STYLE,
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for place, hit in enumerate(hits.itertuples(index=False)):
        x, y = GAP + place % 2 * (WIDTH + GAP), GAP + place // 2 * (HEIGHT + HEAD + GAP)
        first = int(np.searchsorted(bars.time_ns, pd.Timestamp(hit.window_start).value))  # type: ignore[arg-type]
        rows, span = slice(first, first + LENGTH), (int(hit.expansion_start), int(hit.expansion_end))  # type: ignore[arg-type]
        color = class_color(classes, str(hit.label))
        title = f"{hit.label}, probability {hit.probability:.2f}, {pd.Timestamp(hit.start):%Y-%m-%d %H:%M} UTC"  # type: ignore[arg-type]
        chart = candles_svg(bars.ohlc[rows], bars.time_ns[rows], span, color, title)
        parts += [
            f'<g transform="translate({x} {y})">',
            f'<rect x="8" y="4" width="14" height="14" rx="3" fill="{color}"/>',
            f'<text class="name" x="30" y="16">{title}</text>',
            f'<g transform="translate(0 {HEAD})">',
            chart.replace("<svg ", f'<svg width="{WIDTH}" height="{HEIGHT}" ', 1),
            "</g></g>",
        ]
    return "\n".join([*parts, "</svg>\n"])


def main(arguments: list[str]) -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory(prefix="moola-picture-") as scratch:
        detector = Path(arguments[0]) if arguments else fit(Path(scratch))
        bars = moola.read_bars(moola.BarsConfig(path="sample", **NEW_BARS))
        hits = moola.scan(bars, str(detector))
    PICTURE.write_text(picture(bars, best(hits)), encoding="utf-8")
    print(f"wrote {PICTURE.relative_to(ROOT)}")


if __name__ == "__main__":
    main(sys.argv[1:])
