"""What the charts of a page hold, as its script reads it."""

from __future__ import annotations

import json
from typing import Any


def figures_of(page: str) -> dict[str, Any]:
    """The figures of a page by the ids of their places."""
    found: dict[str, Any] = json.loads(page.split('id="figures">')[1].split("</script>")[0])
    return found


def windows_of(page: str) -> list[list[str]]:
    """The titles of the windows of each chart of candlesticks. A chart of one window has no slider."""
    charts = [figure["layout"] for figure in figures_of(page).values() if figure["data"][0]["type"] == "candlestick"]
    return [
        [step["args"][1]["title.text"] for step in chart["sliders"][0]["steps"]]
        if "sliders" in chart
        else [chart["title"]["text"]]
        for chart in charts
    ]
