"""A page with charts that one can touch, in one file: plotly's script is in it, and nothing is fetched.

The page's policy allows exactly the scripts that are written here, by their hashes. A name in the data cannot run.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from moola_mlflow.reports.document import Document
from moola_mlflow.reports.page import TEMPLATES

MAX_BYTES = 6_000_000
"""A page stays below this size. plotly's script is 4.8 MB of it."""
MOST_WINDOWS = 80
"""Windows of one chart. A page has two such charts at most, and a window takes 6 kB."""


@dataclass(frozen=True)
class Plot:
    """A chart below the heading of a section, and its caption."""

    section: str
    figure: go.Figure
    caption: str = ""


@dataclass(frozen=True)
class _Placed:
    """A chart as the template shows it."""

    id: str
    section: str
    caption: str
    height: int
    steps: int


def touch_page(document: Document, plots: Sequence[Plot], counts: Sequence[tuple[str, str]] = ()) -> str:
    """Return a document as a page with charts. ``counts``: numbers above the text, each with what it counts."""
    if not plots:
        return document.html("charts.html", counts=counts, charts=[], charts_title="")
    placed, figures = [], {}
    for number, plot in enumerate(plots):
        name = f"plot-{number}"
        figures[name] = json.loads(plot.figure.to_json() or "")
        figures[name]["layout"].pop("template", None)  # 7 kB of defaults that every chart would repeat
        figures[name]["layout"].update(LOOK)
        sliders = plot.figure.layout.sliders
        steps = len(sliders[0].steps) if sliders else 1
        placed.append(_Placed(name, plot.section, plot.caption, plot.figure.layout.height or 450, steps))
    # In a script of data only `<` could end the element.
    data = json.dumps(figures, separators=(",", ":")).replace("<", "\\u003c")
    scripts = _scripts()
    hashes = " ".join(f"'sha256-{_hash(script)}'" for script in scripts)
    values: dict[str, Any] = {"counts": counts, "charts": [], "charts_title": "", "plots": placed, "figures": data}
    return document.html("touch.html", scripts=scripts, script_hashes=hashes, **values)


LOOK = {"plot_bgcolor": "white", "paper_bgcolor": "white", "colorway": ["#3f6fd8", "#d9772b", "#2f9e8f", "#c0417f"]}
"""What all charts of a page share."""


@cache
def _scripts() -> tuple[str, str]:
    own = (TEMPLATES / "touch.js").read_text(encoding="utf-8")
    return get_plotlyjs().replace("</script", "<\\/script"), own


@cache
def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
