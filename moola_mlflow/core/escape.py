"""Text that others wrote, made harmless, and self-contained HTML pages.

A symbol, a label or a run may be called anything: whatever comes from data or from users passes through ``html_text``
or ``markdown_text`` before it stands in a page or a note. A page needs no network and runs no script.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKDOWN_SIGNS = re.compile(r"[\\`*{}\[\]|~<>&]|(?<![^\W_])_|_(?![^\W_])")
"""What means something anywhere in a line; round brackets and ``!`` do only beside square ones."""
UNNAMEABLE = re.compile(r"[^\w\-. :/]")
ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
"""Not by a backslash: MLflow's UI shows it, and drops every table behind it."""
MARKDOWN_STARTS = re.compile(r"^(?:#|=|--|[-+](?!\S)|\d+(?=[.)](?!\S)))")
"""What means something at its start alone: headings, rules, lists."""
INTERVAL = re.compile(r"\\\[([-+]?[\d.]+, [-+]?[\d.]+)\\\](?![(:\\])")
"""An interval such as [0.1, 0.2], which nothing behind it makes a link: its brackets may stay."""
STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --strong: light-dark(#1565c0, #82b1ff);
  --good: light-dark(#1b7a36, #7fd99a); --bad: light-dark(#b3261e, #ff9d94); --warn: light-dark(#9a6700, #f0c674); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; border-bottom: 1px solid var(--line); margin-top: 2.2rem; padding-bottom: .2rem; }
h3 { font-size: 1.05rem; margin-top: 1.6rem; }
table { border-collapse: collapse; margin: 1rem 0; font-size: .92rem; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem 1rem .3rem .4rem; text-align: left; vertical-align: top; }
th { background: var(--soft); } td { font-variant-numeric: tabular-nums; }
img { max-width: 100%; height: auto; background: #fff; border-radius: 6px; } figure { margin: 1rem 0; }
figcaption { font-size: .88rem; opacity: .8; } code, pre { background: var(--soft); font-size: .9em; }
code { padding: .1em .3em; border-radius: 4px; overflow-wrap: anywhere; } td code { overflow-wrap: break-word; }
td:first-child { white-space: nowrap; } pre code { padding: 0; background: none; }
pre { padding: .8rem; overflow-x: auto; border-radius: 6px; } pre code { overflow-wrap: normal; }
blockquote { border-left: 4px solid var(--strong); margin: 1rem 0; padding: .2rem 1rem; background: var(--soft); }
.good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
blockquote.good { border-color: var(--good); color: inherit; font-weight: inherit; }
blockquote.bad { border-color: var(--bad); color: inherit; font-weight: inherit; }
blockquote.warn { border-color: var(--warn); }
details { margin: 1rem 0; } summary { cursor: pointer; color: var(--strong); }
nav { font-size: .92rem; }
nav a { color: var(--strong); margin-right: 1rem; text-decoration: none; white-space: nowrap; }
"""


def html_text(text: object) -> str:
    """Return text that stands in HTML, also inside a quoted attribute, as the characters it has."""
    return html.escape(str(text), quote=True)


def markdown_text(text: object) -> str:
    """Return text that stands in one line of Markdown as the characters it has: no markup, no HTML, no line break."""
    line = MARKDOWN_SIGNS.sub(lambda m: ENTITIES.get(m[0], f"\\{m[0]}"), " ".join(str(text).split()))
    line = MARKDOWN_STARTS.sub(lambda m: f"{m[0]}\\" if m[0].isdigit() else f"\\{m[0]}", line)
    return INTERVAL.sub(r"[\1]", line)


def markdown_lines(text: object) -> str:
    """Return text of several lines as the characters it has, in Markdown that keeps its paragraphs and lists."""
    lines = [line.rstrip() for line in str(text).splitlines()]
    return "\n".join(f"- {markdown_text(line[2:])}" if line.startswith("- ") else markdown_text(line) for line in lines)


def markdown_code(text: object, in_table: bool = False) -> str:
    """Return text as code in one line of Markdown; in a table a bar would end the cell even there."""
    line = " ".join(str(text).split())
    line = line.replace("|", "\\|") if in_table else line
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    return f"{fence} {line} {fence}" if "`" in line or not line else f"{fence}{line}{fence}"


def metric_name(text: object) -> str:
    """Return text as a part of a metric's name: a class may be called anything, a metric may not."""
    return UNNAMEABLE.sub("_", str(text))


def html_page(title: str, body: str) -> str:
    """Return a whole HTML page around a body that is HTML already; the title is text."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{html_text(title)}</title>\n<style>{STYLE}</style>\n</head>\n'
        f"<body>\n<h1>{html_text(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def html_table(headers: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """Return an HTML table of texts."""
    head = "".join(f"<th>{html_text(cell)}</th>" for cell in headers)
    body = "\n".join("<tr>" + "".join(f"<td>{html_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def markdown_table(headers: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table of texts."""
    lines = [headers, ["---"] * len(headers), *rows]
    texts = [[markdown_text(cell) if i != 1 else str(cell) for cell in line] for i, line in enumerate(lines)]
    return "\n".join("| " + " | ".join(line) + " |" for line in texts)


def html_image(png: bytes, caption: str) -> str:
    """Return a PNG as a figure that is part of the page."""
    data = base64.b64encode(png).decode()
    text = html_text(caption)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'


def png_data_uri(figure: Figure, dpi: int = 110) -> bytes:
    """Return a figure as PNG, without the date and version that would make equal pictures differ."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()
