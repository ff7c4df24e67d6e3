"""How often the zigzag flips on real bars, under each rule, and how long a window takes to know its swings.

    python -m benchmarks.science.flip_rates [--bars FILE]

FILE is a parquet in Databento's layout; the default is the ES sample beside the project. Prints three tables (flip
rates, warm-up, speed) as docs/reference/features.md shows them.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.synthetic_months import machine
from benchmarks.table import machine_line
from moola_mlflow.features.relativity import compute_features, compute_swings
from moola_mlflow.features.zigzag import Hybrid, Swings

WINDOW, STRIDE, WARMUP = 105, 52, 20
RULES = {
    "primary rule alone (default)": Hybrid(),
    "hybrid, later bar only": Hybrid(lookback=5, min_retrace=0.5, same_bar=False),
    "hybrid, same bar too (published)": Hybrid(lookback=5, min_retrace=0.5, same_bar=True),
}


def read_windows(path: str, length: int) -> np.ndarray:
    """Return windows of a length, none across a gap above five minutes or a change of instrument.

    Shapes: float64 [N, length, 4].
    """
    bars = pd.read_parquet(path)
    gap = bars.index.to_series().diff() > pd.Timedelta("5min")
    segment = (gap | (bars["instrument_id"].diff() != 0)).cumsum().to_numpy()
    windows = [np.empty((0, length, 4))]
    for _, part in bars.groupby(segment):
        ohlc = part[["open", "high", "low", "close"]].to_numpy(np.float64)
        windows += [ohlc[None, s : s + length] for s in range(0, len(ohlc) - length + 1, STRIDE)]
    return np.concatenate(windows)


def flip_table(ohlc_NT4: np.ndarray) -> list[str]:
    lines = [
        "| rule | the leg flips on | mean bars since swing high | since swing low |",
        "|---|---|---|---|",
    ]
    for name, hybrid in RULES.items():
        swings = compute_swings(ohlc_NT4, hybrid)
        since = [_mean_bars_since(t_swing) for t_swing in (swings.t_sh, swings.t_sl)]
        flips = swings.flip[:, WARMUP:].mean()
        lines.append(f"| {name} | {flips:.1%} of bars | {since[0]:.1f} | {since[1]:.1f} |")
    return lines


def _mean_bars_since(t_swing_NT: np.ndarray) -> float:
    since = np.arange(t_swing_NT.shape[1]) - t_swing_NT
    return float(since[:, WARMUP:][t_swing_NT[:, WARMUP:] >= 0].mean())


def warmup_table(ohlc_NT4: np.ndarray, history: int) -> list[str]:
    """Compare each window's swings with those of a walk that began ``history`` bars earlier."""
    long, fresh = compute_swings(ohlc_NT4), compute_swings(ohlc_NT4[:, history:])
    lines = [
        "| step | the leg differs | the leg or a swing differs |",
        "|---|---|---|",
    ]
    for step in (5, 10, 15, 20, 30, 40, 60):
        leg = long.leg[:, history + step] != fresh.leg[:, step]
        lines.append(f"| {step} | {leg.mean():.1%} | {(leg | _swing_differs(long, fresh, history, step)).mean():.1%} |")
    return lines


def _swing_differs(long: Swings, fresh: Swings, history: int, step: int) -> np.ndarray:
    late, early = history + step, step
    # A fresh walk that has no swing yet says bar -1, which no walk with a history says for a bar inside the window.
    other_high = long.t_sh[:, late] - history != fresh.t_sh[:, early]
    other_low = long.t_sl[:, late] - history != fresh.t_sl[:, early]
    return other_high | other_low


def speed(ohlc_NT4: np.ndarray, num_windows: int = 20_000) -> float:
    """Return the best of five rates, in bars a second."""
    ohlc_NT4 = np.resize(ohlc_NT4, (num_windows, *ohlc_NT4.shape[1:]))
    best = np.inf
    for _ in range(5):
        start = time.perf_counter()
        compute_features(ohlc_NT4)
        best = min(best, time.perf_counter() - start)
    return num_windows * ohlc_NT4.shape[1] / best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bars", default="../shared/data/es_front_1min.parquet", help="parquet in Databento's layout")
    path = parser.parse_args().bars
    if not Path(path).is_file():
        print(f"no file '{path}': name one-minute bars with --bars FILE")
        return
    ohlc = read_windows(path, WINDOW)
    print(f"{len(ohlc)} windows of {WINDOW} bars, steps from {WARMUP} on\n")
    print("\n".join(flip_table(ohlc)))
    with_history = read_windows(path, 2 * WINDOW)
    print(f"\n{len(with_history)} windows with {WINDOW} bars of history before them, primary rule\n")
    print("\n".join(warmup_table(with_history, WINDOW)))
    print(f"\nrelativity11: {speed(ohlc) / 1e6:.1f} million bars a second on one core ({machine_line(machine())})")


if __name__ == "__main__":
    main()
