"""Commit and changes are those of the checkout that the package is part of."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from moola_mlflow.core.checkout import git_commit, git_diff


def git(folder: Path, *words: str) -> str:
    name = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    done = subprocess.run(["git", "-C", str(folder), *name, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package in a checkout."""
    package = tmp_path / "project" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("one = 1\n")
    git(package.parent, "init", "-q")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-q", "-m", "first")
    return package


def test_commit_and_changes_are_those_of_the_packages_checkout_in_any_folder(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    head = git(package, "rev-parse", "HEAD")
    assert (git_commit(package), git_diff(package)) == (head, "")
    (package / "__init__.py").write_text("one = 2\n")
    assert git_commit(package) == head
    assert "+one = 2" in git_diff(package)


def test_a_package_in_a_part_of_a_larger_checkout_shows_that_part_alone(tmp_path: Path, package: Path) -> None:
    other = package.parent / "part" / "other"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("a = 1\n")
    git(package, "add", str(other))
    git(package, "commit", "-q", "-m", "second")
    (other / "__init__.py").write_text("a = 2\n")
    (package / "__init__.py").write_text("one = 3\n")
    assert git_commit(other) == git(package, "rev-parse", "HEAD")
    assert "+a = 2" in git_diff(other)
    assert "one = 3" not in git_diff(other)


def test_a_package_installed_inside_another_projects_checkout_is_no_part_of_it(package: Path) -> None:
    installed = package.parent / ".venv" / "site-packages" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("one = 1\n")
    assert (git_commit(installed), git_diff(installed)) == ("", "")
