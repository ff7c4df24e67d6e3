"""What a second process gives: one training under `torchrun` with one and with two processes of a thread each.

    python -m benchmarks.speed.processes [--rounds 5] [--epochs 3] [--smoke] [--out benchmarks/results/processes.json]

The pretrain command on configs/stones.yaml, with an equal batch of all processes together, in turn: one, two, one, two.
Each run has a folder and a SQLite store of its own. Windows a second are of the epochs after the first, without their
evaluation, which is shared out as the steps are; the Huber is the last epoch's on the validation windows.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.synthetic_months import machine
from benchmarks.table import spread

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PROCESSES = (1, 2)


def epochs_of(folder: Path) -> list[dict[str, float]]:
    """Return the metrics of every epoch that the journal of the folder's one run holds."""
    (journal,) = folder.glob(".moola/runs/*/journal.jsonl")
    records = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    return [record["metrics"] for record in records if "windows_per_second" in record.get("metrics", {})]


def measure(processes: int, words: list[str], smoke: bool) -> dict[str, float]:
    """Train once with some processes; return windows a second and the last Huber."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        environment |= {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        if not smoke:  # there the training makes its store itself: its time says nothing
            subprocess.run([sys.executable, "-c", "import mlflow; mlflow.search_experiments()"],
                           env=environment, cwd=folder, check=True, capture_output=True)  # fmt: skip
        torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        done = subprocess.run(
            [sys.executable, "-m", *torchrun, "-m", "moola_mlflow", "pretrain", *words],
            cwd=folder, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{processes} processes: exit {done.returncode}\n{done.stderr[-3000:]}")
        epochs = epochs_of(Path(folder))
    return {
        "windows_per_second": statistics.median(epoch["windows_per_second"] for epoch in epochs[1:]),
        "val_huber": epochs[-1]["val/huber"],
        "load": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3, help="two or more: the first does not count")
    parser.add_argument("--bars", type=int, default=60_000)
    parser.add_argument("--batch", type=int, default=64, help="of all processes together")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--smoke", action="store_true", help="small and once: no figures to quote")
    parser.add_argument("--out", type=Path, default=RESULTS / "processes.json")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.rounds, arguments.epochs, arguments.bars, arguments.hidden = 1, 2, 12_000, 8
    settings = {
        "config": ROOT / "configs" / "stones.yaml", "trainer.epochs": max(2, arguments.epochs),
        "trainer.batch_size": arguments.batch, "encoder.hidden": arguments.hidden,
        "bars.sample_bars": arguments.bars, "registry.name": "none",
    }  # fmt: skip
    words = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    runs: dict[int, list[dict[str, float]]] = {processes: [] for processes in PROCESSES}
    for _ in range(arguments.rounds):
        for processes in PROCESSES:
            runs[processes].append(measure(processes, words, arguments.smoke))
            print(f"{processes}: {runs[processes][-1]}", file=sys.stderr, flush=True)
    print("| processes | windows/s, median (min to max) | val Huber |\n|---|---|---|")
    for processes, rows in runs.items():
        cells = [spread([row[key] for row in rows], form)
                 for key, form in (("windows_per_second", ",.0f"), ("val_huber", ".5f"))]  # fmt: skip
        print(f"| {processes} | {cells[0]} | {cells[1]} |")
    rounds = list(zip(*runs.values(), strict=True))
    ratios = [two["windows_per_second"] / one["windows_per_second"] for one, two in rounds]
    differences = [two["val_huber"] / one["val_huber"] - 1 for one, two in rounds]
    print(
        f"\n2 processes against 1, by rounds: {spread(ratios, '.2f')} times the windows a second, "
        f"Huber {spread(differences, '+.1e')} of itself higher"
    )
    about = {key: getattr(arguments, key) for key in ("epochs", "bars", "batch", "hidden", "smoke")}
    result = {"machine": machine(), "about": about, "runs": runs, "ratios": ratios, "huber_differences": differences}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
