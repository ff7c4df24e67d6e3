"""What a fine-tuning costs with a frozen encoder: folds a second of the detector alone, and a whole command.

    python -m benchmarks.speed.finetune [--rounds 5] [--only quick] [--old CHECKOUT] [--smoke]
        [--out benchmarks/results/finetune.json]

The detector alone: 5 folds x 5 seeds on the sample's 174 weak labels, encodings made and cached in the measured time.
The command: `moola finetune`, 5 folds x 3 repeats with all baselines, refit and figures, imports included. The encoder
is a `path` one of the default size, trained for two epochs: what it has learned changes no speed but early stopping's.
The quick command has the prior reader on an encoder of `configs/rules.yaml`, trained for 100 steps, and
`cv.baselines=quick`. Rounds alternate between the three. CPU seconds are those of all processes: they say more where
other work runs too. `--only quick` measures one of them. `--old` names a checkout of an earlier version; the quick
command then alternates with the one of that version.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.synthetic_months import machine

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
SEEDS = (13, 17, 23, 29, 31)
ALONE, COMMAND = "detector alone, 5 folds x 5 seeds", "command, 5 folds x 3 repeats, all baselines"
QUICK = "command, prior reader, 5 folds x 3 repeats, quick baselines"
OLD = " (earlier version)"
FEW = {"labels.n": "60", "trainer.epochs": "1", "cv.folds": "2", "cv.workers": "1"}
"""Keys of a smoke run's fine-tunings: with one worker no further process imports torch."""
LIMITS_S = {ALONE: 30.0, COMMAND: 180.0, QUICK: 15.0}


def cpu_s() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def summary(seconds: dict[str, list[float]]) -> dict[str, dict[str, float | bool]]:
    """Return median and spread of each row over the rounds, and whether the median is below its line."""
    found: dict[str, dict[str, float | bool]] = {}
    for name, values in seconds.items():
        if values:
            median, line = statistics.median(values), LIMITS_S[name.removesuffix(OLD)]
            found[name] = {"median": median, "min": min(values), "max": max(values), "line": line, "met": median < line}
    return found


def moola(folder: str, *words: str, checkout: Path = ROOT) -> float:
    """Run a command of a checkout in a folder of its own; return its wall seconds."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment = {**kept, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "PYTHONPATH": str(checkout)}
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "moola_mlflow", *words], cwd=folder, env=environment,
                          capture_output=True, text=True)  # fmt: skip
    if done.returncode:
        raise SystemExit(f"exit {done.returncode}\n{done.stderr[-3000:]}")
    return time.perf_counter() - started


def alone(encoder_folder: Path, overrides: dict[str, str], seeds: tuple[int, ...]) -> float:
    """Return the seconds of the detector's folds, from labels in memory to predictions."""
    import torch

    from moola_mlflow.core import FinetuneKeys, make_config, read_preset, runtime
    from moola_mlflow.evaluation.crossval import cross_validate
    from moola_mlflow.evaluation.folds import plan_folds
    from moola_mlflow.evaluation.methods import detector_method, make_setting
    from moola_mlflow.labels.targets import Targets
    from moola_mlflow.labels.weak import sample_labels
    from moola_mlflow.models.files.encoder import load_from_path

    config = make_config(FinetuneKeys, read_preset(ROOT / "configs" / "finetune.yaml"), overrides)
    labels = sample_labels(config, config.labels.n, config.labels.seed)
    started = time.perf_counter()
    setting = make_setting(labels, [load_from_path(encoder_folder)], config, torch.device("cpu"), "fp32")
    folds = plan_folds(labels, config.cv, seeds)
    workers = config.cv.workers or runtime.usable_cores()
    outcomes = cross_validate([detector_method(setting)], Targets.of(labels), folds, workers=workers)
    assert all(len(found) == len(folds) for found in outcomes.values())
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="small and once: no figures to quote")
    parser.add_argument("--only", default="", help="a part of the name of the row to measure")
    parser.add_argument("--old", type=Path, help="a checkout of an earlier version, for the quick command")
    parser.add_argument("--out", type=Path, default=RESULTS / "finetune.json")
    arguments = parser.parse_args()
    rounds = 1 if arguments.smoke else arguments.rounds
    from moola_mlflow.core import runtime

    runtime.prepare_environment()
    runtime.tune_allocator()
    runtime.set_threads()
    small = {"bars.sample_bars": "20000", "encoder.hidden": "4"} if arguments.smoke else {}
    few = FEW if arguments.smoke else {}
    words = [word for key, value in (small | few).items() for word in (f"--{key}", value)]
    repeats = "1" if arguments.smoke else "3"
    with tempfile.TemporaryDirectory() as folder:
        given = [word for key, value in small.items() for word in (f"--{key}", value)]
        if arguments.smoke:
            given += ["--register", "none"]
        epochs = "1" if arguments.smoke else "2"
        moola(folder, "pretrain", "--config", str(ROOT / "configs" / "path.yaml"), "--epochs", epochs, *given)
        (encoder,) = Path(folder).glob(".moola/runs/*/encoder")
        steps = ["--trainer.steps", "4" if arguments.smoke else "100"]
        steps += ["--objective.num_rules", "8" if arguments.smoke else "40"]
        moola(folder, "pretrain", "--config", str(ROOT / "configs" / "rules.yaml"), *steps, *given)
        (of_rules,) = set(Path(folder).glob(".moola/runs/*/encoder")) - {encoder}
        command = ["finetune", "--encoder", str(encoder), "--repeats", repeats, "--register", "none", *words]
        quick = [str(of_rules) if word == str(encoder) else word for word in command] + ["--cv.baselines", "quick"]
        measured = {
            ALONE: lambda: alone(encoder, small | few, SEEDS[:1] if arguments.smoke else SEEDS),
            COMMAND: lambda: moola(folder, *command),
            QUICK: lambda: moola(folder, *quick),
        }
        if arguments.old:
            measured[QUICK + OLD] = lambda: moola(folder, *quick, checkout=arguments.old.resolve())
        measured = {name: run for name, run in measured.items() if arguments.only in name}
        seconds, cpu = ({name: list[float]() for name in measured} for _ in range(2))
        for _ in range(rounds):
            for name, run in measured.items():
                before = cpu_s()
                seconds[name].append(run())
                cpu[name].append(cpu_s() - before)
    print("| | seconds, median (min to max) | line | CPU seconds |\n|---|---|---|---|")
    for name, row in (found := summary(seconds)).items():
        shown = f"{row['median']:.1f} ({row['min']:.1f} to {row['max']:.1f})"
        print(f"| {name} | {shown} | {row['line']:.0f} | {statistics.median(cpu[name]):.0f} |")
    if ALONE in found:
        print(f"{5 * len(SEEDS) / found[ALONE]['median']:.2f} folds a second with a frozen encoder")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "machine": machine(), "smoke": arguments.smoke, "rounds": rounds, "seconds": seconds, "cpu_seconds": cpu,
        "summary": found,
    }  # fmt: skip
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
