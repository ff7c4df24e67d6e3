"""Find the layout of a text file from its first lines: separator, lines above the rows, names of the columns."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from moola_mlflow.bars.column_names import ALIASES, DATE_ONLY, PRICES, TIME_ONLY, Roles, cleaned
from moola_mlflow.core import UserError

HEAD_BYTES = 65_536
NUMBER = re.compile(r"\s*[+-]?[\d.,]+([eE][+-]?\d+)?\s*")
WITH_COMMA = re.compile(r"\s*[+-]?\d+,\d+\s*")
WITH_POINT = re.compile(r"\s*[+-]?\d+\.\d+\s*")
# Three digits after a comma or a point may also be thousands.
SURE_COMMA = re.compile(r"\s*[+-]?\d+,(\d{1,2}|\d{4,})\s*")
SURE_POINT = re.compile(r"\s*[+-]?\d+\.(\d{1,2}|\d{4,})\s*")
SEPARATOR = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
MOST_ABOVE = 40
LOOKED_AT = 20
EMPTY = "(empty)"


@dataclass(frozen=True)
class TextHead:
    """How a text file is laid out. ``names`` is None if it has no header.

    ``num_above`` counts the lines above the first row, blank ones too. ``rows`` are the fields of the first rows.
    """

    delimiter: str
    num_above: int
    names: list[str] | None
    rows: list[list[str]]
    decimal_comma: bool
    notes: tuple[str, ...]

    @property
    def num_fields(self) -> int:
        return len(self.names) if self.names is not None else len(self.rows[0])

    def sample(self, name: str) -> list[str]:
        """Return the first cells of a column."""
        at = (self.names or []).index(name)
        return [row[at] for row in self.rows if len(row) > at]


def read_head(head: bytes, path: Path) -> TextHead:
    """Return the layout of a text file from its first bytes.

    Raises: UserError if there is no row, or if the first line is too long.
    """
    newline = b"\n" if b"\n" in head or b"\r" not in head else b"\r"
    lines = [line.decode("utf-8-sig").strip("\r\n") for line in _whole_lines(head, newline, path)]
    blank = next((k for k, line in enumerate(lines) if line), len(lines))
    at, delimiter = blank, None
    if at < len(lines) and (found := SEPARATOR.fullmatch(lines[at])):
        at, delimiter = at + 1, found[1]
    header = _find_header(lines, at, delimiter)
    begins = at if header is None else header
    above = [line for line in lines[blank:begins] if line and not SEPARATOR.fullmatch(line)]
    notes = [f"{path}: skipped {len(above)} lines above the table, such as {above[0][:80]!r}"] if above else []
    line = lines[begins] if begins < len(lines) else ""
    delimiter = delimiter or _delimiter(line)
    fields = _fields(line.lstrip("#"), delimiter)
    if _is_row(fields):
        rows = _rows(lines[begins:], delimiter)
        return TextHead(delimiter, begins, None, rows, _decimal_comma(rows, delimiter, path), tuple(notes))
    below = begins + 1
    while below < len(lines) and _continues(fields, row := _fields(lines[below], delimiter)):
        if row[0].strip().lower() == "ticker" and len({t for t in row[1:] if t.strip()}) > 1:
            raise UserError(
                f"{path}: holds several tickers side by side ({lines[below][:80]!r}); write one file for each"
            )
        fields = [row[0], *fields[1:]]
        below += 1
    if below > begins + 1:
        notes.append(f"{path}: the header has {below - begins} rows; its first column is {fields[0]!r}")
    if len(head) < HEAD_BYTES and not any(line.strip() for line in lines[below:]):
        raise UserError(f"{path}: holds no rows below the header {line[:200]!r}")
    rows = _rows(lines[below:], delimiter)
    names = _matched([name.strip() if name.isspace() else name for name in fields], rows)
    return TextHead(delimiter, below, names, rows, _decimal_comma(rows, delimiter, path), tuple(notes))


def headerless(head: TextHead, path: Path) -> Roles:
    """Return the columns by position of a file without a header: time (or date and time), four prices, volume."""
    fields = head.rows[0]
    two = len(fields) > 5 and DATE_ONLY.fullmatch(fields[0].strip()) and TIME_ONLY.fullmatch(fields[1].strip())
    order = ["time", *(["time"] if two else []), *PRICES, "volume"]
    if len(fields) < order.index("volume"):
        raise UserError(
            f"{path}: {len(fields)} columns without a header; give time (or date and time), open, high, low, "
            "close and perhaps volume, in this order, or a header line that names the columns"
        )
    columns: Roles = {}
    for position, role in enumerate(order[: len(fields)]):
        columns.setdefault(role, []).append(str(position))
    return columns


def _whole_lines(head: bytes, newline: bytes, path: Path) -> list[bytes]:
    lines = head.split(newline)
    if len(head) == HEAD_BYTES:
        blank = next((k for k, line in enumerate(lines) if line.strip(b"\r\n")), 0)
        if blank == len(lines) - 1:
            raise UserError(f"{path}: the first line is longer than {HEAD_BYTES:,} bytes; write one bar a line")
        lines.pop()
    return lines[: MOST_ABOVE + LOOKED_AT]


def _delimiter(line: str) -> str:
    commas = line.count(",")
    for other in "\t;|":
        if line.count(other) >= 4 and (line.count(other) >= commas or other == ";"):
            return other
    return max(",;\t|", key=line.count)


def _fields(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter), [])


def _rows(lines: list[str], delimiter: str) -> list[list[str]]:
    rows = [_fields(line, delimiter) for line in lines if line.strip()]
    return rows[:LOOKED_AT] or [[]]


def _is_row(fields: list[str]) -> bool:
    return sum(NUMBER.fullmatch(field) is not None for field in fields) >= len(PRICES)


def _is_header(fields: list[str]) -> bool:
    names = {cleaned(field) for field in fields}
    return sum(any(alias in names for alias in ALIASES[role]) for role in PRICES) >= 3


def _find_header(lines: list[str], at: int, delimiter: str | None) -> int | None:
    """Return the line that names the columns, or the first row if the lines above it are no header."""
    split = [_fields(line.lstrip("#"), delimiter or _delimiter(line)) for line in lines[at : at + MOST_ABOVE]]
    for k, fields in enumerate(split):
        if _is_header(fields):
            return at + k
        if _is_row(fields) and len(fields) > len(PRICES):
            break
    first = next((k for k, fields in enumerate(split) if _is_row(fields) and len(fields) > len(PRICES)), None)
    if first is None or first == 0:
        return None
    above = split[first - 1]
    # A header with unknown names has as many fields as the rows.
    return at + first - 1 if abs(len(above) - len(split[first])) <= 1 else at + first


def _continues(fields: list[str], row: list[str]) -> bool:
    """Return whether a line still belongs to the header: yfinance writes tickers and the index name below it."""
    if not row or len(row) != len(fields):
        return False
    first = cleaned(row[0])
    return first == "ticker" or (first in ("date", "datetime", "time", "timestamp") and not "".join(row[1:]).strip())


def _matched(names: list[str], rows: list[list[str]]) -> list[str]:
    """Return the names for all fields of the rows: a separator may end each row, or a row's name may begin it."""
    sizes = {len(row) for row in rows[: max(1, len(rows) - 1)]}
    if sizes == {len(names) + 1}:
        ends = all(not row[-1].strip() for row in rows if len(row) > len(names))
        return [*names, EMPTY] if ends else ["", *names]
    if sizes == {len(names) - 1} and not names[-1].strip():
        return names[:-1]
    return names


def _decimal_comma(rows: list[list[str]], delimiter: str, path: Path) -> bool:
    """Return whether numbers have a decimal comma. Raises: UserError if 1,234 and 1.234 are both possible."""
    cells = [cell for row in rows for cell in row]
    if delimiter == "," or any(map(SURE_POINT.fullmatch, cells)):
        return False
    if any(map(SURE_COMMA.fullmatch, cells)):
        return True
    comma, point = (next(filter(form.fullmatch, cells), None) for form in (WITH_COMMA, WITH_POINT))
    if comma and point:
        raise UserError(
            f"{path}: {comma!r} and {point!r} do not show the decimal sign; write numbers with a decimal point"
        )
    return comma is not None and delimiter == ";"
