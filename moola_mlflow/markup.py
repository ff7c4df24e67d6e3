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

MARKDOWN_SIGNS = re.compile(r"([\\`*_{}\[\]()#+!|~<>&-])")
STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --strong: #1565c0; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; border-bottom: 1px solid var(--line); margin-top: 2.2rem; }
table { border-collapse: collapse; margin: 1rem 0; font-size: .92rem; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .8rem .25rem 0; text-align: left; vertical-align: top; }
th { background: var(--soft); } td { font-variant-numeric: tabular-nums; }
img { max-width: 100%; height: auto; background: #fff; } figure { margin: 1rem 0; }
figcaption { font-size: .88rem; opacity: .8; } code, pre { background: var(--soft); font-size: .9em; }
pre { padding: .8rem; overflow-x: auto; }
blockquote { border-left: 4px solid var(--strong); margin: 1rem 0; padding: .2rem 1rem; }
"""


def html_text(text: object) -> str:
    """Return text that stands in HTML, also inside a quoted attribute, as the characters it has."""
    return html.escape(str(text), quote=True)


def markdown_text(text: object) -> str:
    """Return text that stands in one line of Markdown as the characters it has: no markup, no HTML, no line break."""
    return MARKDOWN_SIGNS.sub(r"\\\1", " ".join(str(text).split()))


def page(title: str, body: str) -> str:
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


def png(figure: Figure, dpi: int = 110) -> bytes:
    """Return a figure as PNG, without the date and version that would make equal pictures differ."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()
