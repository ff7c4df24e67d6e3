"""How many bars a second `data` reads, checks and writes from parquet: to parquet, and to a bar store.

    python -m benchmarks.speed.ingest [--bars 2000000] [--rounds 5] [--smoke] [--out benchmarks/results/ingest.json]

Wall and CPU seconds of the work itself, after imports: reading and checking, choosing, hashing, writing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.synthetic_months import machine, write_months
from moola_mlflow.bars.ingest import ingest_bars
from moola_mlflow.bars.reader import read_bars, write_parquet
from moola_mlflow.bars.sample import generate_bars
from moola_mlflow.core import BarsConfig

RESULTS = Path(__file__).resolve().parents[1] / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bars", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="small and once")
    parser.add_argument("--out", type=Path, default=RESULTS / "ingest.json")
    arguments = parser.parse_args()
    num_bars, rounds = (60_000, 1) if arguments.smoke else (arguments.bars, arguments.rounds)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        generate_bars(num_bars, 1).to_parquet(here / "one.parquet")
        num_in_folder = write_months(here / "months", num_bars, 8)
        one = BarsConfig(path=str(here / "one.parquet"), instrument="front")
        months = BarsConfig(path=str(here / "months"), instrument="all")
        ways: dict[str, tuple[int, Callable[[], object]]] = {
            "one file, read and checked": (num_bars, lambda: read_bars(one)),
            "one file to parquet": (num_bars, lambda: write_parquet(read_bars(one), here / "out.parquet", "front")),
            "folder of 8 instruments, read and checked": (num_in_folder, lambda: read_bars(months)),
            "folder of 8 instruments to a store": (num_in_folder, lambda: ingest_bars(months, here / "out.moolabars")),
        }
        for name, (num, work) in ways.items():
            wall, cpu = [], []
            for _ in range(rounds):
                started = time.perf_counter(), time.process_time()
                work()
                wall.append(num / (time.perf_counter() - started[0]))
                cpu.append(num / (time.process_time() - started[1]))
            rows.append({"way": name, "bars": num, "bars_per_second": wall, "bars_per_cpu_second": cpu})
    print("| way | million bars a second, median (min to max) | a CPU-second |\n|---|---|---|")
    for row in rows:
        w, c = row["bars_per_second"], row["bars_per_cpu_second"]
        print(
            f"| {row['way']} | {statistics.median(w) / 1e6:.2f} ({min(w) / 1e6:.2f} to {max(w) / 1e6:.2f}) | "
            f"{statistics.median(c) / 1e6:.2f} |"
        )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"machine": machine(), "rounds": rounds, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
