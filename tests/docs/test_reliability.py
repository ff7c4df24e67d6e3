"""The table of faults names tests that exist, and enough of them."""

from __future__ import annotations

import re

import pytest
from paths import ROOT

PAGE = ROOT / "docs" / "reference" / "reliability.md"
NAMED = re.findall(r"\| (test_\w+\.py)::(test_\w+) \|$", PAGE.read_text(), re.MULTILINE)


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_a_fault_of_the_table_has_its_test(file: str, test: str) -> None:
    found = [path for path in (ROOT / "tests").rglob(file) if f"def {test}(" in path.read_text()]
    assert len(found) == 1


def test_every_row_names_a_test() -> None:
    rows = [
        line
        for line in PAGE.read_text().splitlines()
        if line.startswith("| ") and not line.startswith(("| **", "| fault", "|---"))
    ]
    assert len(rows) == len(NAMED) == len(set(NAMED))
    assert len(rows) >= 60
