"""Which files a path, a folder or a glob names."""

from __future__ import annotations

from pathlib import Path

import pytest

from moola_mlflow.bars.paths import find_files, is_any
from moola_mlflow.core import UserError


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(path: Path | str, folder: Path) -> list[str]:
    return [str(one.relative_to(folder)) for one in find_files(str(path))]


def test_a_file_is_itself_whatever_its_name(tmp_path: Path) -> None:
    make(tmp_path, "bars.xyz")
    assert found(tmp_path / "bars.xyz", tmp_path) == ["bars.xyz"]


def test_a_folder_gives_its_bars_files_sorted_without_text_hidden_and_other_files(tmp_path: Path) -> None:
    make(tmp_path, "b.csv", "a.PARQUET", "c.dbn.zst", "README.txt", ".hidden.csv", "notes.md", "deep/d.csv")
    assert found(tmp_path, tmp_path) == ["a.PARQUET", "b.csv", "c.dbn.zst"]


def test_a_folder_of_folders_is_searched_to_the_bottom(tmp_path: Path) -> None:
    make(tmp_path, "2024/01/b.csv", "2023/a.csv", "README.txt")
    assert found(tmp_path, tmp_path) == ["2023/a.csv", "2024/01/b.csv"]


def test_a_glob_takes_what_it_matches_text_too_but_no_folder(tmp_path: Path) -> None:
    make(tmp_path, "b.txt", "a.txt", "c.csv", "d.txt/inside.csv")
    assert found(f"{tmp_path}/*.txt", tmp_path) == ["a.txt", "b.txt"]
    assert found(f"{tmp_path}/**/*.csv", tmp_path) == ["c.csv", "d.txt/inside.csv"]


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    make(tmp_path, "es.csv")
    assert find_files("~/es.csv") == [tmp_path / "es.csv"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("es_fornt.csv", "did you mean 'es_front.csv'"),
        ("no/where.csv", "there is no folder '.*no' either"),
        ("*.parquet", "no file matches"),
        ("empty", r"holds no bars file \(known: \.parquet"),
        ("x" * 5000, "cannot be looked at"),
    ],
)
def test_what_names_no_file_is_refused_with_what_to_do(tmp_path: Path, path: str, words: str) -> None:
    make(tmp_path, "es_front.csv", "empty/README.txt")
    with pytest.raises(UserError, match=words):
        find_files(str(tmp_path / path))


def test_a_suffix_counts_in_any_case_and_only_at_the_end() -> None:
    assert is_any(Path("A.CSV.GZ"), (".csv.gz",))
    assert not is_any(Path("a.csv.bak"), (".csv",))
