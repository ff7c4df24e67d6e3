"""The manifest of checkpoints: read as it was written, or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moola_mlflow.models.files.manifest import MANIFEST_FILE, Manifest

WHOLE = Manifest("c.pt", "b.pt", (("b.pt", 0.25), ("a.pt", 0.5)))


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert Manifest.read(tmp_path) is None
    WHOLE.write(tmp_path)
    assert Manifest.read(tmp_path) == WHOLE
    assert WHOLE.names() == {"a.pt", "b.pt", "c.pt"}
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST_FILE]


@pytest.mark.parametrize("place", range(0, 120, 7))
def test_no_flipped_bit_goes_unnoticed(tmp_path: Path, place: int) -> None:
    WHOLE.write(tmp_path)
    content = bytearray((tmp_path / MANIFEST_FILE).read_bytes())
    content[place] ^= 1
    (tmp_path / MANIFEST_FILE).write_bytes(content)
    assert Manifest.read(tmp_path) in (None, WHOLE)


def test_a_state_outside_of_the_folder_is_no_state(tmp_path: Path) -> None:
    Manifest("../../home.pt").write(tmp_path)
    assert Manifest.read(tmp_path) is None
    (tmp_path / MANIFEST_FILE).write_text(json.dumps({"latest": "a.pt"}))
    assert Manifest.read(tmp_path) is None
