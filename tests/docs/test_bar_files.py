"""The page of vendors' files shows the table that the tests of the reader try, with the messages as they are said.

python tests/docs/test_bar_files.py      writes the table into the page
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

from bar_forms import FORMS  # noqa: E402
from bar_makers import CLOSE, Form  # noqa: E402

from moola_mlflow.bars import read_bars  # noqa: E402
from moola_mlflow.core import BarsConfig, UserError  # noqa: E402

PAGE = ROOT / "docs" / "reference" / "bar-files.md"
BEGIN, END = "<!-- The table is made by tests/docs/test_bar_files.py. -->\n", "<!-- end of the table -->"


def said(form: Form, path: Path) -> str:
    """Return what is read from a file, or the message that refuses it, without the folder that it lies in."""
    try:
        bars = read_bars(BarsConfig(path=str(path), **form.keys), 1)
    except UserError as e:
        message = str(e).replace(f"{path.parent}/", "").split(". Correct the file, or leave")[0]
        return f"refused: {message[:300]}"
    notes = [
        note.replace(f"{path.parent}/", "").removeprefix(f"{path.name}: ")
        for note in bars.notes
        if re.search(form.says, note)
    ]
    text = f"read: {form.num} bars from {form.first}Z"
    close = f", last close {form.close:g}" if form.close != CLOSE else ""
    return text + close + (f"; {notes[0]}" if form.says and notes else "")


def made() -> str:
    rows = ["| kind | file | keys | what happens |", "|---|---|---|---|"]
    for form in FORMS:
        with tempfile.TemporaryDirectory() as folder:
            keys = ", ".join(f"`bars.{name}={value}`" for name, value in form.keys.items())
            cells = (form.kind, form.what, keys, said(form, form.make(Path(folder))))
            rows.append("| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def test_the_page_shows_the_table_that_the_tests_try() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text.split(BEGIN)[1].split(END)[0] == made(), "run: python tests/docs/test_bar_files.py"


if __name__ == "__main__":
    before = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(before.split(BEGIN)[0] + BEGIN + made() + END + before.split(END)[1], encoding="utf-8")
