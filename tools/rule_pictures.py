"""Makes docs/images/rules/NAME.svg: an example window of each selector and of surge-1, from sample bars.

python tools/rule_pictures.py
"""

from __future__ import annotations

from pathlib import Path

from moola_mlflow.bars import read_bars
from moola_mlflow.core import RulesKeys, make_config
from moola_mlflow.reports.plots.candles import HEIGHT, WIDTH
from moola_mlflow.reports.rules_report import RulesReport
from moola_mlflow.windows import make_windows

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "images" / "rules"
KEYS = {
    "bars.sample_bars": 20_000, "bars.sample_seed": 7, "objective.num_rules": 60, "objective.family": "broad",
    "objective.rules_seed": 1,
}  # fmt: skip
"""Few rules, but of the family with every selector."""
HEAD = 26
STYLE = """<style>
text { font: 11px system-ui, sans-serif; fill: #444; } .name { font-size: 14px; fill: #111; }
.grid { stroke: #ddd; } .tick { stroke: #999; }
</style>"""


def pictures() -> dict[str, str]:
    """Return an SVG for each selector, and for each rule with a file of its own, by its name."""
    config: RulesKeys = make_config(RulesKeys, {}, KEYS)
    report = RulesReport.of(make_windows(read_bars(config.bars), config.windows.length), config)
    return {chart.label: _alone(chart.label, chart.svg) for chart in report.charts()}


def _alone(name: str, svg: str) -> str:
    height = HEIGHT + HEAD
    placed = svg.replace("<svg ", f'<svg y="{HEAD}" width="{WIDTH}" height="{HEIGHT}" ', 1)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">\n'
        f'{STYLE}\n<rect width="{WIDTH}" height="{height}" fill="#fff"/>\n'
        f'<text class="name" x="8" y="19">{name}</text>\n{placed}\n</svg>\n'
    )


def main() -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name, svg in pictures().items():
        (PICTURES / f"{name}.svg").write_text(svg, encoding="utf-8")
        print(f"{PICTURES / name}.svg")


if __name__ == "__main__":
    main()
