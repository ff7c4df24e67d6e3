"""Disks that are full soon, or that cannot be written: file systems of their own, mounted for a test."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[Path]:
    """Mount a file system of so many KiB at a folder; leave the test out where that is not allowed."""
    if not shutil.which("mount"):
        pytest.skip("no disk of its own for this test: there is no `mount` here")
    folder.mkdir(parents=True, exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "moola-test", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no disk of its own for this test: only root, where the container lets it: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def make_read_only(disk: Path) -> None:
    """Let nobody write to a mounted disk: file modes do not keep root from writing."""
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
