"""What a GPU gives, in one command of at most eight minutes: commands, throughput, memory, resume, several processes.

    python -m benchmarks.speed.gpu [--device cuda] [--minutes 8] [--smoke] [--out benchmarks/results/gpu.json]

Steps in the order of their worth; what no time is left for is listed as not run, and so is a step that failed, with its
error. A training is a process of its own: so its peak of memory is its own.

1. ``smoke``: the command `moola pretrain` on configs/smoke.yaml, start to registered encoder.
2. ``throughput``: configs/stones.yaml and configs/rules.yaml, by precision and batch size, windows a second after the
   first epoch and the peak of the GPU's memory.
3. ``agreement``: the same training of two epochs on the CPU and on the GPU in fp32; losses differ by rounding alone.
4. ``resume``: a training of four epochs, and one that is interrupted after the second and resumed.
5. ``processes``: torchrun with two processes, where there are two GPUs.

``--device cpu --smoke`` proves the command on a machine without a GPU; its figures say nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.synthetic_months import machine

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "gpu.json"
EPOCHS = 4
Row = dict[str, Any]


def train(preset: str, keys: dict[str, Any], precision: str) -> Row:
    """Train in this process; return losses, windows a second after the first epoch, and peak memory in MiB."""
    import torch

    from moola_mlflow.core import PretrainKeys, make_config, pick_device, read_preset
    from moola_mlflow.training.setup import build_trainer, prepare

    config: PretrainKeys = make_config(PretrainKeys, read_preset(ROOT / "configs" / f"{preset}.yaml"), keys)
    device = pick_device(config.runtime.device)
    trainer = build_trainer(config, prepare(config, device), precision)
    trainer.evaluation.fit_baselines()
    started = time.perf_counter()
    trainer.fit()
    history = trainer.progress.history
    peak = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    return {
        "seconds": time.perf_counter() - started, "peak_mib": peak, "val_loss": [row["val/loss"] for row in history],
        "windows_per_second": statistics.median(row["windows_per_second"] for row in history[1:] or history),
    }  # fmt: skip


def environment_of(folder: str) -> dict[str, str]:
    """Return the variables of a command whose store is in a folder."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    return kept | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "PYTHONPATH": str(ROOT)}


def run(command: list[str], folder: str, seconds: float) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder and a store of its own. Raises: RuntimeError with its last words if it fails."""
    done = subprocess.run(
        command, cwd=folder, env=environment_of(folder), capture_output=True, text=True, timeout=seconds
    )
    if done.returncode:
        raise RuntimeError(f"exit {done.returncode}: {done.stderr.strip()[-1500:]}")
    return done


def losses_of(folder: str) -> list[float]:
    """Return the validation loss of each epoch, from the results of the longest training in a folder."""
    files = [json.loads(path.read_text(encoding="utf-8")) for path in Path(folder).rglob("training_results.json")]
    return max(([row["val/loss"] for row in one["history"]] for one in files), key=len)


def train_apart(preset: str, keys: dict[str, Any], precision: str, seconds: float) -> Row:
    """Train in another process, so that its memory is its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.speed.gpu", "--one", json.dumps([preset, keys, precision])]
        row: Row = json.loads(run(command, folder, seconds).stdout.splitlines()[-1])
        return row


def pretrain(words: list[str], seconds: float, launcher: tuple[str, ...] = ()) -> Row:
    """Run `moola pretrain`, under a launcher if one is given; return its wall seconds and validation losses."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        done = run([sys.executable, *launcher, "-m", "moola_mlflow", "pretrain", *words], folder, seconds)
        took = time.perf_counter() - started
        losses = losses_of(folder)
        return {"seconds": took, "val_loss": losses, "registered": "moola-encoder version" in done.stdout}


def interrupted(words: list[str], seconds: float) -> Row:
    """Stop a training by Ctrl-C after its second epoch, resume it, and return the losses of all its epochs."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "moola_mlflow", "pretrain", *words]
        first = subprocess.Popen(command, cwd=folder, env=environment_of(folder), stdout=subprocess.PIPE, text=True)
        assert first.stdout is not None
        for line in first.stdout:
            if re.search(r"Epoch\s+2 ", line):
                first.send_signal(signal.SIGINT)
                break
        first.communicate(timeout=seconds)
        run([*command, "--resume", "auto"], folder, seconds)
        losses = losses_of(folder)
        return {"interrupted_with": first.returncode, "val_loss": losses}


def steps(device: str, smoke: bool, num_gpus: int) -> dict[str, Callable[[float], Row]]:
    """Return what is measured, by name; each takes the seconds that are left."""
    on = {"runtime.device": device, "registry.name": "none"}
    small = {"bars.sample_bars": 12_000, "encoder.hidden": 8} if smoke else {"bars.sample_bars": 200_000}
    short = [word for key, value in small.items() for word in (f"--{key}", str(value))] if smoke else []
    sizes = (64,) if smoke else (64, 512, 2048)
    precisions = ("fp32",) if device == "cpu" else ("bf16", "fp32")
    out: dict[str, Callable[[float], Row]] = {
        "smoke": lambda left: pretrain(["--config", str(ROOT / "configs/smoke.yaml"), "--device", device, *short], left)
    }

    def trained(preset: str, keys: dict[str, Any], precision: str) -> Callable[[float], Row]:
        return lambda left: train_apart(preset, keys, precision, left)

    for preset in ("rules", "stones"):
        few = {"objective.num_rules": 16, "objective.rules_per_step": 8} if smoke and preset == "rules" else {}
        for size in sizes:
            length = {"trainer.steps": 4 if smoke else 400} if preset == "rules" else {"trainer.epochs": 3}
            for precision in precisions:
                keys = on | small | few | length | {"trainer.batch_size": size}
                out[f"throughput, {preset}, {precision}, batches of {size}"] = trained(preset, keys, precision)
    same = on | small | {"bars.sample_bars": 12_000, "trainer.epochs": 2}
    for where in dict.fromkeys((device, "cpu")):
        out[f"agreement, {where}"] = trained("stones", same | {"runtime.device": where}, "fp32")
    keys = same | {"trainer.epochs": EPOCHS}
    words = ["--config", str(ROOT / "configs/stones.yaml"), *(w for k, v in keys.items() for w in (f"--{k}", str(v)))]
    out["resume, uninterrupted"] = lambda left: pretrain(words, left)
    out["resume, interrupted"] = lambda left: interrupted(words, left)
    if num_gpus >= 2:
        torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
        out["processes, two under NCCL"] = lambda left: pretrain(words, left, torchrun)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--smoke", action="store_true", help="small: no figures to quote")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(train(*json.loads(given.one))))
        return
    import torch

    from moola_mlflow.core import UserError, pick_device

    try:
        pick_device(given.device)
    except UserError as error:
        raise SystemExit(f"{error}; to try this command without a GPU: --device cpu --smoke") from None
    num_gpus, end, rows = torch.cuda.device_count(), time.monotonic() + 60 * given.minutes, {}
    names = [torch.cuda.get_device_name(i) for i in range(num_gpus)]
    for name, step in steps(given.device, given.smoke, num_gpus).items():
        left = end - time.monotonic()
        try:
            rows[name] = step(left) if left > 0 else {"not_run": "no time was left"}
        except (RuntimeError, ValueError, OSError, subprocess.TimeoutExpired) as error:
            rows[name] = {"not_run": str(error)[-1500:]}
        print(f"{name}: {json.dumps(rows[name])}", flush=True)
        given.out.parent.mkdir(parents=True, exist_ok=True)
        result = {"machine": machine(), "gpus": names, "device": given.device, "smoke": given.smoke, "rows": rows}
        given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
