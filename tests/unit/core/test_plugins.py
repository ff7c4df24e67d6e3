"""A file in a registry's folder is a row of the registry if it has the registry's attribute."""

from __future__ import annotations

from pathlib import Path

import pytest

from moola_mlflow.core.plugins import find_plugins


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of its own for each test: Python keeps what it has imported."""
    made = tmp_path / f"registry_{tmp_path.name}"
    made.mkdir()
    (made / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    return made


def test_rows_are_named_by_their_files_in_alphabetical_order(folder: Path) -> None:
    for name in ("zebra", "apple"):
        (folder / f"{name}.py").write_text(f"ROW = '{name}!'\n")
    assert list(find_plugins(folder.name, [str(folder)], "ROW").items()) == [("apple", "apple!"), ("zebra", "zebra!")]


def test_a_file_without_the_attribute_is_no_row(folder: Path) -> None:
    (folder / "base.py").write_text("OTHER = 1\n")
    (folder / "notes.txt").write_text("ROW = 1\n")
    assert find_plugins(folder.name, [str(folder)], "ROW") == {}


def test_a_file_that_does_not_import_is_not_passed_over(folder: Path) -> None:
    (folder / "broken.py").write_text("import no_such_module_anywhere\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_module_anywhere"):
        find_plugins(folder.name, [str(folder)], "ROW")
