"""The feature pass in bars a second, beside a pandas loop with iloc and a plain Python loop; and its share of an epoch.

    python -m benchmarks.speed.features [--rounds 5] [--smoke] [--out benchmarks/results/features.json]

The plain loop is the tests' reference implementation, a bar and a float at a time: twelve features, ours makes eleven.
The pandas loop walks the same zigzag and candles in three passes and reads a bar with `iloc` once in each, so three
calls of `iloc` a bar; it leaves the swing features out, so its ratio is a lower bound for such a loop. One that reads
every price with an `iloc` of its own would be slower, one over columns as arrays faster. The epoch is one of the
default size.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd

from benchmarks.synthetic_months import machine
from benchmarks.table import spread
from moola_mlflow.bars.reader import read_bars
from moola_mlflow.core import BarsConfig, PretrainKeys, make_config
from moola_mlflow.features.relativity import compute_features
from moola_mlflow.windows.windows import make_windows

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
ALPHA = 2 / 21
PRICES = ("open", "high", "low", "close")
ILOC_A_BAR = 3
"""Calls of ``iloc`` a bar: one in each of the passes for average ranges, zigzag and candles."""


class Cells:
    """A table whose bars are read with ``row = frame.iloc[i]`` where they are needed, as scripts often do."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame

    def __len__(self) -> int:
        return len(self.frame)

    def __getitem__(self, i: int) -> tuple[float, ...]:
        if i >= len(self.frame):
            raise IndexError(i)
        row = self.frame.iloc[i]
        return tuple(row[name] for name in PRICES)


def with_iloc(frame: pd.DataFrame, reference: ModuleType) -> list[tuple[float, ...]]:
    """Compute average ranges, zigzag and candles in three passes over one window, as the reference does."""
    bars = Cells(frame)
    states = list(reference.zigzag(bars, reference.average_true_ranges(bars), 0, 0.5, False))
    out, average = [], None
    for t in range(len(bars)):
        o, h, low, c = bars[t]
        span = h - low
        average = span if average is None else (1 - ALPHA) * average + ALPHA * span
        whole = span or np.inf
        out.append(((o - low) / whole, (c - low) / whole, (c - o) / whole, span / (average or np.inf), states[t][0]))
    return out


def load_reference() -> ModuleType:
    """Return the tests' reference implementation of the features."""
    path = ROOT / "tests" / "helpers" / "reference_relativity.py"
    spec = importlib.util.spec_from_file_location("reference_relativity", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rate(work: Callable[[], object], num_bars: int, rounds: int) -> list[float]:
    """Return bars a CPU-second of each round."""
    rates = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        rates.append(num_bars / max(time.process_time() - started, 1e-9))
    return rates


def epoch_share(num_bars: int, rounds: int) -> list[float]:
    """Return the share of an epoch's CPU time that gathering, features and jitter take, at the default network."""
    import torch

    from moola_mlflow.core import runtime
    from moola_mlflow.training import setup
    from moola_mlflow.training.setup import build_model

    runtime.tune_allocator()
    torch.set_num_threads(1)
    config = make_config(PretrainKeys, {}, {})
    source = setup.batch_source(make_windows(read_bars(BarsConfig(sample_bars=num_bars))), config, torch.device("cpu"))
    model = build_model(config, source, torch.zeros(len(source.names)), torch.ones(len(source.names)))
    optimizer, draws = torch.optim.AdamW(model.parameters()), torch.Generator().manual_seed(0)
    order, shares = np.arange(len(source.windows)), []
    precision = runtime.pick_precision("auto", torch.device("cpu"))
    for _ in range(rounds):
        t0 = time.process_time()
        for batch in source.batches(order, 64):
            model.objective.jittered(batch.x_BTF, config.objective.jitter_sigma, draws)
        t1 = time.process_time()
        for batch in source.batches(order, 64):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                errors = model.objective(model.encoder, batch, draws)
            optimizer.zero_grad(set_to_none=True)
            model.objective.loss(errors).backward()
            optimizer.step()
        shares.append((t1 - t0) / (time.process_time() - t1))
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="small and once")
    parser.add_argument("--out", type=Path, default=RESULTS / "features.json")
    arguments = parser.parse_args()
    rounds = 1 if arguments.smoke else arguments.rounds
    windows = make_windows(read_bars(BarsConfig(sample_bars=12_000 if arguments.smoke else 200_000)))
    ohlc = windows.gather(np.arange(len(windows)))
    few = [pd.DataFrame(w, columns=list(PRICES)) for w in ohlc[: 2 if arguments.smoke else 20]]
    many = ohlc[: 20 if arguments.smoke else 500]
    reference = load_reference()
    rates = {
        "ours": rate(lambda: compute_features(ohlc), ohlc.shape[0] * ohlc.shape[1], rounds),
        "plain Python loop": rate(lambda: [reference.reference_features(w) for w in many], many[..., 0].size, rounds),
        "pandas loop with iloc": rate(lambda: [with_iloc(w, reference) for w in few], len(few) * len(few[0]), rounds),
    }
    shares = epoch_share(8_000 if arguments.smoke else 100_000, rounds)
    ours = statistics.median(rates["ours"])
    print("| way | bars a CPU-second, median (min to max) | ours is |\n|---|---|---|")
    for name, values in rates.items():
        middle = statistics.median(values)
        read = f", {ILOC_A_BAR} calls of it a bar" if "iloc" in name else ""
        print(f"| {name}{read} | {spread(values, ',.0f')} | {ours / middle:,.0f} times |")
    print(f"gathering, features and jitter: {spread(shares, '.2%')} of an epoch's CPU time")
    result = {
        "machine": machine(), "smoke": arguments.smoke, "bars_per_cpu_second": rates, "iloc_a_bar": ILOC_A_BAR,
        "share_of_epoch": shares,
    }  # fmt: skip
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
