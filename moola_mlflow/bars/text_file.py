"""Read the rows of a text file into a table, by its layout."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from moola_mlflow.bars.column_names import PRICES, Roles, find_columns
from moola_mlflow.bars.header import HEAD_BYTES, headerless, read_head
from moola_mlflow.bars.size_limits import Unpacked
from moola_mlflow.core import UserError


@dataclass
class TextTable:
    """The columns of a text file that have a role, by position: a file may have two columns of one name."""

    table: pa.Table
    columns: Roles
    head_lines: int
    decimal_comma: bool
    shown: dict[str, str]
    ragged: list[tuple[int, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_text_file(path: Path, given: Mapping[str, str], ticks: bool = False) -> TextTable:
    """Return the columns of a text file that have a role. ``given`` names columns by hand, ``bars.columns``. With
    ``ticks``, one price may stand for all four.

    Raises: UserError if it is no table, or lacks a column; pyarrow's own errors for damaged text.
    """
    with io.BufferedReader(Unpacked(path)) as stream:
        start = stream.read(HEAD_BYTES)
    if b"\0" in start:
        raise UserError(f"{path}: is not plain text (it holds zero bytes); save it as UTF-8 CSV")
    head = read_head(start, path)
    shown: dict[str, str] = {}
    if head.names is not None:
        names = find_columns(head.names, str(path), head.sample, given, ticks)
        shown = {role: "+".join(repr(name) for name in named) for role, named in names.items()}
        # By position: arrow cannot choose between two columns of one name.
        columns = {role: [str(head.names.index(name)) for name in named] for role, named in names.items()}
    else:
        columns = headerless(head, path)
        shown = {role: "column " + "+".join(str(int(at) + 1) for at in named) for role, named in columns.items()}
    found = TextTable(pa.table({}), columns, head.num_above, head.decimal_comma, shown, notes=[*head.notes])
    texts = {name: pa.string() for role in ("time", "symbol") for name in columns.get(role, [])}

    def skip_ragged(row: pa.csv.InvalidRow) -> str:
        reason = f"{row.actual_columns} fields, not {row.expected_columns}: {row.text[:80]!r}"
        found.ragged.append((row.number - 1 - head.num_above, reason))
        return "skip"

    options = (
        # One thread: with more, arrow does not know the row numbers. It refuses a line longer than its block of 1 MiB.
        # utf-8-sig: arrow then checks the whole text, and a bad byte is an error. With utf-8 it becomes a null.
        pa.csv.ReadOptions(
            use_threads=False,
            skip_rows=head.num_above,
            column_names=[*map(str, range(head.num_fields))],
            encoding="utf-8-sig",
        ),
        pa.csv.ParseOptions(delimiter=head.delimiter, invalid_row_handler=skip_ragged),
        pa.csv.ConvertOptions(
            column_types=texts,
            include_columns=list(dict.fromkeys(c for named in columns.values() for c in named)),
            decimal_point="," if head.decimal_comma else ".",
        ),
    )
    with io.BufferedReader(Unpacked(path)) as stream:
        found.table = pa.csv.read_csv(stream, *options)
    _without_footer(found, path)
    return found


def _without_footer(found: TextTable, path: Path) -> None:
    """Leave out lines below the table: a total, the vendor's name, or rows without any value."""
    total = found.table.num_rows + len(found.ragged)
    footer: list[str] = []
    while found.ragged and found.ragged[-1][0] == total - 1 - len(footer):
        text = found.ragged[-1][1].split(": ", 1)[1].lstrip("'\"")
        if text[:1].isdigit():  # a row that was cut off
            break
        footer.append(found.ragged.pop()[1].split(": ", 1)[1])
    if footer:
        found.notes.append(f"{path}: left out {len(footer)} lines below the table, such as {footer[-1]}")
    tail = found.table.slice(max(0, found.table.num_rows - 8))
    used = [name for role in ("time", *PRICES) for name in found.columns[role]]
    blank = [all(tail[name][k].as_py() in (None, "") for name in used) for k in range(tail.num_rows)]
    num_blank = next((k for k, is_blank in enumerate(reversed(blank)) if not is_blank), len(blank))
    if num_blank and num_blank < found.table.num_rows:
        found.table = found.table.slice(0, found.table.num_rows - num_blank)
