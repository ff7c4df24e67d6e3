"""A report as blocks. They are written as Markdown, and the HTML page is made from that Markdown.

A text is a string, or a tuple of strings and marked parts. Nothing in a text counts as markup, so names and values of
data or users need no escaping.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moola_mlflow.core import UserError, check_outputs, markdown_code, markdown_text, note_outputs
from moola_mlflow.reports.page import FIGURES, MARKS, html_page

SIGNS = {kind: sign for sign, kind in MARKS.items()}


@dataclass(frozen=True)
class Mono:
    """A name, a value or a command, in fixed width."""

    text: str


@dataclass(frozen=True)
class Strong:
    """Bold text. ``good`` puts a sign before it: True good news, False bad news, None no sign."""

    text: str
    good: bool | None = None


Part = str | Mono | Strong
Text = Part | tuple[Part, ...]


@dataclass(frozen=True)
class Heading:
    """The title of a section (level 2) or of a part of one (level 3)."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Para:
    """A paragraph."""

    text: Text


@dataclass(frozen=True)
class Notice:
    """A paragraph that the reader must not miss. ``kind``: ``good``, ``bad``, ``warn`` or empty."""

    text: Text
    kind: str = ""


@dataclass(frozen=True)
class Items:
    """A list."""

    items: Sequence[Text]


@dataclass(frozen=True)
class Table:
    """A table."""

    headers: Sequence[str]
    rows: Sequence[Sequence[Text]]


@dataclass(frozen=True)
class Code:
    """Lines of text as they are, such as a command or a file."""

    text: str


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
        """Append blocks; None adds nothing."""
        self.blocks += [block for block in blocks if block is not None]

    def pictures(self) -> dict[str, bytes]:
        """Return the pictures by the file names that the Markdown links to under ``figures/``."""
        return {block.name: block.png for block in self.blocks if isinstance(block, Picture)}

    def markdown(self) -> str:
        """Return the document as Markdown."""
        return "\n\n".join([f"# {_heading(self.title)}", *map(_markdown, self.blocks)]) + "\n"

    def html(self, template: str = "page.html", **values: Any) -> str:
        """Return the Markdown as one HTML page that needs no other file."""
        return html_page(self.markdown(), self.pictures(), template, **values)

    def replace(self, folder: Path, stem: str, overwrite: bool) -> None:
        """Write to a folder that a user has named. Files in it that no command has written stay.

        Raises: UserError if one of them would be replaced without ``overwrite``.
        """
        paths = [folder / name for name in (f"{stem}.md", f"{stem}.html")]
        paths += [folder / FIGURES / name for name in self.pictures()]
        check_outputs(paths, stem, overwrite)
        self.write(folder, stem)
        note_outputs(paths, stem)

    def write(self, folder: Path, stem: str) -> list[str]:
        """Write ``stem.md`` with its ``figures/`` and ``stem.html``; return the names of the two.

        Raises: UserError if the folder cannot be written to.
        """
        texts = {f"{stem}.md": self.markdown(), f"{stem}.html": self.html()}
        try:
            (folder / FIGURES).mkdir(parents=True, exist_ok=True)
            for name, png in self.pictures().items():
                (folder / FIGURES / name).write_bytes(png)
            for name, text in texts.items():
                (folder / name).write_text(text, encoding="utf-8", newline="\n")
        except OSError as e:
            raise UserError(f"'{folder}' cannot be written: {e}; name a folder that you may write to") from None
        return list(texts)


def output_folder(out: str) -> Path | None:
    """Return the folder that a user named for a document, None for an empty name.

    Raises: UserError if it cannot be a folder.
    """
    if not out:
        return None
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"out='{out}' cannot be a folder: {e}; name a folder that you may write to") from None
    return Path(out)


def _heading(text: str) -> str:
    """Return the text of a heading. Signs # at its end would otherwise be read as its closing sequence."""
    return re.sub(r"(?<!\\)#(?=#*$)", r"\\#", markdown_text(text))


def _line(text: Text, in_table: bool = False) -> str:
    out = ""
    for part in text if isinstance(text, tuple) else (text,):
        if isinstance(part, Mono):
            out += markdown_code(part.text, in_table)
        elif isinstance(part, Strong):
            sign = "" if part.good is None else SIGNS["good" if part.good else "bad"]
            out += f"**{' '.join(filter(None, (sign, markdown_text(part.text))))}**"
        else:  # keep the spaces between this part and the next one
            shown = markdown_text(part)
            out += " " * part[:1].isspace() + shown + " " * (part[-1:].isspace() and bool(shown))
    return out


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {_heading(text)}"
        case Para(text):
            return _line(text)
        case Notice(text, kind):
            return " ".join(filter(None, (">", SIGNS.get(kind), _line(text))))
        case Items(items):
            return "\n".join(f"- {_line(item)}" for item in items)
        case Table(headers, rows):
            lines = [[markdown_text(header) for header in headers], ["---"] * len(headers)]
            lines += [[_line(cell, in_table=True) for cell in row] for row in rows]
            return "\n".join(f"| {' | '.join(line)} |" for line in lines)
        case Code(text):
            fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
            return f"{fence}\n{text.rstrip()}\n{fence}"
        case Picture(name, _, caption):
            return f"![{markdown_text(caption)}]({FIGURES}{name})"
