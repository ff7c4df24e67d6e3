"""What tracking costs an epoch: CPU-seconds of a training that is tracked against those of the same one that is not.

    python -m benchmarks.speed.tracking [--rounds 5] [--epochs 5] [--smoke] [--out benchmarks/results/tracking.json]

At the default size (configs/stones.yaml on the sample), in turn: no run and no subscribers at all; the pretrain command
with a SQLite store; the same with an `mlflow server`, whose own work does not count. All threads of the process count,
from the first step to when all that training logged has been sent: metrics, pictures, heartbeat, display, the sender,
samples of the machine. A check that all three ended at the same Huber says that they were the same training.

The difference is what is asked for; on a machine that others use it is noisy. Beside it stands what is counted within
the tracked training itself: CPU time inside the trainer's events, and with it that of the threads that tracking has.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.servers import start_server
from benchmarks.synthetic_months import machine
from benchmarks.table import spread

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
ALONE = "untracked"

CHILD = """
import json, os, sys, threading, time
from pathlib import Path
from moola_mlflow.core import runtime
runtime.prepare_environment()
from moola_mlflow.cli.parser import parse
from moola_mlflow.training import Trainer

class Measured(BaseException):
    "Training is over; what a command does after it is not asked for."

THREADS = ("moola-outbox", "moola-machine")
at, events, boxes, huber = [], {"cpu": 0.0}, [], []
emit, epoch, fit = Trainer._emit, Trainer._train_epoch, Trainer.fit

def mark():
    own = [thread for thread in threading.enumerate() if thread.name in THREADS]
    spent = sum(time.clock_gettime(time.pthread_getcpuclockid(thread.ident)) for thread in own)
    at.append((time.process_time(), time.perf_counter(), events["cpu"], spent))

def timed_emit(self, event):
    began = time.thread_time()
    try:
        emit(self, event)
    finally:
        events["cpu"] += time.thread_time() - began

def marked_epoch(self):
    mark()
    return epoch(self)

def measured_fit(self):
    fit(self)
    for box in boxes:
        box.drain()
    mark()
    huber.append(self.progress.history[-1]["val/huber"])
    raise Measured

Trainer._emit, Trainer._train_epoch, Trainer.fit = timed_emit, marked_epoch, measured_fit
kind, *words = sys.argv[1:]
config, preset, _ = parse("pretrain", words)
try:
    if kind == "untracked":
        from moola_mlflow.models import Checkpointer
        from moola_mlflow.training import build_trainer, prepare
        runtime.tune_allocator()
        runtime.set_threads(config.runtime.threads)
        device = runtime.pick_device(config.runtime.device)
        data = prepare(config, device)
        precision = runtime.pick_precision(config.runtime.precision, device)
        trainer = build_trainer(config, data, precision, Checkpointer(Path(f"checkpoints-{os.getpid()}")))
        trainer.evaluation.fit_baselines()
        trainer.fit()
    else:
        from moola_mlflow.tracking.delivery import outbox
        from moola_mlflow.cli.commands import pretrain
        from moola_mlflow.core import Interrupts
        make = outbox.Outbox.__init__
        def kept(self, *arguments, **named):
            make(self, *arguments, **named)
            boxes.append(self)
        outbox.Outbox.__init__ = kept
        pretrain.run(config, preset, Interrupts())
except Measured:
    pass
rows = [[b - a for a, b in zip(before, after)] for before, after in zip(at, at[1:])]
named = [dict(zip(("cpu", "wall", "events", "threads"), row)) for row in rows]
print(json.dumps({"epochs": named, "val_huber": huber[0]}))
"""


def measure(kind: str, uri: str, folder: str, words: list[str]) -> dict[str, Any]:
    """Run one training; return CPU-seconds, seconds, and what is counted of tracking, of every epoch, and the Huber."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment |= {"PYTHONPATH": str(ROOT), **({"MLFLOW_TRACKING_URI": uri} if uri else {})}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, kind, *words], cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def shares_of(tracked: list[dict[str, Any]], alone: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what tracking costs as shares of an epoch without it, of every epoch of every round."""
    pairs = [
        (a, b)
        for one, other in zip(tracked, alone, strict=True)
        for a, b in zip(one["epochs"], other["epochs"], strict=True)
    ]
    least = [min(sum(epoch["cpu"] for epoch in run["epochs"]) for run in runs) for runs in (tracked, alone)]
    own = [(a["events"], a["threads"], a["cpu"]) for a, _ in pairs]
    return {
        "difference": [(a["cpu"] - b["cpu"]) / b["cpu"] for a, b in pairs],
        "of_least": least[0] / least[1] - 1,
        "events": [events / (cpu - events - threads) for events, threads, cpu in own],
        "counted": [(events + threads) / (cpu - events - threads) for events, threads, cpu in own],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--epochs", type=int, default=5, help="pictures are made of the first, every fifth and the last"
    )
    parser.add_argument("--bars", type=int, default=200_000)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--smoke", action="store_true", help="small and once: no figures to quote")
    parser.add_argument("--out", type=Path, default=RESULTS / "tracking.json")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.rounds, arguments.epochs, arguments.bars, arguments.hidden = 1, 2, 12_000, 8
    settings = {
        "config": ROOT / "configs" / "stones.yaml", "trainer.epochs": arguments.epochs,
        "encoder.hidden": arguments.hidden, "bars.sample_bars": arguments.bars, "registry.name": "none",
    }  # fmt: skip
    words = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    with tempfile.TemporaryDirectory() as folder:
        process, server = start_server(folder)
        uris = {ALONE: "", "SQLite": f"sqlite:///{folder}/direct.db", "server": server}
        runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in uris}
        try:
            for _ in range(arguments.rounds):
                for kind, uri in uris.items():
                    runs[kind].append(measure(kind, uri, folder, words))
                    print(f"{kind}: {runs[kind][-1]}", file=sys.stderr, flush=True)
        finally:
            process.terminate()
            process.wait()
    hubers = {run["val_huber"] for rounds in runs.values() for run in rounds}
    if len(hubers) > 1:
        raise SystemExit(f"these were not the same training: val/huber {sorted(hubers)}")
    shares = {kind: shares_of(rounds, runs[ALONE]) for kind, rounds in runs.items() if kind != ALONE}
    print("CPU-seconds of an epoch against one without tracking, median (min to max) over rounds and epochs\n")
    print("| store | with less without | least of the rounds | inside events | events and tracking's threads |")
    print("|---|---|---|---|---|")
    for kind, row in shares.items():
        cells = [spread(row["difference"], "+.2%"), f"{row['of_least']:+.2%}"]
        cells += [spread(row[key], ".2%") for key in ("events", "counted")]
        print(f"| {kind} | {' | '.join(cells)} |")
    print("\n| median of epoch | " + " | ".join(str(i + 1) for i in range(arguments.epochs)) + " |")
    print("|---|" + "---|" * arguments.epochs)
    for kind, row in shares.items():
        cells = [spread(row["counted"][i :: arguments.epochs], ".2%") for i in range(arguments.epochs)]
        print(f"| {kind}, counted | {' | '.join(cells)} |")
    about = {key: getattr(arguments, key) for key in ("epochs", "bars", "hidden", "smoke")}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(
        json.dumps({"machine": machine(), "about": about, "shares": shares, "runs": runs}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
