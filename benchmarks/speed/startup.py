"""How long one waits: for `moola --help`, for `import moola_mlflow`, and for `moola pretrain` to take its first step.

    python -m benchmarks.speed.startup [--rounds 5] [--smoke] [--out benchmarks/results/startup.json]

Wall seconds from the start of the process. The first step is measured to its end: the weights have moved once. The
command is the default one on the sample, run as the console script runs it, in a process that also notes when the
trainer tells of its first step; nothing is imported sooner for that. The store exists already.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.synthetic_months import machine

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
LIMITS_S = {"moola --help": 0.3, "moola pretrain --help": 0.3, "import moola_mlflow": 0.5, "pretrain, first step": 6.0}
COMMANDS = {
    "moola --help": ["-m", "moola_mlflow", "--help"],
    "moola pretrain --help": ["-m", "moola_mlflow", "pretrain", "--help"],
    "import moola_mlflow": ["-c", "import moola_mlflow"],
}
WATCHED = """
import importlib.util, sys, time

noted = sys.argv.pop(1)

class Watch:
    "Has the time written down when the trainer first tells that a step has ended."

    def find_spec(self, name, path=None, target=None):
        if name != "moola_mlflow.training.events":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def watched(module):
            load(module)
            made = module.StepEnded.__init__

            def first(event, *values, **named):
                with open(noted, "x") as file:
                    file.write(repr(time.time()))
                module.StepEnded.__init__ = made
                made(event, *values, **named)

            module.StepEnded.__init__ = first

        spec.loader.exec_module = watched
        return spec

sys.meta_path.insert(0, Watch())
from moola_mlflow.__main__ import main

sys.exit(main())
"""
"""The console script, with a look at the trainer's events."""


def environment(folder: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    return {**kept, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "PYTHONPATH": str(ROOT)}


def wall(words: list[str], folder: str) -> float:
    """Return the seconds that a command takes."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *words], cwd=folder, env=environment(folder), check=True, capture_output=True)
    return time.perf_counter() - started


def first_step(folder: str, smoke: bool) -> float:
    """Return the seconds from the start of a pre-training's process to the end of its first step."""
    size = ["--bars.sample_bars", "12000", "--encoder.hidden", "4"] if smoke else []
    noted = Path(folder) / "first_step_at"
    noted.unlink(missing_ok=True)
    words = ["-c", WATCHED, str(noted), "pretrain", "--epochs", "1", "--register", "none", *size]
    started_at = time.time()
    subprocess.run([sys.executable, *words], cwd=folder, env=environment(folder), check=True, capture_output=True)
    if not noted.exists():
        raise SystemExit("the training told of no step")
    return float(noted.read_text()) - started_at


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="small and once")
    parser.add_argument("--out", type=Path, default=RESULTS / "startup.json")
    arguments = parser.parse_args()
    rounds = 1 if arguments.smoke else arguments.rounds
    seconds: dict[str, list[float]] = {name: [] for name in LIMITS_S}
    with tempfile.TemporaryDirectory() as folder:
        wall(["-c", "import mlflow; mlflow.search_experiments()"], folder)
        for _ in range(rounds):
            for name, words in COMMANDS.items():
                seconds[name].append(wall(words, folder))
            seconds["pretrain, first step"].append(first_step(folder, arguments.smoke))
    print("| | seconds, median (min to max) | line |\n|---|---|---|")
    for name, values in seconds.items():
        shown = f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
        print(f"| {name} | {shown} | {LIMITS_S[name]} |")
    result = {"machine": machine(), "smoke": arguments.smoke, "seconds": seconds}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
