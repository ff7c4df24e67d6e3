"""How close are the embedded sample bars to real ones? Prints a Markdown table: sample (mean ± spread), real.

    python -m benchmarks.science.realism [--bars FILE] [--seeds 1 2 3] [--num-bars N] [--json OUT]

Every figure is computed inside segments only: a gap of more than five minutes or a change of instrument ends one.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moola_mlflow.bars.sample import TICK, generate_bars

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "es_front_1min.parquet"
LAGS = (1, 5, 20, 60, 120)
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
WINDOW, STRIDE = 105, 21  # five phases of the non-overlapping grid: less noise from the one real file
SURGE_BARS = range(5, 13)
LEAD, WAIT = 20, 20  # bars a window must hold before the surge and after it
MIN_STRENGTH, MIN_EFFICIENCY = 1.8, 0.35

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Bars(NamedTuple):
    """Prices in ticks, the number of each bar's segment, and the minute of the day in New York."""

    ohlc: Floats  # [N, 4]
    segment: Ints  # [N]
    minute: Ints  # [N]


def to_bars(frame: pd.DataFrame) -> Bars:
    """Convert a Databento-style frame to ticks and number its segments."""
    index = pd.DatetimeIndex(frame.index)
    gap = np.diff(index.as_unit("ns").asi8) > 5 * 60_000_000_000
    roll = np.diff(frame["instrument_id"].to_numpy(np.int64)) != 0
    local = index.tz_convert("America/New_York")
    return Bars(
        ohlc=frame[["open", "high", "low", "close"]].to_numpy(np.float64) / TICK,
        segment=np.concatenate([[0], np.cumsum(gap | roll)]).astype(np.int64),
        minute=np.asarray(local.hour * 60 + local.minute, dtype=np.int64),
    )


def lagged_correlation(x: Floats, segment: Ints, lag: int) -> float:
    """Autocorrelation over the pairs that share a segment."""
    same = segment[lag:] == segment[:-lag]
    return float(np.corrcoef(x[lag:][same], x[:-lag][same])[0, 1])


def kurtosis(x: Floats) -> float:
    """Fourth standardised moment: 3 for a normal law."""
    z = x - x.mean()
    return float((z**4).mean() / (z**2).mean() ** 2)


def windows(bars: Bars, length: int, stride: int) -> Floats:
    """Windows [W, length, 4] of contiguous bars, counted from each segment's first bar."""
    first = np.flatnonzero(np.diff(bars.segment, prepend=-1))
    last = np.append(first[1:], len(bars.segment))
    starts = np.concatenate([np.arange(a, b - length + 1, stride) for a, b in zip(first, last, strict=True)])
    return bars.ohlc[starts[:, None] + np.arange(length)]


def weak_labels(ohlc: Floats) -> NDArray[np.str_]:
    """Label windows [W, 105, 4] by the rule of SPEC 6: 'retracement', 'consolidation', 'continuation' or 'none'.

    'continuation' (the far side was touched first) and 'none' (no surge) carry no label; they are counted apart.
    """
    o, h, low, c = np.moveaxis(ohlc, 2, 0)
    previous = np.concatenate([o[:, :1], c[:, :-1]], axis=1)
    true_range = np.maximum(h, previous) - np.minimum(low, previous)
    true_range[:, 0] = h[:, 0] - low[:, 0]
    median = np.median(true_range, axis=1)
    total = np.pad(np.cumsum(true_range, axis=1), ((0, 0), (1, 0)))

    best = np.zeros(len(o))
    start = np.zeros(len(o), dtype=np.int64)
    length = np.zeros(len(o), dtype=np.int64)
    for n in SURGE_BARS:
        s = np.arange(LEAD, WINDOW - WAIT - n + 1)
        net = np.abs(c[:, s + n - 1] - o[:, s])
        with np.errstate(divide="ignore", invalid="ignore"):
            strength = np.where(median[:, None] > 0, net / (median[:, None] * np.sqrt(n)), 0.0)
            efficiency = net / (total[:, s + n] - total[:, s])
        strength[~((strength >= MIN_STRENGTH) & (efficiency >= MIN_EFFICIENCY))] = 0.0
        at = strength.argmax(axis=1)
        top = strength[np.arange(len(o)), at]
        better = top > best
        best[better], start[better], length[better] = top[better], s[at[better]], n

    result = np.full(len(o), "none", dtype="<U13")
    for w in np.flatnonzero(best > 0):
        leg = slice(start[w], start[w] + length[w])
        after = slice(leg.stop, leg.stop + WAIT)
        top, bottom = h[w, leg].max(), low[w, leg].min()
        half = (top - bottom) / 2
        if c[w, leg.stop - 1] > o[w, leg.start]:
            back, on = low[w, after] <= top - half, h[w, after] >= top + half
        else:
            back, on = h[w, after] >= bottom + half, low[w, after] <= bottom - half
        first_back = int(back.argmax()) if back.any() else WAIT
        first_on = int(on.argmax()) if on.any() else WAIT
        if first_back == first_on == WAIT:
            result[w] = "consolidation"
        else:
            result[w] = "retracement" if first_back <= first_on else "continuation"
    return result


def predictability(bars: Bars, past: int = 20, ahead: int = 20) -> tuple[float, float]:
    """R2 of the next 20 bars' net move on the past 20 bars' returns: in the sample, and on its last 30 %.

    Both sides are divided by the mean range of the past 20 bars, so that loud days do not decide.
    """
    close = windows(bars, past + ahead + 1, 1)
    span = close[:, 1 : past + 1, 1] - close[:, 1 : past + 1, 2]
    scale = np.maximum(span.mean(axis=1, keepdims=True), 0.25)
    price = close[:, :, 3]
    x = np.diff(price[:, : past + 1], axis=1) / scale
    y = (price[:, -1] - price[:, past]) / scale[:, 0]
    x = np.column_stack([np.ones(len(x)), x])
    cut = int(0.7 * len(x))

    def r2(fit: slice, score: slice) -> float:
        beta = np.linalg.lstsq(x[fit], y[fit], rcond=None)[0]
        rest = y[score] - x[score] @ beta
        return float(1 - (rest**2).sum() / ((y[score] - y[fit].mean()) ** 2).sum())

    return r2(slice(None), slice(None)), r2(slice(cut), slice(cut, None))


def measure(frame: pd.DataFrame) -> dict[str, float]:
    """Return the table's column for one series of bars, rows in print order."""
    bars = to_bars(frame)
    o, h, low, c = bars.ohlc.T
    span = h - low
    inside = np.diff(bars.segment) == 0
    change = np.diff(c)
    gap = np.abs(o[1:] - c[:-1])[inside]
    pair_segment = np.where(inside, bars.segment[1:], -1 - np.arange(len(change)))  # a pair over a gap matches nothing
    pair_half_hour = bars.minute[1:] // 30
    profile = pd.Series(np.abs(change[inside])).groupby(pair_half_hour[inside]).mean().reindex(range(48)).to_numpy()
    night = (bars.minute >= 18 * 60) | (bars.minute < 3 * 60)
    day = (bars.minute >= 9 * 60 + 30) & (bars.minute < 16 * 60)
    half_hour = pd.Series(span).groupby(bars.minute // 30).mean()

    row: dict[str, float] = {"bars": len(span), "segments": int(bars.segment[-1]) + 1}
    row |= {"range, mean (ticks)": span.mean(), "range, median (ticks)": float(np.median(span))}
    for ticks in range(1, 6):
        row[f"share of bars with a range of {ticks} tick{'s' * (ticks > 1)}"] = (np.rint(span) == ticks).mean()
    for q in QUANTILES:
        row[f"range / median range, quantile {q}"] = float(np.quantile(span, q) / np.median(span))
    row["share zero-range"] = (span == 0).mean()
    row["share zero-range, 18:00-03:00"] = (span[night] == 0).mean()
    row["share zero-range, 09:30-16:00"] = (span[day] == 0).mean()
    row["range 09:30-10:00 / day's mean"] = half_hour[19] / span.mean()
    row["range 12:00-13:30 / day's mean"] = half_hour[24:27].mean() / span.mean()
    row["range 20:00-24:00 / day's mean"] = half_hour[40:48].mean() / span.mean()
    for lag in LAGS:
        row[f"autocorrelation of absolute return, lag {lag}"] = lagged_correlation(np.abs(change), pair_segment, lag)
    for lag in LAGS:
        row[f"autocorrelation of log range, lag {lag}"] = lagged_correlation(np.log1p(span), bars.segment, lag)
    row["autocorrelation of return, lag 1"] = lagged_correlation(change, pair_segment, 1)
    row["kurtosis of return"] = kurtosis(change[inside])
    row["kurtosis of return / half-hour profile"] = kurtosis((change / profile[pair_half_hour])[inside])
    row["mean absolute return / mean range"] = np.abs(change[inside]).mean() / span.mean()
    row["mean body / range (range > 0)"] = (np.abs(c - o)[span > 0] / span[span > 0]).mean()
    row["share open = previous close"] = (gap == 0).mean()
    row["distance of open from previous close, mean (ticks)"] = gap.mean()
    row["distance of open from previous close, quantile 0.99 (ticks)"] = float(np.quantile(gap, 0.99))
    found = weak_labels(windows(bars, WINDOW, STRIDE))
    per_10k = 1e4 / len(span) * STRIDE / WINDOW
    labelled = np.isin(found, ["retracement", "consolidation"])
    row["weak labels / 10,000 bars"] = labelled.sum() * per_10k
    row["windows with a surge, no label / 10,000 bars"] = (found == "continuation").sum() * per_10k
    row["share retracement among labels"] = (found == "retracement").sum() / labelled.sum()
    in_sample, held_out = predictability(bars)
    row["R2, past 20 returns to next 20 bars' move"] = in_sample
    row["the same, fitted on 70 %, scored on the rest"] = held_out
    return {name: float(value) for name, value in row.items()}


def table(columns: dict[str, dict[str, float]], spread: dict[str, float]) -> str:
    """Format measured columns as Markdown; the first one carries its spread over seeds."""
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for name in next(iter(columns.values())):
        cells = []
        for i, column in enumerate(columns.values()):
            digits = 0 if name in ("bars", "segments") else 3 if abs(column[name]) < 1 else 2
            cell = f"{column[name]:,.{digits}f}"
            cells.append(f"{cell} ± {spread[name]:,.{digits}f}" if i == 0 and digits else cell)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure the sample over seeds and, where the file is there, the real bars; print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bars", type=Path, default=REAL, help="real bars, parquet in Databento layout")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--num-bars", type=int, default=200_000)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()

    runs = {seed: measure(generate_bars(args.num_bars, seed)) for seed in args.seeds}
    names = list(next(iter(runs.values())))
    mean = {name: statistics.fmean(run[name] for run in runs.values()) for name in names}
    spread = {name: statistics.pstdev([run[name] for run in runs.values()]) for name in names}
    columns = {f"sample, {len(runs)} seeds": mean}
    if args.bars.exists():
        columns[args.bars.stem] = measure(pd.read_parquet(args.bars))
    else:
        print(f"no file '{args.bars}': the sample's column alone; name real bars with --bars FILE\n")
    print(table(columns, spread))
    if args.json:
        figures = {"sample": {str(seed): run for seed, run in runs.items()}, "mean": mean, "spread": spread}
        args.json.write_text(json.dumps(figures | {"real": columns.get(args.bars.stem)}, indent=2) + "\n")


if __name__ == "__main__":
    main()
