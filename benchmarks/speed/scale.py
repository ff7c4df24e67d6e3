"""What size costs: a folder of many instruments into a store, from there to windows, at 1, 10 and 100 million bars.

    python -m benchmarks.speed.scale [--bars 1000000 10000000 100000000] [--instruments 50] [--smoke]

Each step is a process of its own, and so is its peak memory. Slopes are of log time and log memory over log bars, of
each step and of the time of both together. The training is of a small network, to see that its speed does not depend on
how many bars there are: it is no figure of the default network's.
The result has CPU-seconds and the load beside each time, for a machine with other work.
100 million bars take 13 GB in the temporary folder while they are measured; a size without room is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.synthetic_months import machine, peak_mib, write_months

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
TRAINED_WINDOWS, HIDDEN = 2048, 32
HEAD = f"""\
| bars | ingest, bars/s | its peak MiB | open to features, bars/s | its peak MiB \
| training a small network (hidden {HIDDEN}, one thread), windows/s |
|---|---|---|---|---|---|"""
BYTES_A_BAR = 135
"""Of parquet and store together, measured, and something to spare."""


def step(name: str, *arguments: str) -> dict[str, float]:
    """Run one step in a process of its own; return its figures."""
    command = [sys.executable, "-m", "benchmarks.speed.scale", "--step", name, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def do_ingest(source: str, store: str) -> dict[str, float]:
    from moola_mlflow.bars.ingest import ingest_bars
    from moola_mlflow.core import BarsConfig

    started = time.perf_counter(), time.process_time()
    ingest_bars(BarsConfig(path=source, instrument="all"), store)
    return {"seconds": time.perf_counter() - started[0], "cpu_seconds": time.process_time() - started[1]}


def do_read(store: str) -> dict[str, float]:
    """Open, cut, split, look at every window's features and train a small network on some, as `pretrain` does."""
    import torch

    from moola_mlflow.bars.reader import read_bars
    from moola_mlflow.core import PretrainKeys, make_config, runtime
    from moola_mlflow.training import setup
    from moola_mlflow.training.setup import build_model
    from moola_mlflow.windows.feature_stats import feature_statistics
    from moola_mlflow.windows.splits import split_by_time

    runtime.tune_allocator()
    torch.set_num_threads(1)
    base = peak_mib()
    config = make_config(PretrainKeys, {}, {"bars.path": store, "encoder.hidden": str(HIDDEN)})
    t0, cpu0 = time.perf_counter(), time.process_time()
    bars = read_bars(config.bars)
    t1 = time.perf_counter()
    windows = setup.cut_windows(bars, config)
    split = split_by_time(windows, config.split)
    t2 = time.perf_counter()
    source = setup.batch_source(windows, config, torch.device("cpu"))
    seen = feature_statistics(source, split.train)
    seen.report(0.1)
    t3, cpu3 = time.perf_counter(), time.process_time()
    model = build_model(config, source, *seen.scaling())
    optimizer, draws = torch.optim.AdamW(model.parameters()), torch.Generator().manual_seed(0)
    order = windows.shuffled(split.train, np.random.default_rng(0))[:TRAINED_WINDOWS]
    for batch in source.batches(order, 64):
        loss = model.objective.loss(model.objective(model.encoder, batch, draws))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    t4, cpu4 = time.perf_counter(), time.process_time()
    return {
        "open_seconds": t1 - t0, "cut_seconds": t2 - t1, "statistics_seconds": t3 - t2, "windows": len(windows),
        "train_windows_per_second": len(order) / (t4 - t3), "train_windows_per_cpu_second": len(order) / (cpu4 - cpu3),
        "imports_mib": base, "seconds": t3 - t0, "cpu_seconds": cpu3 - cpu0,
    }  # fmt: skip


def slope(sizes: list[int], values: list[float]) -> float:
    """Return the slope of log values over log sizes."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0]) if len(sizes) > 1 else float("nan")


def slopes_of(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the slopes of time and memory of each step, and of the time of both together."""
    bars = [row["bars"] for row in rows]
    slopes = {
        f"{name}_{what}": slope(bars, [row[name][key] for row in rows])
        for name in ("ingest", "read")
        for what, key in (("time", "seconds"), ("memory", "peak_mib"))
    }
    both = [row["ingest"]["seconds"] + row["read"]["seconds"] for row in rows]
    return {**slopes, "both_time": slope(bars, both)}


def with_room(sizes: list[int], folder: str | None) -> list[int]:
    """Return the sizes that the folder has room for; say which it has not."""
    where = folder or tempfile.gettempdir()
    room = shutil.disk_usage(where).free
    for num_bars in sizes:
        if num_bars * BYTES_A_BAR > room:
            print(
                f"{num_bars:,} bars are left out: they take {num_bars * BYTES_A_BAR / 1e9:.1f} GB, {where} has "
                f"{room / 1e9:.1f}; name another folder with --folder"
            )
    return [num_bars for num_bars in sizes if num_bars * BYTES_A_BAR <= room]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bars", type=int, nargs="+", default=[1_000_000, 10_000_000, 100_000_000])
    parser.add_argument("--instruments", type=int, default=50)
    parser.add_argument(
        "--folder", help="where there is room: 100 million bars take 2 GB of parquet and 11 GB of store"
    )
    parser.add_argument("--smoke", action="store_true", help="60,000 and 240,000 bars")
    parser.add_argument("--out", type=Path, default=RESULTS / "scale.json")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        name, *rest = arguments.step
        figures = {"ingest": do_ingest, "read": do_read}[name](*rest)
        print(json.dumps({**figures, "peak_mib": peak_mib()}))
        return
    sizes = with_room([60_000, 240_000] if arguments.smoke else arguments.bars, arguments.folder)
    rows: list[dict[str, Any]] = []
    for num_bars in sizes:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            source, store = Path(folder) / "months", str(Path(folder) / "bars.moolabars")
            written = write_months(source, num_bars, min(arguments.instruments, max(2, num_bars // 60_000)))
            row: dict[str, Any] = {"bars": written}
            row |= {"ingest": step("ingest", str(source), store), "read": step("read", store)}
            row["load"] = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        rows.append(row)
        print(f"{written:,} bars: {json.dumps(row)}", file=sys.stderr, flush=True)
    if not rows:
        return
    print(HEAD)
    for row in rows:
        taken, read = row["ingest"], row["read"]
        print(
            f"| {row['bars']:,} | {row['bars'] / taken['seconds']:,.0f} | {taken['peak_mib']:,} | "
            f"{row['bars'] / read['seconds']:,.0f} | {read['peak_mib']:,} | {read['train_windows_per_second']:,.0f} |"
        )
    for row in rows:
        rates = [f"{name} {row['bars'] / row[name]['cpu_seconds']:,.0f}" for name in ("ingest", "read")]
        print(f"bars per CPU-second of {row['bars']:,}: {', '.join(rates)}; load {row['load']}")
    slopes = slopes_of(rows)
    print("slopes in log-log: " + ", ".join(f"{name} {value:.2f}" for name, value in slopes.items()))
    if len(rows) > 1:
        grown = [f"{name} {rows[-1][name]['peak_mib'] / rows[-2][name]['peak_mib']:.2f}" for name in ("ingest", "read")]
        print(f"peak memory of the largest over the one before: {', '.join(grown)}")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    result = {"machine": machine(), "smoke": arguments.smoke, "rows": rows, "slopes": slopes}
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
