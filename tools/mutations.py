"""Break the program in ten small ways, one after the other, and see that a test notices each.

``python tools/mutations.py`` runs all of them, ``python tools/mutations.py 3 7`` some.

Each mutation is made in a copy of the tree, and the tests named with it run there. A mutation that no test notices
survives, and the exit code is 1. Run it after a change of how files reach the disk.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("moola_mlflow", "tests", "configs", "pyproject.toml", "setup.py", "MLproject", "benchmarks", "tools", "docs")


@dataclass(frozen=True)
class Mutation:
    """One fault: in which file which text becomes which, and the tests that must notice it."""

    what: str
    file: str
    before: str
    after: str
    tests: Sequence[str]


OF_CHECKPOINTS = "tests/unit/models/test_checkpoint.py"
DISK, DURABLE = "moola_mlflow/core/disk.py", "tests/unit/tracking/test_durable_files.py"
CHECKPOINT = "moola_mlflow/models/files/checkpoint.py"
MUTATIONS = (
    Mutation("a checkpoint is not synced before the manifest names it", CHECKPOINT,
             "with replacing(path) as temporary", "with replacing(path, durable=False) as temporary", (DURABLE,)),
    Mutation("the folder of a replaced file is not synced", DISK,
             "    if durable:\n        sync_path(path.parent)\n", "", (DURABLE, "tests/unit/core/test_disk.py")),
    Mutation("the journal is not synced at heartbeats", "moola_mlflow/tracking/delivery/journal.py",
             "            os.fsync(self._file.fileno())\n", "            pass\n", (DURABLE,)),
    Mutation("a replaced file is not synced before it gets its name", DISK,
             "        if durable:\n            sync_path(temporary)\n", "", (DURABLE,)),
    Mutation("on a tie the later epoch is the best", CHECKPOINT,
             "rank = sum(other <= huber for other", "rank = sum(other < huber for other",
             (OF_CHECKPOINTS,)),
    Mutation("the hash of a checkpoint leaves out type and shape", CHECKPOINT,
             '            total.update(f"{part.dtype}{tuple(part.shape)}".encode())\n', "",
             (OF_CHECKPOINTS,)),
    Mutation("times of the journal go back with the clock", "moola_mlflow/tracking/delivery/journal.py",
             "        return max(min(now, latest), self._last_at)\n", "        return min(now, latest)\n",
             ("tests/unit/tracking/test_journal.py",)),
    Mutation("labels are written in place", "moola_mlflow/labels/label_table.py",
             "        with replacing(path) as temporary, pq.ParquetWriter(temporary, table.schema) as writer:\n",
             "        with pq.ParquetWriter(path, table.schema) as writer:\n",
             (DURABLE, "tests/unit/labels/test_label_files.py")),
    Mutation("the old bar store is deleted before the new one is there", "moola_mlflow/bars/store.py",
             "        for name in names:  # the card is the last\n",
             "        shutil.rmtree(self.target)\n        self.target.mkdir()\n        for name in names:\n",
             ("tests/unit/bars/test_store_killed.py", "tests/unit/bars/test_store.py")),
    Mutation("a fresh heartbeat of another machine counts for nothing", "moola_mlflow/tracking/run_folder.py",
             "    return age_s if abs(age_s) < FRESH_S else None\n", "    return None\n",
             ("tests/unit/tracking/test_run_folder.py", "tests/unit/tracking/test_stale_runs.py")),
)  # fmt: skip


def copy_tree(folder: Path) -> None:
    """Copy what the tests need into a folder."""
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, folder / part)


def killer(mutation: Mutation, folder: Path) -> str:
    """Make a mutation in a copy of the tree; return the test that notices it, empty if none does."""
    path = folder / mutation.file
    text = path.read_text(encoding="utf-8")
    if mutation.before not in text:
        raise SystemExit(
            f"{mutation.file} has changed: it lacks {mutation.before.strip()!r}; correct tools/mutations.py"
        )
    path.write_text(text.replace(mutation.before, mutation.after), encoding="utf-8")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", *mutation.tests],
            cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True,
        )  # fmt: skip
    finally:
        path.write_text(text, encoding="utf-8")
    failed = re.findall(r"^FAILED (\S+)", done.stdout, re.MULTILINE)
    if done.returncode not in (0, 1):
        raise SystemExit(f"'{mutation.what}': the tests could not run:\n{done.stdout[-2000:]}{done.stderr[-1000:]}")
    return failed[0] if failed else ""


def main() -> int:
    """Try the mutations with the given numbers, or all; print which test notices each. Return 1 if one survives."""
    survived, chosen = 0, set(map(int, sys.argv[1:])) or set(range(1, len(MUTATIONS) + 1))
    with tempfile.TemporaryDirectory() as scratch:
        copy_tree(Path(scratch))
        for number in sorted(chosen):
            mutation = MUTATIONS[number - 1]
            found = killer(mutation, Path(scratch))
            survived += not found
            print(f"{number:2d} {'killed by ' + found if found else 'SURVIVED'}: {mutation.what}", flush=True)
    return int(survived > 0)


if __name__ == "__main__":
    sys.exit(main())
