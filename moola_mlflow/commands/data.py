"""data: read, check and canonicalise bars, and write them as one parquet file."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from moola_mlflow import stages, tracking
from moola_mlflow.bars import Bars, write_parquet
from moola_mlflow.config import Config
from moola_mlflow.errors import UserError
from moola_mlflow.signals import Interrupts
from moola_mlflow.tracking import Run
from moola_mlflow.windows import segments, utc


def run(config: Config, preset: str, interrupts: Interrupts, out: str = "out/bars.parquet", head: str = "") -> None:
    """Read bars in any accepted form and write the canonical parquet, the first ``head`` bars alone where given."""
    name = tracking.run_name("data", Path(config.bars.path).stem, config.bars.sample_seed)
    with Run("data", name, config.tracking.experiment) as active:
        active.config(config)
        active.params({"out": out, "head": head or "all"})
        path, num_bars = _target(out), _count(head) if head else None
        bars = stages.load_bars(active, config, "data")
        if any(Path(file.path).resolve() == path.resolve() for file in bars.files):
            raise UserError(f"out='{out}' is the input itself; give another name, nothing was overwritten")
        bars = bars.head(num_bars) if num_bars else bars
        _write(bars, path, config.bars.instrument or ("front" if config.bars.path == "sample" else None))
        runs = segments(bars, config.bars.max_gap_minutes)
        counts = {"bars/bars": len(bars), "bars/segments": len(runs), "bars/instruments": len(bars.symbols)}
        active.metrics({**counts, "bars/longest_segment": int((runs[:, 1] - runs[:, 0]).max())})
        active.tags({"moola.data_sha256": bars.sha256})
        active.artifact(path)
        span = f"{utc(int(bars.time_ns.min()))} to {utc(int(bars.time_ns.max()))}"
        summary = f"{len(bars):,} bars, instruments: {len(bars.symbols)}, segments: {len(runs):,}, {span}"
        command = f"moola pretrain --bars {shlex.quote(str(path))}"
        active.note(f"**{summary}.**\n\nContent SHA-256 `{bars.sha256}`.\n\nNext: `{command}`")
        print(f"{summary} -> {path}\nsha256 {bars.sha256}\nNext: {command}", flush=True)


def _target(out: str) -> Path:
    """Return where to write. Raises: UserError where that cannot be a parquet file."""
    path = Path(out).expanduser()
    if path.suffix not in (".parquet", ".pq") or path.is_dir():
        raise UserError(f"out='{out}'; allowed: a file that ends in .parquet or .pq, for example out/bars.parquet")
    return path


def _write(bars: Bars, path: Path, choice: str | None) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        write_parquet(bars, temporary, choice)
        os.replace(temporary, path)
    except OSError as e:
        raise UserError(f"out='{path}' cannot be written: {e}; give a folder you may write to") from e


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) == 0:
        raise UserError(f"head='{text}'; allowed: a whole number of bars above 0, for example head=10000")
    return int(text)
