"""What do the encoders cost? Training steps and reading of each, and ways to compute the recurrence of ``mingru``.

    python -m benchmarks.speed.encoders [--rounds 7] [--smoke] [--out benchmarks/results/encoders.json]

One thread, CPU time. A training step is forward, backward and clipping of configs/rules.yaml, without the optimiser;
reading is a forward pass of 256 windows in evaluation mode. The encoders take turns within a round, in fp32 and bf16.
Figures are windows a CPU second as a ratio to the preset's LSTM in the same round: medians, smallest and largest.

The recurrence s[t] = a[t] * s[t-1] + b[t] of 32 windows, 105 steps and 64 units, in milliseconds, forward alone: a loop
over steps, a scan of chunks of 11 steps, a scan that doubles its reach, and the published cumulative sums of
logarithms. ``error`` is the largest difference to a loop in float64.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.synthetic_months import machine
from moola_mlflow.core import PretrainKeys, make_config, read_preset, tune_allocator
from moola_mlflow.core.runtime import cpu_runs_bf16

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "encoders.json"
BASE = "bilstm32"
ENCODERS: dict[str, dict[str, Any]] = {
    BASE: {},
    "bilstm16": {"encoder.hidden": 16},
    "mingru32": {"encoder.name": "mingru"},
    "mingru16": {"encoder.name": "mingru", "encoder.layers": 3, "encoder.hidden": 16},
    "attention32": {"encoder.name": "attention"},
    "attention16": {"encoder.name": "attention", "encoder.layers": 3, "encoder.hidden": 16},
    "dilated32": {"encoder.name": "dilated", "encoder.layers": 5},
    "dilated16": {"encoder.name": "dilated", "encoder.layers": 5, "encoder.hidden": 16},
}
NUM_READ, CHUNK = 256, 11


def in_turn(works: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Return the CPU seconds of each work, round by round, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for i in range(rounds + 1):
        for name, work in works.items():
            started = time.process_time()
            work()
            if i:
                seconds[name].append(time.process_time() - started)
    return seconds


def trainings(precision: str, folder: Path, smoke: bool) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Return for each encoder a function that trains on a batch, and one that reads windows."""
    import torch

    from moola_mlflow.models.files.checkpoint import Checkpointer, about_training
    from moola_mlflow.training.setup import build_trainer, prepare

    made: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {}
    for name, keys in ENCODERS.items():
        small = {"objective.num_rules": 16, "objective.rules_per_step": 8} if smoke else {}
        keys = {"bars.sample_bars": 12_000, "runtime.shards": 1} | keys | small
        config: PretrainKeys = make_config(PretrainKeys, read_preset(ROOT / "configs" / "rules.yaml"), keys)
        data = prepare(config, torch.device("cpu"))
        place = folder / f"{name}-{precision}"
        trainer = build_trainer(config, data, precision, Checkpointer(place, about_training(config)))
        batch = next(iter(data.source.batches(data.split.train, config.trainer.batch_size)))
        x_BTF = torch.randn(8 if smoke else NUM_READ, config.windows.length, trainer.model.encoder.input_size)

        def train(trainer: Any = trainer, batch: Any = batch) -> None:
            trainer.model.train()
            trainer._step(batch)

        @torch.no_grad()
        def read(trainer: Any = trainer, x_BTF: Any = x_BTF) -> None:
            with trainer.engine.autocast():
                trainer.model.encoder.eval()(x_BTF)

        made[name] = train, read
    return made


def scans() -> dict[str, Callable[[Any, Any], Any]]:
    """Return ways to compute s[t] = a[t] * s[t-1] + b[t]. Shapes: a_TBD, b_TBD -> s_TBD."""
    import torch
    from torch.nn import functional

    def loop(a: Any, b: Any) -> Any:
        states = (s := b.clone()).unbind()
        for before, now, share in zip(states, states[1:], a.unbind()[1:], strict=False):
            now.addcmul_(share, before)
        return s

    def chunks(a: Any, b: Any) -> Any:
        num = -(-len(b) // CHUNK)
        pad = (0, 0, 0, 0, 0, num * CHUNK - len(b))
        a, s = (functional.pad(x, pad).unflatten(0, (num, CHUNK)).clone() for x in (a, b))
        for i in range(1, CHUNK):
            s[:, i].addcmul_(a[:, i], s[:, i - 1])
            a[:, i] *= a[:, i - 1]
        for i in range(1, num):
            s[i].addcmul_(a[i], s[i - 1, -1:])
        return s.flatten(0, 1)[: len(b)]

    def doubling(a: Any, b: Any) -> Any:
        reach = 1
        while reach < len(b):
            b = torch.cat([b[:reach], torch.addcmul(b[reach:], a[reach:], b[:-reach])])
            a = torch.cat([a[:reach], a[reach:] * a[:-reach]])
            reach *= 2
        return b

    def logarithms(a: Any, b: Any) -> Any:
        kept = a.log().cumsum(0)
        return (kept + (b.log() - kept).logcumsumexp(0)).exp()

    return {"loop": loop, "chunks": chunks, "doubling": doubling, "logarithms": logarithms}


def measure_scans(rounds: int) -> dict[str, dict[str, float]]:
    """Return milliseconds of each scan and its largest error."""
    import torch

    torch.manual_seed(0)
    a, b = torch.rand(105, 32, 64), torch.rand(105, 32, 64)
    ways = scans()
    exact = ways["loop"](a.double(), b.double())
    seconds = in_turn({name: lambda way=way: way(a, b) for name, way in ways.items()}, rounds)
    return {
        name: {**about([1e3 * one for one in seconds[name]]), "error": float((way(a, b) - exact).abs().max())}
        for name, way in ways.items()
    }


def about(values: list[float]) -> dict[str, float]:
    """Return median, smallest and largest."""
    return {"median": statistics.median(values), "smallest": min(values), "largest": max(values)}


def measure(rounds: int, smoke: bool) -> dict[str, Any]:
    """Return ratios of speed for each precision and encoder, and the figures of the scans."""
    import torch

    torch.set_num_threads(1)
    tune_allocator()
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for precision in ("fp32", "bf16") if cpu_runs_bf16() else ("fp32",):
            works = trainings(precision, Path(folder), smoke)
            for i, what in enumerate(("train", "read")):
                seconds = in_turn({name: work[i] for name, work in works.items()}, rounds)
                for name, took in seconds.items():
                    ratio = [base / one for base, one in zip(seconds[BASE], took, strict=True)]
                    cell = {"ms": 1e3 * statistics.median(took), **about(ratio)}
                    rows.setdefault(precision, {}).setdefault(name, {})[what] = cell
    return {"encoders": rows, "scans": measure_scans(3 * rounds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--smoke", action="store_true", help="few rules and windows, to see that it runs")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    result = measure(1 if given.smoke else given.rounds, given.smoke)
    print("| precision | encoder | training step, ms | windows/s against the LSTM | reading, ms | windows/s |")
    print("|---|---|---|---|---|---|")
    for precision, rows in result["encoders"].items():
        for name, row in rows.items():
            cells = [
                f"{row[what]['ms']:.1f} | {row[what]['median']:.2f} ({row[what]['smallest']:.2f} to "
                f"{row[what]['largest']:.2f})"
                for what in ("train", "read")
            ]
            print(f"| {precision} | {name} | {' | '.join(cells)} |")
    for name, scan in result["scans"].items():
        print(f"scan {name}: {scan['median']:.2f} ms, error {scan['error']:.0e}")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps({"machine": machine(), "smoke": given.smoke, **result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
