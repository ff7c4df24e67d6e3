"""Retired words stay retired: plain English in the documents and in the package."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from paths import ROOT

RETIRED = {
    "baseline": r"rulers?",
    "fine-tuning result": r"verdicts?",
    "heartbeat": r"signs of life",
    "launcher status": r"last ?words?",
    "stale": r"abandoned",
    "feature statistics": r"survey(s|ed)?",
    "data-parallel engine, or parts of a batch": r"shard(ing|ed)",
    "the reader, or you": r"whoever",
    "two sentences": r"of which",
    "the command gets": r"(is|are) told that",
    "if there is none": r"where there (is|are) (none|no)",
    "is next to, or is compared with": r"(stands?|stood|standing) beside",
    "consists of": r"(is|are) put together",
}
"""What to say, and the pattern of what not to say: whole words, in upper or lower case."""
FIXED = re.compile(r"`[^`\n]*`")
"""What the search skips: names in code, as the public interface fixes some (`moola.stage`, `moola.shards`)."""
MODULES = {
    *("rulers", "verdict", "findings", "signs", "lastword", "abandoned", "survey", "stages", "machine", "entries"),
    *("sharding", "path"),
}
PARAMETERS = {"told", "heard", "slope"}
"""Retired names of modules and of parameters, which are words like others in a text."""

PAGES = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted(path for path in (ROOT / ".github").rglob("*") if path.is_file()),
]
PACKAGE = sorted((ROOT / "moola_mlflow").rglob("*.py"))


def found(text: str) -> list[str]:
    """Return each retired word with its line, and what to say instead."""
    out = []
    for number, line in enumerate(text.splitlines(), start=1):
        plain = FIXED.sub(" ", line)
        for say, pattern in RETIRED.items():
            out += [f"{number}: {hit[0]} (say: {say})" for hit in re.finditer(rf"\b(?:{pattern})\b", plain, re.I)]
    return out


@pytest.mark.parametrize("path", [*PAGES, *PACKAGE], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_uses_no_retired_word(path: Path) -> None:
    assert found(path.read_text(encoding="utf-8")) == []


def test_a_retired_word_is_found_and_a_fixed_name_is_not() -> None:
    assert found("The best Ruler wins.") == ["1: Ruler (say: baseline)"]
    assert found("two runs\nof which one was abandoned") == [
        "2: abandoned (say: stale)",
        "2: of which (say: two sentences)",
    ]
    assert found("`sharding` is a name in code; shards of a batch and rulership are not retired") == []


def test_no_module_and_no_parameter_has_a_retired_name() -> None:
    assert [str(path.relative_to(ROOT)) for path in PACKAGE if path.stem in MODULES] == []
    nodes = [(path, node) for path in PACKAGE for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    taken = [(path, node) for path, node in nodes if isinstance(node, ast.arg) and node.arg in PARAMETERS]
    assert [f"{path.relative_to(ROOT)}:{node.lineno}: {node.arg}" for path, node in taken] == []
