"""The docs' table of speed, from the results that the benchmarks have left.

    python -m benchmarks.table [--results benchmarks/results]

A benchmark without a result has no row, nor has one that was run at its smallest size. Medians (smallest to largest).
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
VERSIONS = ("python", "torch", "numpy", "pyarrow", "mlflow", "optuna")
PICTURED_EVERY = 5
"""Epochs from one with pictures to the next, as ``tracking.figures_every`` has it; the last has some too."""
Rows = Iterable[tuple[str, str]]


def spread(values: Sequence[float], form: str) -> str:
    """Return the median and, of several values, the smallest and the largest."""
    middle = f"{statistics.median(values):{form}}"
    return f"{middle} ({min(values):{form}} to {max(values):{form}})" if len(values) > 1 else middle


def ratios(ours: Sequence[float], others: Sequence[float]) -> list[float]:
    """Return the ratio within each round."""
    return [a / b for a, b in zip(ours, others, strict=True)]


def peers(result: dict[str, Any]) -> Rows:
    yield from _peers(result, "")
    for hidden, other in result.get("sizes", {}).items():
        if not other["about"].get("smoke"):
            yield from _peers(other, f", hidden {hidden}")


def _peers(result: dict[str, Any], size: str) -> Rows:
    runs = {name: {key: [run[key] for run in rounds] for key in rounds[0]} for name, rounds in result["runs"].items()}
    ours = runs.pop("moola", None)
    for name, other in runs.items() if ours else ():
        for key, what in (("whole", "whole process"), ("steady", "after the first epoch")):
            yield f"windows/s against {name}{size}, {what}", f"{spread(ratios(ours[key], other[key]), '.2f')} times"
        less = [ratio - 1 for ratio in ratios(ours["val_huber"], other["val_huber"])]
        yield f"validation Huber, ours less that of {name}{size}", spread(less, "+.2%")


def step_share(result: dict[str, Any]) -> Rows:
    for name, runs in result["runs"].items():
        what = f"training step, {name}: CPU time outside of the LSTM primitive"
        yield what, spread([run["outside"] for run in runs], ".1%")


def roofline(result: dict[str, Any]) -> Rows:
    for cores, runs in result["runs"].items():
        step = f"training step on {cores} core{'s' * (int(cores) > 1)}"
        for ceiling, wall, cpu in (
            ("the bf16 GEMM peak", "share", "share_of_cpu_time"),
            ("its products' own ceiling", "share_of_products", "share_of_products_cpu_time"),
        ):
            by_wall, by_cpu = (spread([run[key] for run in runs], ".0%") for key in (wall, cpu))
            yield f"{step}, share of {ceiling}", f"{by_wall}; by CPU time {by_cpu}"


def five_years(result: dict[str, Any]) -> Rows:
    what = f"{result['bars']:,} bars, {result['epochs']} epochs, start to registered encoder"
    yield what, f"{result['seconds'] / 60:.1f} minutes, once; peak memory {result['peak_mib']:,} MiB"
    yield "its epochs, windows/s", spread(result["windows_per_second"], ",.0f")


def seconds(result: dict[str, Any]) -> Rows:
    for what, values in result["seconds"].items():
        yield what, f"{spread(values, '.2f')} s"


def features(result: dict[str, Any]) -> Rows:
    rates = dict(result["bars_per_cpu_second"])
    ours = rates.pop("ours")
    yield "feature pass, million bars a CPU-second", spread([rate / 1e6 for rate in ours], ".1f")
    for name, values in rates.items():
        yield f"feature pass against a {name}", f"{spread(ratios(ours, values), ',.0f')} times"
    yield "gathering, features and jitter, share of an epoch", spread(result["share_of_epoch"], ".2%")


def tracking(result: dict[str, Any]) -> Rows:
    for store, shares in result["shares"].items():
        yield (
            f"tracking to {store}, CPU time against an epoch without it",
            f"{spread(shares['difference'], '+.1%')}; counted {spread(shares['counted'], '.1%')}",
        )
        epochs = result["about"]["epochs"]
        pictured = {*range(0, epochs, PICTURED_EVERY), epochs - 1}
        for which, what in ((set(range(epochs)) - pictured, "without pictures"), (pictured, "with pictures")):
            counted = [share for i, share in enumerate(shares["counted"]) if i % epochs in which]
            if counted:
                yield f"tracking to {store}, counted, of epochs {what}", spread(counted, ".2%")


def processes(result: dict[str, Any]) -> Rows:
    yield "2 processes of one thread against 1, windows/s", f"{spread(result['ratios'], '.2f')} times"
    yield "the same, validation Huber, relative difference", spread(result["huber_differences"], "+.1e")


def scale(result: dict[str, Any]) -> Rows:
    for row in result["rows"]:
        for step, what in (("ingest", "from parquet to a store"), ("read", "from a store to features")):
            rate, peak = row["bars"] / row[step]["seconds"] / 1e6, row[step]["peak_mib"]
            yield f"{row['bars']:,} bars {what}", f"{rate:.2f} million bars/s, once; peak memory {peak:,} MiB"
    for name, value in result["slopes"].items():
        yield f"log-log slope over bars, {name.replace('_', ': ')}", f"{value:.2f}"


def newcomer(result: dict[str, Any]) -> Rows:
    downloads = ", with pip's cache" if result["cache"] else ""
    setup = result["seconds"]["make setup"] / 60
    yield (
        f"fresh clone to a trained run's page in a browser{downloads}",
        f"{result['total'] / 60:.1f} minutes, once; {setup:.1f} of them the set-up",
    )


def detect_speed(result: dict[str, Any]) -> Rows:
    for name, rate in result["windows_per_cpu_second"].items():
        share = result["share_of_peak"].get(name)
        of_peak = "" if share is None else f"{share:.1%} of the bf16 GEMM peak, "
        yield f"scan, {name}", f"{of_peak}{rate:,.0f} windows a CPU-second, the fastest of five"
    yield "scan, bars a CPU-second", f"{result['bars_per_cpu_second']:,.0f}, the faster of two"
    one = result["one_window_ms"]
    yield "scan, one window alone, p50 and p99", f"{one['median']:.2f} and {one['99 %']:.2f} ms"


def serving(result: dict[str, Any]) -> Rows:
    for what, row in result["rows"].items():
        failed = f"; {row['failed']} of {row['requests']} failed" if row["failed"] else ""
        # Without a single answer there is no time to tell.
        took = "no answer" if row["p50_ms"] is None else f"{row['p50_ms']:,.2f} and {row['p99_ms']:,.2f} ms"
        yield f"served: {what}, p50 and p99", f"{took}; {row['requests_per_second']} requests/s{failed}"


def events_speed(result: dict[str, Any]) -> Rows:
    for name, what in (
        ("finetune", "finetune of an event detector, 350 windows, 5 folds x 3 repeats, all baselines"),
        ("scan", "detect with an event detector and its encoder, five years of bars"),
    ):
        if rounds := result["rows"].get(name):
            wall, cpu = ([one[key] for one in rounds] for key in ("seconds", "cpu_seconds"))
            yield what, f"{spread(wall, '.0f')} s; {spread(cpu, '.0f')} CPU-seconds"
    if rounds := result["rows"].get("live"):
        each, slowest = ([one[key] for one in rounds] for key in ("of_a_window", "slowest"))
        figures = f"{spread(each, '.1f')} ms CPU, the slowest {spread(slowest, '.1f')}"
        yield "a live bar that completes a window, event detector with its encoder", figures


def annotate_page(result: dict[str, Any]) -> Rows:
    row = result["row"]
    figures = f"{row['p50_ms']:.1f} and {row['p95_ms']:.1f} ms, {row['windows']} windows"
    yield "page of annotate: a decision to the next chart, p50 and p95", figures


def pruning(result: dict[str, Any]) -> Rows:
    for key, what, form in (
        ("saved", "epochs of a sweep that pruning saves", ".1%"),
        ("lost", "best value that a sweep loses by it", "+.1%"),
    ):
        values = [seed[key] for seed in result["seeds"]]
        middle = f"{statistics.fmean(values):{form}} on average"
        yield what, f"{middle} ({min(values):{form}} to {max(values):{form}})"


def ingest(result: dict[str, Any]) -> Rows:
    for row in result["rows"]:
        yield f"{row['way']}, million bars/s", spread([rate / 1e6 for rate in row["bars_per_second"]], ".2f")


def sweep(result: dict[str, Any]) -> Rows:
    for num in dict.fromkeys(row["trials"] for row in result["results"]):
        seconds = [row["cpu_s_a_trial"] for row in result["results"] if row["trials"] == num]
        yield f"a trial of a sweep beside its training, {num} trials, CPU-seconds", spread(seconds, ".3f")


TABLES: dict[str, Callable[[dict[str, Any]], Rows]] = {
    "peers": peers, "roofline": roofline, "step_share": step_share, "five_years": five_years, "startup": seconds,
    "finetune": seconds, "features": features, "ingest": ingest, "tracking": tracking, "processes": processes,
    "scale": scale,
    "sweep": sweep, "pruning": pruning, "detect_speed": detect_speed, "serving": serving,
    "events_speed": events_speed, "annotate_page": annotate_page, "newcomer": newcomer,
}  # fmt: skip
"""Names of results, in the table's order."""


def machine_line(about: dict[str, Any] | str) -> str:
    """Return one machine as text; older results say less of theirs, some its architecture alone."""
    if isinstance(about, str):
        about = {"machine": about}
    cores = f"{about['cores']} cores" if "cores" in about else "cores not recorded"
    versions = [f"{name} {about[name]}" for name in VERSIONS if name in about]
    return ", ".join([about.get("cpu") or about.get("machine") or "processor not recorded", cores, *versions])


def table(folder: Path) -> str:
    """Return the Markdown table of the results in a folder, and below it the machines that its rows name."""
    lines, machines = ["| what | median (smallest to largest) | machine |", "|---|---|---|"], []
    for name, rows_of in TABLES.items():
        path = folder / f"{name}.json"
        result = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if not result or result.get("smoke") or result.get("about", {}).get("smoke"):
            continue
        described = machine_line(result.get("machine") or result.get("about", {}))
        if described not in machines:
            machines.append(described)
        letter = chr(ord("A") + machines.index(described))
        lines += [f"| {what} | {figure.replace('%', ' %')} | {letter} |" for what, figure in rows_of(result)]
    if not machines:
        return f"no results in {folder}: make bench"
    return "\n".join([*lines, "", *(f"- {chr(ord('A') + i)}: {text}" for i, text in enumerate(machines))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    print(table(parser.parse_args().results))


if __name__ == "__main__":
    main()
