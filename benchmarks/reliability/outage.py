"""What a hung tracking server costs an epoch: epoch times beside a live one and a hung one, in turn, in one training.

    python -m benchmarks.reliability.outage [--blocks 12] [--epochs 6] [--out benchmarks/results/outage.json]

One pretrain command with the network of configs/stones.yaml on a short sample, against an `mlflow server` on this
machine. After every few epochs the server is stopped (SIGSTOP) or let go on (SIGCONT): hung, live, hung, live, ... so
that whatever else the machine does falls on both alike. A block before them warms up and does not count. An epoch's
time goes from one epoch's end to the next one's: training, evaluation, and what tracking does in between. CPU-seconds,
of all threads, are what a busy machine does not disturb.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.servers import start_server
from benchmarks.synthetic_months import machine

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"

CHILD = """
import json, os, signal, sys, time
from moola_mlflow.core import runtime
runtime.prepare_environment()
from moola_mlflow.cli.parser import parse
from moola_mlflow.cli.commands import pretrain
from moola_mlflow.core import Interrupts
from moola_mlflow.training import EpochEnded
from moola_mlflow.training import Trainer

group, blocks, length = map(int, sys.argv[1:4])
emit, rows, state = Trainer._emit, [], {"at": 0.0, "cpu": 0.0, "events": 0.0}

def timed(self, event):
    began = time.perf_counter()
    emit(self, event)
    state["events"] += time.perf_counter() - began
    if isinstance(event, EpochEnded):
        now = time.perf_counter()
        rows.append([now - state["at"], time.process_time() - state["cpu"], state["events"]])
        done = event.epoch + 1
        if done % length == 0:
            os.killpg(group, signal.SIGSTOP if (done // length) % 2 and done // length <= blocks else signal.SIGCONT)
        state.update(at=time.perf_counter(), cpu=time.process_time(), events=0.0)

Trainer._emit = timed
epochs = str((1 + blocks) * length)
words = ["--config", sys.argv[4], "--epochs", epochs, "--trainer.patience", epochs, "--bars.sample_bars", sys.argv[5]]
config, preset, _ = parse("pretrain", [*words, "--register", "none"])
state.update(at=time.perf_counter(), cpu=time.process_time())
pretrain.run(config, preset, Interrupts())
print(json.dumps(rows))
"""


def measure(blocks: int, epochs: int, bars: int) -> list[list[float]]:
    """Return of every epoch of one training its seconds, its CPU-seconds, and its seconds in subscribers."""
    with tempfile.TemporaryDirectory() as folder:
        process, uri = start_server(folder)
        try:
            environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, "PYTHONPATH": str(ROOT)}
            environment.pop("MLFLOW_RUN_ID", None)
            preset = str(ROOT / "configs" / "stones.yaml")
            done = subprocess.run(
                [sys.executable, "-c", CHILD, str(process.pid), str(blocks), str(epochs), preset, str(bars)],
                cwd=folder, env=environment, capture_output=True, text=True,
            )  # fmt: skip
        finally:
            os.killpg(process.pid, signal.SIGCONT)
            process.terminate()
            process.wait()
    if done.returncode:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-3000:])
    rows: list[list[float]] = json.loads(done.stdout.strip().splitlines()[-1])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=12, help="even: half of them hung")
    parser.add_argument("--epochs", type=int, default=6, help="in a block")
    parser.add_argument("--bars", type=int, default=20_000)
    parser.add_argument("--out", type=Path, default=RESULTS / "outage.json")
    arguments = parser.parse_args()
    rows = measure(arguments.blocks, arguments.epochs, arguments.bars)
    blocks = [rows[i : i + arguments.epochs] for i in range(arguments.epochs, len(rows), arguments.epochs)]
    parts = {"hung": blocks[0::2], "live": blocks[1::2]}
    result: dict[str, Any] = {"machine": machine(), "rows": parts}
    print("| epoch, median | live | hung | hung against live | by pairs |\n|---|---|---|---|---|")
    for i, name in enumerate(("seconds", "CPU-seconds", "seconds in subscribers")):
        median = {kind: statistics.median(row[i] for block in part for row in block) for kind, part in parts.items()}
        pairs = [
            statistics.median(row[i] for row in hung) / statistics.median(row[i] for row in live) - 1
            for hung, live in zip(parts["hung"], parts["live"], strict=True)
        ]
        change = median["hung"] / median["live"] - 1
        result[name] = {**median, "change": change, "change_by_pair": pairs}
        print(
            f"| {name} | {median['live']:.3f} | {median['hung']:.3f} | {change:+.1%} | "
            f"{statistics.median(pairs):+.1%} |"
        )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
