"""What a scan costs, and what its hits and probabilities are worth on bars that the detector has not seen.

    python -m benchmarks.detect speed [--out benchmarks/results/detect_speed.json]
    python -m benchmarks.detect worth --detector FOLDER --bars bars.parquet --instrument front

`speed` scans with a detector of the default size and random weights, beside the windows a second that the
multiplications alone would take in bf16 and in fp32, and beside the machine's bf16 GEMM peak, as `roofline` has it: the
products of the encoder count, those of the head do not. `worth` labels the bars by the rule of `moola label` and prints
the calibration error on them, and how many windows pass the thresholds where the rule finds nothing.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.roofline import encoder_flops, gemm_rates
from benchmarks.synthetic_months import machine
from moola_mlflow import runtime
from moola_mlflow.bars import read_bars
from moola_mlflow.calibration import apply_temperature
from moola_mlflow.config import BarsConfig, resolve
from moola_mlflow.detection import PatternDetector, detector_inputs, num_inputs
from moola_mlflow.detector import Detector
from moola_mlflow.detector_files import load_detector_folder
from moola_mlflow.encoder_files import describe
from moola_mlflow.encoders import build_encoder
from moola_mlflow.labelrule import CLASSES, NO_SURGE, apply_rule
from moola_mlflow.labels import find_patterns
from moola_mlflow.metrics import ece, ece_if_calibrated, scores
from moola_mlflow.scan import detect_options, scan
from moola_mlflow.synthetic import generate

RESULTS = Path(__file__).resolve().parent / "results"
NUM_WINDOWS = 1024
PEAK_S = 4.0
"""Seconds in which the GEMM peak is looked for."""
STEPS, HIDDEN, FEATURES = 105, 128, 11


def full_size() -> PatternDetector:
    """Return a detector of the default size with random weights."""
    torch.manual_seed(0)
    config = resolve({}, {})
    encoder = build_encoder("bilstm", FEATURES, HIDDEN, 2, 0.1)
    encoder.card = describe(config, encoder)
    head = Detector("span", num_inputs(encoder, "both"), 2, (5, 12))
    ohlc = generate(105 * 20, 9)[["open", "high", "low", "close"]].to_numpy(np.float64).reshape(20, 105, 4)
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
    ohlc = generate(105 * NUM_WINDOWS, 3)[["open", "high", "low", "close"]].to_numpy(np.float64)
    ohlc = ohlc.reshape(NUM_WINDOWS, 105, 4)
    path = PatternDetector(Detector("span", 56, 2, (5, 12)).eval(), None, "path", CLASSES, 1.3, {})
    options = detect_options({})
    bars = read_bars(BarsConfig(sample_bars=20_000, sample_seed=3))
    rates = {
        "detector": NUM_WINDOWS / fastest(lambda: detector.predict(ohlc)),
        "detector, runtime.precision=bf16": NUM_WINDOWS / fastest(lambda: detector.predict(ohlc, "bf16")),
        "detector without an encoder": NUM_WINDOWS / fastest(lambda: path.predict(ohlc)),
        "encoder alone": NUM_WINDOWS / fastest(lambda: detector_inputs(detector.encoder, "encoding", ohlc)),
        "products alone, fp32": gemm_only(torch.float32),
        "products alone, bf16": gemm_only(torch.bfloat16),
    }
    bars_per_second = len(bars) / fastest(lambda: scan(bars, detector, options), 2)
    gflop, peak = encoder_flops(STEPS, FEATURES, HIDDEN, 2) / 1e9, gemm_rates(threads, PEAK_S)[1]
    shares = {name: rate * gflop / peak for name, rate in rates.items() if name != "detector without an encoder"}
    print(
        f"{threads} thread; {gflop:.3f} GFLOP of the encoder's products a window; bf16 GEMM peak {peak:,.0f} GFLOP a "
        "CPU-second\n| | windows a CPU-second | share of the products alone in bf16 | of the GEMM peak |\n"
        "|---|---|---|---|"
    )
    for name, rate in rates.items():
        alone = f"{rate / rates['products alone, bf16']:.0%} | {shares[name]:.1%}" if name in shares else " |"
        print(f"| {name} | {rate:,.0f} | {alone} |")
    print(f"\nscan, a window every {options.stride} bars: {bars_per_second:,.0f} bars a CPU-second")
    result = {
        "machine": machine(), "threads": threads, "windows_per_cpu_second": rates, "peak_gflops_per_cpu_s": peak,
        "share_of_peak": shares, "bars_per_cpu_second": bars_per_second,
    }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")


def worth(detector: PatternDetector, config: BarsConfig) -> None:
    bars = read_bars(config)
    patterns = find_patterns(bars, 17)
    ohlc, label = patterns.windows.gather(np.arange(len(patterns.label))), patterns.label
    found = detector.predict(ohlc)
    order = [detector.classes.index(name) for name in CLASSES]
    probability = found.probability[:, order]
    span, predicted = np.stack([patterns.start, patterns.end], 1), np.stack([found.start, found.end], 1)
    row = scores(label, probability, predicted, span, CLASSES)
    # What the temperature does: its inverse, applied to the calibrated probabilities, gives the raw ones again.
    raw = apply_temperature(np.log(probability), 1 / detector.temperature)
    print(
        f"{len(label)} windows that the rule labels and that share no bar: F1 {row['f1_macro']:.3f}, "
        f"Joint@3 {row['joint_success_at_3']:.3f}, ECE {ece(label, raw):.3f} before and {ece(label, probability):.3f} "
        f"after temperature {detector.temperature:.2f}; a perfectly calibrated one would show "
        f"{ece_if_calibrated(probability[None]):.3f}"
    )
    scanned = scan(bars, detector, detect_options({}))
    windows = scanned.windows.gather(np.arange(len(scanned.windows)))
    outcome, start, end = apply_rule(windows)
    labelled = outcome < len(CLASSES)
    right = labelled & (np.array([*CLASSES, "", ""])[outcome] == scanned.found.label)
    right &= np.abs(start + end - scanned.found.start - scanned.found.end) <= 6
    above = scanned.above
    print(
        f"{len(above):,} windows, {above.mean():.0%} above the thresholds: {above[labelled].mean():.0%} of those that "
        f"the rule labels, {above[outcome == NO_SURGE].mean():.0%} of those without a surge. Of {len(scanned.kept):,} "
        f"hits {labelled[scanned.kept].mean():.0%} lie in a window that the rule labels, "
        f"{right[scanned.kept].mean():.0%} have its class, and its centre within 3 bars"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked = parser.add_subparsers(dest="what", required=True)
    asked.add_parser("speed").add_argument("--out", type=Path, default=RESULTS / "detect_speed.json")
    valued = asked.add_parser("worth")
    valued.add_argument("--detector", type=Path, required=True)
    valued.add_argument("--bars", default="sample")
    valued.add_argument("--instrument")
    valued.add_argument("--sample_seed", type=int, default=77)
    arguments = parser.parse_args()
    runtime.prepare_environment()
    if arguments.what == "speed":
        speed(arguments.out)
        return
    config = BarsConfig(path=arguments.bars, instrument=arguments.instrument, sample_seed=arguments.sample_seed)
    worth(load_detector_folder(arguments.detector), config)


if __name__ == "__main__":
    main()
