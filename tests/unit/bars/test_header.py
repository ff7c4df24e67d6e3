"""The layout of a text file is found from its first lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from moola_mlflow.bars.header import TextHead, read_head
from moola_mlflow.core import UserError

ROWS = "2021-03-16 15:00,50.25,51,49,50,7\n2021-03-16 15:01,50,51,49,50,7\n"
HEADER = "time,open,high,low,close,volume\n"


def head(text: str) -> TextHead:
    return read_head(text.encode(), Path("a.csv"))


@pytest.mark.parametrize(
    ("text", "above", "names"),
    [
        (HEADER + ROWS, 1, "time open high low close volume"),
        ("\n\n" + HEADER + ROWS, 3, "time open high low close volume"),
        ("# a\n# b\n" + HEADER + ROWS, 3, "time open high low close volume"),
        ("#" + HEADER + ROWS, 1, "time open high low close volume"),
        ("a, b, c, d, e, f\n" + HEADER + ROWS, 2, "time open high low close volume"),
        ("when,a,b,c,d,e\n" + ROWS, 1, "when a b c d e"),
        ("title\nwhen,a,b,c,d,e\n" + ROWS, 2, "when a b c d e"),
        (HEADER + ROWS.replace("\n", ",\n"), 1, "time open high low close volume (empty)"),
        ("open,high,low,close,volume\n" + ROWS, 1, " open high low close volume"),
    ],
)
def test_the_header_is_found(text: str, above: int, names: str) -> None:
    found = head(text)
    assert (found.num_above, " ".join(found.names or [])) == (above, names)


@pytest.mark.parametrize(("text", "above"), [(ROWS, 0), ("title\n" + ROWS, 1), ("sep=,\n" + ROWS, 1)])
def test_rows_without_a_header_are_rows(text: str, above: int) -> None:
    found = head(text)
    assert (found.num_above, found.names, found.num_fields) == (above, None, 6)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_separator_is_found(delimiter: str) -> None:
    assert head((HEADER + ROWS).replace(",", delimiter)).delimiter == delimiter


@pytest.mark.parametrize(
    ("row", "comma"),
    [("x;50,25;51,5;49;50", True), ("x;50.25;51.5;49;50", False), ("x;50,125;51,000;49;50", True),
     ("x;50.25;51.5;49;1,200", False)],
)  # fmt: skip
def test_decimal_commas_are_told_from_thousands(row: str, comma: bool) -> None:
    assert head(f"time;open;high;low;close\n{row}\n").decimal_comma is comma


def test_signs_that_may_mean_both_are_refused() -> None:
    with pytest.raises(UserError, match="do not show the decimal sign"):
        head("time;open;high;low;close\nx;50,125;51.125;49;50\n")
