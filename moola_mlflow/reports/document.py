"""A document as blocks, from which Markdown and HTML are made alike; every text in it is shown as it is written.

Text is a string, or a tuple of strings and marked parts. Nothing in a text is markup, so names and values from data or
users can stand in it without further care.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from moola_mlflow.core import UserError, html_image, html_page, html_text, markdown_code, markdown_text


@dataclass(frozen=True)
class Mono:
    """A name, a value or a command, in fixed width."""

    text: str


@dataclass(frozen=True)
class Strong:
    """What the eye should find; ``good`` says whether it pleases."""

    text: str
    good: bool | None = None


Part = str | Mono | Strong
Text = Part | tuple[Part, ...]


@dataclass(frozen=True)
class Heading:
    """The title of a section (level 2) or a part of one (level 3)."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Para:
    """A paragraph."""

    text: Text


@dataclass(frozen=True)
class Notice:
    """What must not be missed: ``good``, ``bad``, ``warn`` or plain."""

    text: Text
    kind: str = ""


@dataclass(frozen=True)
class Items:
    """A list."""

    items: Sequence[Text]


@dataclass(frozen=True)
class Table:
    """A table; with ``summary`` the page shows it on demand."""

    headers: Sequence[str]
    rows: Sequence[Sequence[Text]]
    summary: str = ""


@dataclass(frozen=True)
class Code:
    """Lines of text as they are, such as a command or a file; with ``summary`` the page shows it on demand."""

    text: str
    summary: str = ""


@dataclass(frozen=True)
class Picture:
    """A PNG. ``name`` is its file beside the Markdown: letters, digits, ``.``, ``_`` and ``-``."""

    name: str
    png: bytes
    caption: str


Block = Heading | Para | Notice | Items | Table | Code | Picture


@dataclass
class Document:
    """A title and blocks."""

    title: str
    blocks: list[Block] = field(default_factory=list)

    def add(self, *blocks: Block | None) -> None:
        """Append blocks; None is nothing."""
        self.blocks += [block for block in blocks if block is not None]

    def pictures(self) -> dict[str, bytes]:
        """Return the pictures by their file names, which the Markdown links to under ``figures/``."""
        return {block.name: block.png for block in self.blocks if isinstance(block, Picture)}

    def markdown(self) -> str:
        """Return the document as Markdown."""
        return "\n\n".join([f"# {markdown_text(self.title)}", *map(_markdown, self.blocks)]) + "\n"

    def html(self) -> str:
        """Return the document as one HTML page that needs nothing else."""
        links = [
            f'<a href="#{_anchor(block.text)}">{html_text(block.text)}</a>'
            for block in self.blocks
            if isinstance(block, Heading) and block.level == 2
        ]
        nav = [f"<nav>{' '.join(links)}</nav>"] if len(links) > 3 else []
        return html_page(self.title, "\n".join([*nav, *map(_html, self.blocks)]))

    def write(self, folder: Path, stem: str) -> list[str]:
        """Write ``stem.md`` with its ``figures/`` and ``stem.html``; return the names of the two.

        Raises: UserError where that cannot be written.
        """
        texts = {f"{stem}.md": self.markdown(), f"{stem}.html": self.html()}
        try:
            (folder / "figures").mkdir(parents=True, exist_ok=True)
            for name, png in self.pictures().items():
                (folder / "figures" / name).write_bytes(png)
            for name, text in texts.items():
                (folder / name).write_text(text, encoding="utf-8", newline="\n")
        except OSError as e:
            raise UserError(f"'{folder}' cannot be written: {e}; name a folder that you may write to") from None
        return list(texts)


def output_folder(out: str) -> Path | None:
    """Return the folder that a user named for a document, None for an empty name.

    Raises: UserError where it cannot be one.
    """
    if not out:
        return None
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"out='{out}' cannot be a folder: {e}; name a folder that you may write to") from None
    return Path(out)


def _parts(text: Text) -> Iterable[Part]:
    return text if isinstance(text, tuple) else (text,)


def _markdown_line(text: Text, in_table: bool = False) -> str:
    out = ""
    for part in _parts(text):
        if isinstance(part, Mono):
            out += markdown_code(part.text, in_table)
        elif isinstance(part, Strong):
            out += f"**{markdown_text(part.text)}**"
        else:  # spaces at the ends part it from its neighbours
            shown = markdown_text(part)
            out += " " * part[:1].isspace() + shown + " " * (part[-1:].isspace() and bool(shown))
    return out


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {markdown_text(text)}"
        case Para(text):
            return _markdown_line(text)
        case Notice(text):
            return f"> {_markdown_line(text)}"
        case Items(items):
            return "\n".join(f"- {_markdown_line(item)}" for item in items)
        case Table(headers, rows):
            lines = [headers, ["---"] * len(headers)]
            shown = [" | ".join(line) for line in ([markdown_text(h) for h in headers], lines[1])]
            shown += [" | ".join(_markdown_line(cell, in_table=True) for cell in row) for row in rows]
            return "\n".join(f"| {line} |" for line in shown)
        case Code(text):
            fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
            return f"{fence}\n{text.rstrip()}\n{fence}"
        case Picture(name, _, caption):
            return f"![{markdown_text(caption)}](figures/{name})"


def _html_line(text: Text) -> str:
    out = ""
    for part in _parts(text):
        if isinstance(part, Mono):
            out += f"<code>{html_text(part.text)}</code>"
        elif isinstance(part, Strong):
            kind = "" if part.good is None else ' class="good"' if part.good else ' class="bad"'
            out += f"<strong{kind}>{html_text(part.text)}</strong>"
        else:
            out += html_text(part)
    return out


def _html(block: Block) -> str:
    match block:
        case Heading(text, level):
            anchor = f' id="{_anchor(text)}"' if level == 2 else ""
            return f"<h{level}{anchor}>{html_text(text)}</h{level}>"
        case Para(text):
            return f"<p>{_html_line(text)}</p>"
        case Notice(text, kind):
            return f'<blockquote class="{kind or "plain"}"><p>{_html_line(text)}</p></blockquote>'
        case Items(items):
            return "<ul>\n" + "\n".join(f"<li>{_html_line(item)}</li>" for item in items) + "\n</ul>"
        case Table(headers, rows, summary):
            head = "".join(f"<th>{html_text(cell)}</th>" for cell in headers)
            body = "\n".join("<tr>" + "".join(f"<td>{_html_line(c)}</td>" for c in row) + "</tr>" for row in rows)
            top = f"<thead><tr>{head}</tr></thead>\n" if any(headers) else ""
            table = f"<table>\n{top}<tbody>\n{body}\n</tbody>\n</table>"
            return _on_demand(summary, table)
        case Code(text, summary):
            return _on_demand(summary, f"<pre><code>{html_text(text.rstrip())}</code></pre>")
        case Picture(_, png, caption):
            return html_image(png, caption)


def _on_demand(summary: str, html: str) -> str:
    return f"<details><summary>{html_text(summary)}</summary>\n{html}\n</details>" if summary else html


def _anchor(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
