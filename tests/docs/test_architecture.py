"""ARCHITECTURE.md leads to the right file: its names are where it says, and its rooms are those of the package."""

from __future__ import annotations

import re
import tomllib

import pytest
from paths import ROOT

TEXT = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


def table(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its head."""
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def linked(cell: str) -> str:
    """The text of every file that a cell links to, and of every module in a linked folder."""
    paths = [ROOT / target for target in re.findall(r"\]\(([^)#\s]+)\)", cell)]
    files = [file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path])]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


@pytest.mark.parametrize("row", table("Which file do I change?"), ids=lambda row: row[0][:40])
def test_the_names_to_look_for_are_in_the_file_of_their_row(row: list[str]) -> None:
    _, file, names, *_ = row
    text = linked(file)
    wanted = [name for name in re.findall(r"`([^`]+)`", names) if not name.endswith(".py")]
    assert wanted or names.endswith(("class", "py`"))
    assert [name for name in wanted if not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)] == []


def test_the_rooms_are_those_of_the_package_lowest_first() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(one["layers"] for one in contracts if one["type"] == "layers" and "__main__" in one["layers"])
    rooms = [row[0].strip("`") for row in table("The rooms")]
    assert [*reversed(rooms)] == layers[1:]
    assert {face.parent.name for face in (ROOT / "moola_mlflow").glob("*/__init__.py")} == set(rooms)
