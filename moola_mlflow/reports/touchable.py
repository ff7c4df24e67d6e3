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

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from moola_mlflow.reports.document import Document
from moola_mlflow.reports.page import TEMPLATES, section_key
from moola_mlflow.reports.plots.interactive import WindowPicture, window_change

MAX_BYTES = 6_000_000
"""A page stays below this size. plotly's script is 4.8 MB of it."""
MOST_WINDOWS = 80
"""Windows of one chart on a page with two such charts: a window of 105 bars takes 4 kB."""
ROOM = 950_000
"""Bytes of all windows of a page. What is left is for plotly's script, tables and other charts."""
STEP_BYTES = 60
"""What surrounds the arguments of a slider's step."""
MINUTE = np.timedelta64(1, "m")


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
        return document.html("counts.html", counts=counts)
    placed, figures = [], {}
    for number, plot in enumerate(plots):
        name = f"plot-{number}"
        figures[name] = json.loads(plot.figure.to_json() or "")
        figures[name]["layout"].pop("template", None)  # 7 kB of defaults that every chart would repeat
        figures[name]["layout"].update(LOOK)
        for slider in figures[name]["layout"].get("sliders", []):
            for step in slider["steps"]:
                step["args"] = _compact(step["args"])
        sliders = plot.figure.layout.sliders
        steps = len(sliders[0].steps) if sliders else 1
        placed.append(_Placed(name, section_key(plot.section), plot.caption, plot.figure.layout.height or 450, steps))
    scripts = _scripts()
    hashes = " ".join(f"'sha256-{_hash(script)}'" for script in scripts)
    values: dict[str, Any] = {"counts": counts, "plots": placed, "figures": _text(figures)}
    return document.html("touch.html", scripts=scripts, script_hashes=hashes, **values)


def window_bytes(picture: WindowPicture) -> int:
    """Return the size of a window in a page, as a step of a slider."""
    return len(_text(_compact(window_change(picture)))) + STEP_BYTES


def _text(value: Any) -> str:
    """Return JSON for a script of data, where only ``<`` could end the element."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _compact(change: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the change that shows a window, its times as the first and their number where one follows each minute.

    ``touch.js`` writes them out again. They would be a third of the page's data.
    """
    (times,) = change[0]["x"]
    first, num = times[0], len(times)
    if isinstance(first, int):
        regular = list(range(first, first + num))
    else:
        regular = np.datetime_as_string(np.datetime64(first) + MINUTE * np.arange(num), unit="s").tolist()
    if times != regular:
        return change
    return [{**change[0], "x": [{"first": first, "num": num}]}, *change[1:]]


LOOK = {"plot_bgcolor": "white", "paper_bgcolor": "white", "colorway": ["#3f6fd8", "#d9772b", "#2f9e8f", "#c0417f"]}
"""What all charts of a page share."""


@cache
def _scripts() -> tuple[str, str]:
    own = (TEMPLATES / "touch.js").read_text(encoding="utf-8")
    return get_plotlyjs().replace("</script", "<\\/script"), own


@cache
def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
