"""Makes docs/images/rules/NAME.png: an example window of each selector and of surge-1, from sample bars.

python tools/rule_pictures.py
"""

from __future__ import annotations

from dataclasses import replace

from candle_pictures import figure_of, save
from pictures import IMAGES

from moola_mlflow.bars import read_bars
from moola_mlflow.core import RulesKeys, make_config
from moola_mlflow.reports.plots.interactive import WindowPicture
from moola_mlflow.reports.rules_report import RulesReport
from moola_mlflow.windows import make_windows

PICTURES = IMAGES / "rules"
KEYS = {
    "bars.sample_bars": 20_000, "bars.sample_seed": 7, "objective.num_rules": 60, "objective.rules_seed": 1,
}  # fmt: skip
FAMILIES = ("shapes", "broad")
"""Families that have every selector between them. A selector that both have is shown as the last finds it."""


def pictures() -> dict[str, WindowPicture]:
    """Return the window of each selector, and of each rule with a file of its own, by its name."""
    found: dict[str, WindowPicture] = {}
    for family in FAMILIES:
        config: RulesKeys = make_config(RulesKeys, {}, KEYS | {"objective.family": family})
        report = RulesReport.of(make_windows(read_bars(config.bars), config.windows.length), config)
        found |= {name: replace(picture, title=name) for name, picture in report.pictures().items()}
    return found


def main() -> None:
    """Make every picture."""
    for name, picture in pictures().items():
        save(figure_of([picture]), PICTURES / f"{name}.png")


if __name__ == "__main__":
    main()
