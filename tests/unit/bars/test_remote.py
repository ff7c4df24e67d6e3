"""Bars at an address are fetched through fsspec and read as files are."""

from __future__ import annotations

import pytest
from bar_makers import NUM, PLAIN

from moola_mlflow.bars.reader import read_bars
from moola_mlflow.core import BarsConfig, UserError

fsspec = pytest.importorskip("fsspec")


@pytest.mark.parametrize("address", ["memory://months/a.csv", "memory://months/*.csv", "memory://months"])
def test_a_file_a_glob_and_a_folder_of_a_store_are_read(address: str) -> None:
    with fsspec.open("memory://months/a.csv", "w") as f:
        f.write(PLAIN)
    assert len(read_bars(BarsConfig(path=address), 1)) == NUM


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("memory://nowhere/a.csv", "cannot be fetched"),
        ("nosuch://bucket/a.csv", "cannot be fetched|needs a package"),
        ("memory://nowhere/*.csv", "no file matches"),
    ],
)
def test_what_is_not_there_is_refused_in_words(address: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_bars(BarsConfig(path=address), 1)


def test_a_password_in_an_address_is_not_shown() -> None:
    with pytest.raises(UserError) as e:
        read_bars(BarsConfig(path="nosuch://me:secret@host/a.csv"), 1)
    assert "secret" not in str(e.value)
