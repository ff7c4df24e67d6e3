"""How much of the machine training uses: floating-point operations a second of whole steps against its GEMM peak.

    python -m benchmarks.speed.roofline [--rounds 5] [--seconds 4] [--smoke] [--out benchmarks/results/roofline.json]

Two ceilings, both from ``torch.mm`` in the precision of training (bf16, or fp32 on a processor that only emulates bf16)
on as many cores, in turn with the steps. The peak is the fastest of a few
large products. The products' own ceiling is a step that consisted of nothing but its matrix products at their own
shapes: half of them are 64 x 128 x 512, which no library runs at the peak. Against them, whole steps of the trainer
on configs/stones.yaml: features, masks, dropout, forward, backward, clipping, AdamW. A step counts the multiplications
and additions of its matrix products alone, twice as many backward as forward. Rates of CPU time are shown beside those
of the wall clock: on a machine that others use too, only they say something, and they too suffer there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.synthetic_months import machine
from moola_mlflow.core import PretrainKeys, make_config, runtime

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
SHAPES = ((6720, 512, 256), (3360, 512, 256), (512, 512, 512), (2048, 2048, 2048))


COLUMNS = {
    "peak GFLOP/s": "peak_gflops",
    "windows/s": "windows_per_s",
    "of peak": "share",
    "of products' ceiling": "share_of_products",
    "windows/CPU-s": "windows_per_cpu_s",
    "of peak, CPU time": "share_of_cpu_time",
    "of products' ceiling, CPU time": "share_of_products_cpu_time",
}


def encoder_flops(length: int, features: int, hidden: int, layers: int) -> float:
    """Return the operations of the encoder's matrix products, forward alone, a window."""
    sizes = [features] + [2 * hidden] * (layers - 1)
    return float(length * sum(2 * 2 * 4 * hidden * (size + hidden) for size in sizes))


def flops_a_window(length: int, features: int, hidden: int, layers: int) -> float:
    """Return the operations of a training step's matrix products, forward and backward, a window."""
    return 3 * (encoder_flops(length, features, hidden, layers) + length * 2 * 2 * hidden * features)


def timed(work: Callable[[], Any], seconds: float) -> tuple[int, float, float]:
    """Repeat the work for some seconds; return how often it was done, wall seconds and CPU seconds."""
    count, wall, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < seconds:
        work()
        count += 1
    return count, time.perf_counter() - wall, time.process_time() - cpu


def gemm_rates(dtype: Any, threads: int, seconds: float) -> tuple[float, float]:
    """Return GFLOP/s of the best shape in one dtype: by the wall clock, and a core by CPU time."""
    import torch

    best = (0.0, 0.0)
    with ThreadPoolExecutor(threads, initializer=lambda: torch.set_num_threads(1)) as pool:
        for m, n, k in SHAPES:
            a, b = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype)
            repeats = max(1, round(2e9 / (2 * m * n * k)))

            def work(a: Any = a, b: Any = b, repeats: int = repeats) -> None:
                def product(_: int) -> None:
                    for _ in range(repeats):
                        a @ b

                list(pool.map(product, range(threads)))

            work()
            count, wall, cpu = timed(work, seconds / len(SHAPES))
            done = count * threads * repeats * 2 * m * n * k / 1e9
            best = (max(best[0], done / wall), max(best[1], done / cpu))
    return best


def products(batch: int, length: int, features: int, hidden: int, layers: int) -> list[tuple[int, int, int, int]]:
    """Return the matrix products of a step as (m, n, k, how often): input and recurrent ones, forward and backward."""
    rows, gates, out = batch * length, 4 * hidden, []
    for size in [features] + [2 * hidden] * (layers - 1):
        out += [(rows, gates, size, 2), (batch, gates, hidden, 2 * length)]
        out += [(rows, size, gates, 2), (batch, hidden, gates, 2 * length)]
        out += [(size, gates, rows, 2), (hidden, gates, rows, 2)]
    return out


def products_rate(
    shapes: list[tuple[int, int, int, int]], dtype: Any, batch: int, threads: int, seconds: float
) -> tuple[float, float]:
    """Return windows a second, by the wall clock and by CPU time, of steps that are matrix products alone."""
    import torch

    work = [(torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype), times) for m, n, k, times in shapes]

    def step(_: int) -> None:
        for a, b, times in work:
            out = torch.empty(len(a), b.shape[1], dtype=a.dtype)
            for _ in range(times):
                torch.mm(a, b, out=out)

    with ThreadPoolExecutor(threads, initializer=lambda: torch.set_num_threads(1)) as pool:
        list(pool.map(step, range(threads)))
        count, wall, cpu = timed(lambda: list(pool.map(step, range(threads))), seconds)
    return count * threads * batch / wall, count * threads * batch / cpu


def make_trainer(arguments: argparse.Namespace, cores: int) -> Any:
    import torch

    from moola_mlflow.core import read_preset
    from moola_mlflow.training.setup import build_trainer, prepare

    overrides = {"bars.sample_bars": arguments.bars, "encoder.hidden": arguments.hidden, "runtime.shards": cores}
    config = make_config(PretrainKeys, read_preset(ROOT / "configs" / "stones.yaml"), overrides)
    device = torch.device("cpu")
    return build_trainer(config, prepare(config, device), runtime.pick_precision("auto", device))


def step_rates(trainer: Any, seconds: float) -> tuple[float, float]:
    """Return windows a second of whole steps, features included: by the wall clock and by CPU time."""
    size = trainer.settings.trainer.batch_size
    trainer.model.train()

    def steps() -> Any:
        while True:
            for batch in trainer.source.batches(trainer.split.train, size):
                if len(batch.index) == size:
                    trainer._step(batch)
                    trainer._update()
                    yield

    each = steps()
    for _ in range(3):
        next(each)
    count, wall, cpu = timed(lambda: next(each), seconds)
    return count * size / wall, count * size / cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--bars", type=int, default=60_000)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--smoke", action="store_true", help="the smallest run of everything: no figures to quote")
    parser.add_argument("--out", type=Path, default=RESULTS / "roofline.json")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.rounds, arguments.seconds, arguments.bars = 1, 0.4, 12_000
    runtime.prepare_environment()
    runtime.tune_allocator()
    runtime.set_threads()
    import torch

    rows: dict[int, list[dict[str, float]]] = {}
    trainers = {cores: make_trainer(arguments, cores) for cores in sorted({1, min(2, runtime.usable_cores())})}
    windows, batch_size = trainers[1].source.windows, trainers[1].settings.trainer.batch_size
    precision = trainers[1].settings.precision
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    flops = flops_a_window(windows.length, len(trainers[1].source.names), arguments.hidden, 2) / 1e9
    for _ in range(arguments.rounds):
        for cores, trainer in trainers.items():
            peak_wall, peak_cpu = gemm_rates(dtype, cores, arguments.seconds)
            windows_wall, windows_cpu = step_rates(trainer, arguments.seconds)
            part = batch_size // cores
            shapes = products(part, windows.length, len(trainer.source.names), arguments.hidden, 2)
            alone_wall, alone_cpu = products_rate(shapes, dtype, part, cores, arguments.seconds)
            row = {
                "products_windows_per_s": alone_wall,
                "products_windows_per_cpu_s": alone_cpu,
                "share_of_products": windows_wall / alone_wall,
                "share_of_products_cpu_time": windows_cpu / alone_cpu,
                "peak_gflops": peak_wall, "peak_gflops_per_cpu_s": peak_cpu,
                "windows_per_s": windows_wall, "windows_per_cpu_s": windows_cpu,
                "share": windows_wall * flops / peak_wall, "share_of_cpu_time": windows_cpu * flops / peak_cpu,
                "load": os.getloadavg()[0],
            }  # fmt: skip
            rows.setdefault(cores, []).append(row)
    for trainer in trainers.values():
        trainer.engine.close()
    print(f"{flops:.3f} GFLOP a window; {precision}; medians (smallest to largest)\n")
    print("| cores | " + " | ".join(COLUMNS) + " |\n|" + "---|" * (len(COLUMNS) + 1))
    for cores, runs in rows.items():
        cells = []
        for key in COLUMNS.values():
            form = ".0%" if key.startswith("share") else ".0f"
            values = [run[key] for run in runs]
            cells.append(f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})")
        print(f"| {cores} | " + " | ".join(cells) + " |")
    about = {"cores": runtime.usable_cores(), "smoke": arguments.smoke, "gflop": flops, "precision": precision}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"machine": machine(), "about": about, "runs": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
