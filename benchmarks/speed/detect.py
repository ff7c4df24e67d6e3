"""What a scan costs; what its hits are worth is asked by `benchmarks.science.detect_worth`.

    python -m benchmarks.speed.detect speed [--out benchmarks/results/detect_speed.json]

`speed` scans with a detector of the default size and random weights, beside the windows a second that the
encoder's multiplications alone would take in bf16 and in fp32, and beside the machine's bf16 GEMM peak, as `roofline`
has it: a detector's products are its encoder's and its head's.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.speed.roofline import encoder_flops, gemm_rates
from benchmarks.synthetic_months import machine
from moola_mlflow.bars.reader import read_bars
from moola_mlflow.bars.sample import generate_bars
from moola_mlflow.core import BarsConfig, PretrainKeys, make_config, runtime
from moola_mlflow.labels.surge_rule import CLASSES
from moola_mlflow.models.detecting import detect_options
from moola_mlflow.models.detector import PatternDetector, detector_inputs, num_inputs
from moola_mlflow.models.encoders import build_encoder
from moola_mlflow.models.files.encoder import describe_encoder
from moola_mlflow.models.heads import HIDDEN as HEAD
from moola_mlflow.models.heads import KERNEL, Detector
from moola_mlflow.models.scanning import scan

RESULTS = Path(__file__).resolve().parents[1] / "results"
NUM_WINDOWS = 1024
PEAK_S = 4.0
"""Seconds in which the GEMM peak is looked for."""
STEPS, HIDDEN, FEATURES = 105, 128, 11
ONE_BY_ONE, LIMIT_MS = 200, 50
WITHOUT = "detector without an encoder"


def full_size() -> PatternDetector:
    """Return a detector of the default size with random weights."""
    torch.manual_seed(0)
    config = make_config(PretrainKeys, {}, {})
    encoder = build_encoder("bilstm", FEATURES, HIDDEN, 2, 0.1)
    encoder.card = describe_encoder(config, encoder)
    head = Detector("span", num_inputs(encoder, "both"), 2, (5, 12))
    ohlc = generate_bars(105 * 20, 9)[["open", "high", "low", "close"]].to_numpy(np.float64).reshape(20, 105, 4)
    head.fit_scaling(detector_inputs(encoder, "both", ohlc))
    return PatternDetector(head.eval(), encoder.eval(), "both", CLASSES, 1.3, {"model_id": "random"})


def fastest(do: Callable[[], object], times: int = 5) -> float:
    """Return the least CPU-seconds of several goes: on a shared machine the others measure the neighbours."""
    took = []
    for _ in range(times + 1):
        started = time.process_time()
        do()
        took.append(time.process_time() - started)
    return min(took[1:])


def wall(do: Callable[[], object]) -> float:
    """Return the seconds that something takes."""
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


@torch.inference_mode()
def gemm_only(dtype: torch.dtype, batch: int = 512) -> float:
    """Return the windows a second of the encoder's matrix products alone."""
    seconds = 0.0
    for width in (FEATURES, 2 * HIDDEN):
        x, w = torch.randn(batch * STEPS, width, dtype=dtype), torch.randn(4 * HIDDEN, width, dtype=dtype)
        h, u = torch.randn(batch, HIDDEN, dtype=dtype), torch.randn(4 * HIDDEN, HIDDEN, dtype=dtype)
        seconds += 2 * fastest(lambda x=x, w=w: torch.nn.functional.linear(x, w))  # type: ignore[misc]
        seconds += 2 * fastest(lambda h=h, u=u: [torch.nn.functional.linear(h, u) for _ in range(STEPS)])  # type: ignore[misc]
    return batch / seconds


def speed(out: Path) -> None:
    runtime.tune_allocator()
    threads = runtime.set_threads()
    detector = full_size()
    ohlc = generate_bars(105 * NUM_WINDOWS, 3)[["open", "high", "low", "close"]].to_numpy(np.float64)
    ohlc = ohlc.reshape(NUM_WINDOWS, 105, 4)
    path = PatternDetector(Detector("span", 56, 2, (5, 12)).eval(), None, "price_path", CLASSES, 1.3, {})
    options = detect_options({})
    bars = read_bars(BarsConfig(sample_bars=20_000, sample_seed=3))
    rates = {
        "detector": NUM_WINDOWS / fastest(lambda: detector.predict(ohlc)),
        "detector, runtime.precision=bf16": NUM_WINDOWS / fastest(lambda: detector.predict(ohlc, "bf16")),
        WITHOUT: NUM_WINDOWS / fastest(lambda: path.predict(ohlc)),
        "encoder alone": NUM_WINDOWS / fastest(lambda: detector_inputs(detector.encoder, "encoding", ohlc)),
        "encoder alone, bf16": NUM_WINDOWS
        / fastest(lambda: detector_inputs(detector.encoder, "encoding", ohlc, precision="bf16")),
        "products alone, fp32": gemm_only(torch.float32),
        "products alone, bf16": gemm_only(torch.bfloat16),
    }
    bars_per_second = len(bars) / fastest(lambda: scan(bars, detector, options), 2)
    encoder, peak = encoder_flops(STEPS, FEATURES, HIDDEN, 2) / 1e9, gemm_rates(threads, PEAK_S)[1]
    head = 2 * STEPS * HEAD * (num_inputs(detector.encoder, "both") + KERNEL * HEAD) / 1e9
    gflop = {name: encoder + head * name.startswith("detector") for name in rates if name != WITHOUT}
    shares = {name: rates[name] * gflop[name] / peak for name in gflop}
    print(
        f"{threads} thread; {encoder:.3f} GFLOP of the encoder's products a window, {head:.3f} of the head's; bf16 "
        f"GEMM peak {peak:,.0f} GFLOP a CPU-second\n| | windows a CPU-second | share of the encoder's products alone, "
        "bf16 | of the GEMM peak |\n|---|---|---|---|"
    )
    for name, rate in rates.items():
        alone = f"{rate / rates['products alone, bf16']:.0%} | {shares[name]:.1%}" if name in shares else " |"
        print(f"| {name} | {rate:,.0f} | {alone} |")
    print(f"\nscan, a window every {options.stride} bars: {bars_per_second:,.0f} bars a CPU-second")
    one_ms = [1e3 * wall(lambda: detector.predict(ohlc[:1])) for _ in range(ONE_BY_ONE)]
    one = {"median": float(np.median(one_ms)), "99 %": float(np.quantile(one_ms, 0.99))}
    print(f"one window alone: {one['median']:.1f} ms (99 %: {one['99 %']:.1f}; asked: {LIMIT_MS})")
    result = {
        "machine": machine(), "threads": threads, "windows_per_cpu_second": rates, "peak_gflops_per_cpu_s": peak,
        "share_of_peak": shares, "bars_per_cpu_second": bars_per_second,
        "one_window_ms": one,
    }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked = parser.add_subparsers(dest="what", required=True)
    asked.add_parser("speed").add_argument("--out", type=Path, default=RESULTS / "detect_speed.json")
    arguments = parser.parse_args()
    runtime.prepare_environment()
    speed(arguments.out)


if __name__ == "__main__":
    main()
