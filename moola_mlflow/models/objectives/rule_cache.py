"""Targets of rules on disk, so that a second run on the same bars reads what the first one computed. No pickle.

One safetensors file a data set, named after a hash of windows, rules and the code of rules.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

FOLDER = Path(".moola/cache/rules")
"""Below the working folder, as the folders of runs."""
LEAST = 2**16
"""Rules times windows from which on targets are kept: fewer take less than a second to compute."""
LARGEST = 2**29
"""Bytes of all files together; the ones that were not read for longest go first."""
SUFFIX = ".safetensors"
STALE_S = 3600
"""A temporary file that is older belongs to a process that died."""


@dataclass(frozen=True)
class KeptTargets:
    """Targets of all rules, by the number of the window, as they lie on disk.

    Shapes: marks int16 [M, 3, K], prices float64 [M, 3] (three closes of each window; NaN if it is not known).
    """

    names: tuple[str, ...]
    marks: np.ndarray
    prices: np.ndarray

    def sha256(self) -> str:
        """Return a hash of everything."""
        digest = hashlib.sha256(json.dumps(self.names).encode())
        for array in (self.marks, self.prices):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def path_of(key: str) -> Path:
    """Return the file of a key."""
    return FOLDER / f"{key}{SUFFIX}"


def read_targets(key: str, num_rules: int) -> KeptTargets | None:
    """Return kept targets, or None if the file is absent or damaged: they are then computed again."""
    path = path_of(key)
    try:
        if path.stat().st_size > LARGEST:
            return None
        with safe_open(path, "np") as file:
            about = file.metadata()
            kept = KeptTargets(
                tuple(map(str, json.loads(about["rules"]))), file.get_tensor("marks"), file.get_tensor("prices")
            )
        with suppress(OSError):
            os.utime(path)  # read just now
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        return None
    shapes = (len(kept.marks), 3, num_rules), (len(kept.marks), 3)
    whole = (kept.marks.shape, kept.prices.shape) == shapes and len(kept.names) == num_rules
    whole &= (kept.marks.dtype, kept.prices.dtype) == (np.int16, np.float64)
    return kept if whole and kept.sha256() == about.get("sha256") else None


def write_targets(key: str, kept: KeptTargets) -> None:
    """Keep targets for other runs. A folder that cannot be written to costs the next run some seconds, no more.

    The file appears whole or not at all, also if two processes write it at once.
    """
    if kept.marks.nbytes + kept.prices.nbytes > LARGEST // 2:
        return
    arrays = {"marks": np.ascontiguousarray(kept.marks), "prices": np.ascontiguousarray(kept.prices)}
    about = {"rules": json.dumps(kept.names), "sha256": kept.sha256()}
    with suppress(OSError):
        FOLDER.parents[1].mkdir(mode=0o700, exist_ok=True)
        FOLDER.mkdir(parents=True, exist_ok=True)
        temporary = FOLDER / f".{key}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
        try:
            temporary.write_bytes(save(arrays, about))
            os.replace(temporary, path_of(key))
        finally:
            temporary.unlink(missing_ok=True)
        _clean()


def _clean() -> None:
    """Remove files that were not read for longest until all fit, and what dead processes left."""
    used = {path: path.stat() for path in FOLDER.iterdir()}
    total = 0
    for path, stat in sorted(used.items(), key=lambda item: item[1].st_mtime, reverse=True):
        if path.suffix == SUFFIX:
            total += stat.st_size
        stale = path.suffix == ".tmp" and stat.st_mtime < time.time() - STALE_S
        if stale or (path.suffix == SUFFIX and total > LARGEST):
            path.unlink(missing_ok=True)
