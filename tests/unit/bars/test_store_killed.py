"""A bar store that is replaced by a process that is killed: the old bars or the new ones are there, never none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import dying_command
import pytest
from small_bars import month

from moola_mlflow.bars import store as store_module
from moola_mlflow.bars.ingest import ingest_bars
from moola_mlflow.bars.reader import read_bars
from moola_mlflow.core import BarsConfig


def ingest(source: Path, out: Path) -> None:
    ingest_bars(BarsConfig(path=str(source), instrument="all"), out, 1)


def killed(source: Path, out: Path, number: int) -> int:
    """Build a store in a process that dies before a change of the disk; return its exit code."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    dying_command.die_before(number)
    ingest(source, out)
    os._exit(0)


@pytest.mark.parametrize("exists", [True, False], ids=["replaced", "new"])
def test_a_kill_before_any_change_of_the_disk_leaves_the_old_store_or_the_new(
    tmp_path: Path, exists: bool, figure: Callable[[str], None]
) -> None:
    hashes = {}
    for name, day in (("old", "2024-01-02"), ("new", "2024-02-05")):
        month("ES", 1, day).to_parquet(tmp_path / f"{name}.parquet")
        ingest(tmp_path / f"{name}.parquet", tmp_path / name / "bars.moolabars")
        hashes[name] = read_bars(BarsConfig(path=str(tmp_path / name / "bars.moolabars")), 1).sha256
    number, left = 0, set()
    while True:
        out = tmp_path / f"{number:03d}" / "bars.moolabars"
        if exists:
            shutil.copytree(tmp_path / "old", out.parent)
        code = killed(tmp_path / "new.parquet", out, number)
        found = store_module.is_store(out)
        assert found or not exists, number
        if found:
            left.add(read_bars(BarsConfig(path=str(out)), 1).sha256)
        ingest(tmp_path / "new.parquet", out)  # the next start
        assert read_bars(BarsConfig(path=str(out)), 1).sha256 == hashes["new"]
        assert [path.name for path in out.parent.iterdir()] == ["bars.moolabars"], number  # no dead temporaries
        assert len(list(out.iterdir())) == 3, number
        if code == 0:
            break
        assert code == dying_command.DEAD
        number += 1
    figure(f"killed before each of {number} changes of the disk")
    assert number > 8
    assert left == set(hashes.values()) if exists else {hashes["new"]}
