"""Escape text from data and users for Markdown, and for names of metrics.

A symbol, a label or a run may have any name. Such a name passes through ``markdown_text`` or ``markdown_code`` before
it is written to a note or a report.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

MARKDOWN_SIGNS = re.compile(r"[\\`*{}\[\]|~<>&]|(?<![^\W_])_|_(?![^\W_])")
"""Characters with a meaning anywhere in a line. Round brackets and ``!`` have one only next to square brackets."""
UNNAMEABLE = re.compile(r"[^\w\-. :/]")
ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
"""Not a backslash: MLflow's UI shows a backslash before ``<``, and drops every table after it."""
MARKDOWN_STARTS = re.compile(r"^(?:#|=|--|[-+](?!\S)|\d+(?=[.)](?!\S)))")
"""Characters with a meaning only at the start of a line: headings, rules, lists."""
INTERVAL = re.compile(r"\\\[([-+]?[\d.]+, [-+]?[\d.]+)\\\](?![(:\\])")
"""An escaped interval such as [0.1, 0.2]. Its brackets need no backslash if nothing after them makes a link."""


def markdown_text(text: object) -> str:
    """Return text for one line of Markdown that shows the same characters: no markup, no HTML, no line break."""
    line = MARKDOWN_SIGNS.sub(lambda m: ENTITIES.get(m[0], f"\\{m[0]}"), " ".join(str(text).split()))
    line = MARKDOWN_STARTS.sub(lambda m: f"{m[0]}\\" if m[0].isdigit() else f"\\{m[0]}", line)
    return INTERVAL.sub(r"[\1]", line)


def markdown_lines(text: object) -> str:
    """Return text of several lines for Markdown that keeps its paragraphs and lists."""
    lines = [line.rstrip() for line in str(text).splitlines()]
    return "\n".join(f"- {markdown_text(line[2:])}" if line.startswith("- ") else markdown_text(line) for line in lines)


def markdown_code(text: object, in_table: bool = False) -> str:
    """Return text as code in one line of Markdown. In a table, a bar would end the cell even inside code."""
    line = " ".join(str(text).split())
    line = line.replace("|", "\\|") if in_table else line
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    return f"{fence} {line} {fence}" if "`" in line or not line else f"{fence}{line}{fence}"


def markdown_table(headers: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table of texts."""
    lines = [headers, ["---"] * len(headers), *rows]
    texts = [[markdown_text(cell) if i != 1 else str(cell) for cell in line] for i, line in enumerate(lines)]
    return "\n".join("| " + " | ".join(line) + " |" for line in texts)


def metric_name(text: object) -> str:
    """Return text as a part of a metric's name: a class may have any name, a metric may not."""
    return UNNAMEABLE.sub("_", str(text))
