"""data: read, check and canonicalise bars, and write them as one parquet file."""

from __future__ import annotations

from pathlib import Path

from moola_mlflow import stages, tracking
from moola_mlflow.bars import write_parquet
from moola_mlflow.config import Config
from moola_mlflow.errors import UserError
from moola_mlflow.signals import Interrupts
from moola_mlflow.tracking import Run
from moola_mlflow.windows import segments, utc


def run(config: Config, preset: str, interrupts: Interrupts, out: str = "out/bars.parquet", head: str = "") -> None:
    """Read bars in any accepted form and write the canonical parquet, the first ``head`` bars alone where given."""
    with Run("data", tracking.run_name("data", Path(config.bars.path).stem, 0), config.tracking.experiment) as active:
        active.config(config)
        active.params({"out": out, "head": head or "all"})
        bars = stages.load_bars(active, config, "data")
        if head:
            bars = bars.head(_count(head))
        runs = segments(bars, config.bars.max_gap_minutes)
        path = Path(out)
        write_parquet(bars, path, config.bars.instrument or ("front" if config.bars.path == "sample" else None))
        span = f"{utc(int(bars.time_ns.min()))} to {utc(int(bars.time_ns.max()))}"
        counts = {"bars/bars": len(bars), "bars/segments": len(runs), "bars/instruments": len(bars.symbols)}
        active.metrics({**counts, "bars/longest_segment": int((runs[:, 1] - runs[:, 0]).max())})
        active.tags({"moola.data_sha256": bars.sha256})
        active.artifact(path)
        summary = f"{len(bars):,} bars of {len(bars.symbols)} instruments in {len(runs):,} segments, {span}"
        active.note(f"**{summary}.**\n\nContent SHA-256 `{bars.sha256}`.\n\nNext: `moola pretrain --bars {path}`")
        print(f"{summary} -> {path}\nsha256 {bars.sha256}\nNext: moola pretrain --bars {path}", flush=True)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise UserError(f"head='{text}'; allowed: a whole number of bars above 0, for example head=10000")
    return int(text)
