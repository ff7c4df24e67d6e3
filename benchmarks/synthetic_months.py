"""Many instruments' months as parquet files, for the benchmarks of size: one simulated month, shifted for each file."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from moola_mlflow.bars.sample import generate_bars
from moola_mlflow.core.runtime import allowed_cores

ROOT = Path(__file__).resolve().parent.parent
MONTH_BARS = 30_000
MINUTE_NS = 60_000_000_000
PACKAGES = ("numpy", "pyarrow", "torch", "mlflow", "optuna")


def write_months(folder: Path, num_bars: int, num_instruments: int) -> int:
    """Write ``instrument/month.parquet`` files of about 30,000 bars each; return how many bars there are."""
    base = generate_bars(MONTH_BARS, 1)
    time_ns = base.index.as_unit("ns").asi8
    prices = base[["open", "high", "low", "close"]].to_numpy()
    volume = base["volume"].to_numpy()
    span = int(time_ns[-1] - time_ns[0]) // (1440 * MINUTE_NS) * 1440 * MINUTE_NS + 3 * 1440 * MINUTE_NS
    written, month = 0, 0
    while written < num_bars:
        for key in range(1, num_instruments + 1):
            size = min(MONTH_BARS, num_bars - written)
            if size <= 0:
                break
            shift = 0.25 * ((key * 37 + month * 11) % 400)  # each file has prices of its own
            path = folder / f"SYM{key:04}" / f"{month:04}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            columns: dict[str, Any] = {
                "ts_event": pa.array(time_ns[:size] + month * span, pa.timestamp("ns", "UTC")),
                "instrument_id": np.full(size, key, np.uint32),
                **{name: prices[:size, k] + shift for k, name in enumerate(("open", "high", "low", "close"))},
                "volume": volume[:size],
                "symbol": pa.array([f"SYM{key:04}"] * size).dictionary_encode(),
            }
            pq.write_table(pa.table(columns), path)
            written += size
        month += 1
    return written


def machine() -> dict[str, Any]:
    """Return what the figures were measured on and of; ``threads`` are those that a training takes by itself here."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    about = {"cpu": processor(), "cores": os.cpu_count(), "threads": allowed_cores(), "machine": platform.machine()}
    return {"commit": commit(), **about, "load_at_end": load, "python": platform.python_version(), **versions}


def commit(root: Path = ROOT) -> str | None:
    """Return the commit of a checkout, with a ``+`` where files differ from it; None where there is no checkout.

    Results do not count as a difference: each benchmark of a row would mark all after it.
    """
    git = ["git", "--no-optional-locks", "-C", str(root)]
    asked = (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--", ".", ":(exclude)benchmarks/results"])
    try:
        head, changed = (subprocess.run([*git, *words], capture_output=True, text=True, timeout=60) for words in asked)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if head.returncode else head.stdout.strip() + "+" * bool(changed.stdout)


def processor() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def peak_mib() -> int:
    """Return the peak of this process's resident memory. (getrusage would count the parent's before exec.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))
