"""Files that a crash leaves whole, and the ends of long ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from moola_mlflow.core import disk


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("step", ["write", "replace"])
def test_a_crash_at_any_step_leaves_the_old_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool, step: str
) -> None:
    path = tmp_path / "a.txt"
    disk.write_whole(path, "old", durable)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if step == "replace":
            patched.setattr(os, "replace", die)
        else:
            patched.setattr("builtins.open", die)
        with pytest.raises(KeyboardInterrupt):
            disk.write_whole(path, "new", durable)
    assert path.read_text() == "old"
    disk.write_whole(path, "new", durable)
    assert path.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_of_a_long_file_the_end_is_read_and_a_short_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("ä" + "x" * disk.TAIL_BYTES + "end")
    assert disk.read_tail(path).endswith("xend")
    assert len(disk.read_tail(path)) == disk.TAIL_BYTES
    path.write_text("short")
    assert disk.read_tail(path) == "short"
