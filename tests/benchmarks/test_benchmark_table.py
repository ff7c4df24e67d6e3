"""The table of speed is made from whatever results there are, a page quotes it, and results say how they came."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from paths import ROOT

sys.path.insert(0, str(ROOT))

from benchmarks import synthetic_months, table
from benchmarks.speed import features, finetune, scale

PAGE = ROOT / "docs" / "explanation" / "performance.md"
FIVE_YEARS = "1,797,854 bars, 20 epochs, start to registered encoder"
QUOTED: dict[tuple[str, ...], tuple[str, Sequence[tuple[str, int, str]]]] = {
    ("five_years",): ("# minutes, # GiB", [(FIVE_YEARS, 0, "1"), (FIVE_YEARS, 1, "1024")]),
    ("peers",): (
        "# and # times",
        [(f"windows/s against {name}, after the first epoch", 0, "1") for name in ("usual script", "Lightning")],
    ),
    ("roofline",): (
        "# % and # %",
        [(f"training step on {cores}, share of the bf16 GEMM peak", 0, "1") for cores in ("1 core", "2 cores")],
    ),
    ("newcomer",): ("# minutes", [("fresh clone to a trained run's page in a browser", 0, "1")]),
    ("startup",): ("# s; # s", [("pretrain, first step", 0, "1"), ("moola --help", 0, "1")]),
    ("tracking",): (
        "# % and # %",
        [
            (f"tracking to {store}, counted, of epochs {which} pictures", 0, "1")
            for store in ("SQLite", "server")
            for which in ("without", "with")
        ],
    ),
    ("finetune",): ("# s", [("command, 5 folds x 3 repeats, all baselines", 0, "1")]),
    ("detect", "serving"): (
        "# %; # and # ms",
        [
            ("scan, detector, runtime.precision=bf16", 0, "1"),
            *(("served: 1 window, p50 and p99", place, "1") for place in (0, 1)),
        ],
    ),
    ("annotate_page",): (
        "# and # ms",
        [("page of annotate: a decision to the next chart, p50 and p95", place, "1") for place in (0, 1)],
    ),
    ("scale",): (
        "# million/s, # GiB",
        [("100,000,000 bars from parquet to a store", 0, "1"), ("100,000,000 bars from parquet to a store", 1, "1024")],
    ),
    ("pruning",): ("# %", [("epochs of a sweep that pruning saves", 0, "1")]),
}
"""Of each row of the page's table, by the benchmarks that it names: its form, and where each figure is in the table.

A figure is a row of the table, the place among its numbers without those in brackets, and what it is divided by. Where
there are more than the row quotes, what it quotes holds for all of them, in turn.
"""
NUMBER = r"[+-]?\d[\d,]*(?:\.\d+)?"

HERE = {"cpu": "Some CPU", "cores": 2, "machine": "x86_64", "load_at_end": 0.5, "python": "3.11.7", "torch": "2.13.0"}
SHARES = {"share": 0.1, "share_of_cpu_time": 0.12, "share_of_products": 0.7, "share_of_products_cpu_time": 0.8}


def run(whole: float, steady: float, huber: float) -> dict[str, float]:
    return {"whole": whole, "steady": steady, "per_cpu_s": 1.0, "val_huber": huber, "peak_mb": 1.0, "load": 0.0}


RESULTS: dict[str, dict[str, Any]] = {
    # An older one says what it was measured on beside its settings.
    "peers": {
        "about": {"cores": 4, "machine": "x86_64", "torch": "2.13.0", "smoke": False},
        "runs": {
            "usual script": [run(100, 200, 0.2), run(200, 200, 0.2), run(100, 200, 0.2)],
            "moola": [run(400, 600, 0.2), run(600, 600, 0.2), run(500, 600, 0.1)],
        },
    },
    "roofline": {"machine": HERE, "about": {"smoke": False}, "runs": {"1": [SHARES], "2": [SHARES]}},
    "step_share": {
        "machine": HERE, "about": {"smoke": False}, "runs": {"hidden 32, bf16": [{"outside": 0.2}, {"outside": 0.3}]},
    },
    "five_years": {
        "machine": HERE, "bars": 1_797_854, "epochs": 20, "seconds": 600.0, "peak_mib": 1500,
        "windows_per_second": [700.0, 800.0, 750.0],
    },
    "startup": {"machine": HERE, "seconds": {"moola --help": [0.1, 0.3, 0.2], "pretrain, first step": [6.04]}},
    "finetune": {"machine": HERE, "smoke": False, "seconds": {"detector alone": [20.0, 22.0]}},
    "features": {
        "machine": HERE, "smoke": False, "share_of_epoch": [0.005],
        "bars_per_cpu_second": {"ours": [9e6, 8e6], "pandas loop with iloc": [1e4, 2e4]},
    },
    "tracking": {
        "machine": HERE, "about": {"epochs": 3, "smoke": False},
        "shares": {"SQLite": {"difference": [0.01, 0.03, 0.02], "counted": [0.03, 0.001, 0.05]}},
    },
    "processes": {"machine": HERE, "about": {"smoke": False}, "ratios": [1.7], "huber_differences": [-2e-5]},
    "scale": {
        "machine": HERE, "smoke": False, "slopes": {"ingest_time": 1.01},
        "rows": [
            {
                "bars": 1_000_000,
                "ingest": {"seconds": 0.5, "peak_mib": 900},
                "read": {"seconds": 2.0, "peak_mib": 800},
            }
        ],
    },
    "ingest": {"machine": HERE, "rows": [{"way": "one file to parquet", "bars_per_second": [2e6, 3e6, 4e6]}]},
    # Older ones say their machine's architecture alone.
    "sweep": {"machine": "x86_64", "results": [{"trials": 10, "cpu_s_a_trial": value} for value in (0.1, 0.3, 0.2)]},
    "pruning": {"machine": "x86_64", "seeds": [{"saved": 0.4, "lost": 0.0}, {"saved": 0.45, "lost": 0.01}]},
    "detect_speed": {
        "machine": HERE, "windows_per_cpu_second": {"detector": 700.0, "detector without an encoder": 8000.0},
        "share_of_peak": {"detector": 0.39}, "bars_per_cpu_second": 15_000.0,
        "one_window_ms": {"median": 6.4, "99 %": 9.1},
    },
    "serving": {
        "machine": HERE,
        "rows": {
            "1 window": {"requests": 9, "failed": 0, "p50_ms": 24.53, "p99_ms": 28.58, "requests_per_second": 40.6},
            "1,000 windows": {"requests": 9, "failed": 9, "p50_ms": None, "p99_ms": None, "requests_per_second": 0.1},
        },
    },
    "events_speed": {
        "machine": HERE, "smoke": False,
        "rows": {
            "scan": [{"seconds": 80.4, "cpu_seconds": 120.2, "load": 1.0}],
            "live": [{"of_a_window": 12.34, "slowest": 20.0}],
        },
    },
    "annotate_page": {"machine": HERE, "row": {"windows": 200, "p50_ms": 60.2, "p95_ms": 113.6, "largest_ms": 190.0}},
    "newcomer": {
        "machine": HERE, "smoke": False, "cache": False, "seconds": {"git clone": 0.2, "make setup": 84.0},
        "total": 211.0,
    },
}  # fmt: skip


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / f"{name}.json").write_text(json.dumps(RESULTS[name]))


def rows(text: str) -> dict[str, tuple[str, str]]:
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {what: (figure, letter) for what, figure, letter in cells[2:]}


def test_every_result_has_its_rows_with_median_spread_and_machine(tmp_path: Path) -> None:
    assert set(RESULTS) == set(table.TABLES)
    write(tmp_path, *RESULTS)
    text = table.table(tmp_path)
    found = rows(text)
    assert found["windows/s against usual script, whole process"] == ("4.00 (3.00 to 5.00) times", "A")
    assert found["validation Huber, ours less that of usual script"] == ("+0.00 % (-50.00 % to +0.00 %)", "A")
    assert found["training step on 2 cores, share of the bf16 GEMM peak"] == ("10 %; by CPU time 12 %", "B")
    assert found["1,797,854 bars, 20 epochs, start to registered encoder"][0].startswith("10.0 minutes")
    assert found["moola --help"] == ("0.20 (0.10 to 0.30) s", "B")
    assert found["feature pass against a pandas loop with iloc"] == ("650 (400 to 900) times", "B")
    assert found["tracking to SQLite, CPU time against an epoch without it"][0].startswith("+2.0 % (+1.0 % to +3.0 %)")
    assert found["tracking to SQLite, counted, of epochs without pictures"][0] == "0.10 %"
    assert found["tracking to SQLite, counted, of epochs with pictures"][0] == "4.00 % (3.00 % to 5.00 %)"
    assert found["2 processes of one thread against 1, windows/s"] == ("1.70 times", "B")
    assert found["1,000,000 bars from parquet to a store"][0].startswith("2.00 million bars/s")
    assert found["one file to parquet, million bars/s"] == ("3.00 (2.00 to 4.00)", "B")
    assert found["a trial of a sweep beside its training, 10 trials, CPU-seconds"] == ("0.200 (0.100 to 0.300)", "C")
    assert found["epochs of a sweep that pruning saves"] == ("42.5 % on average (40.0 % to 45.0 %)", "C")
    assert found["scan, detector"][0].startswith("39.0 % of the bf16 GEMM peak, 700 windows")
    assert found["scan, detector without an encoder"][0].startswith("8,000 windows")
    assert found["served: 1 window, p50 and p99"] == ("24.53 and 28.58 ms; 40.6 requests/s", "B")
    assert found["served: 1,000 windows, p50 and p99"][0] == "no answer; 0.1 requests/s; 9 of 9 failed"
    assert found["detect with an event detector and its encoder, five years of bars"] == ("80 s; 120 CPU-seconds", "B")
    live = "a live bar that completes a window, event detector with its encoder"
    assert found[live] == ("12.3 ms CPU, the slowest 20.0", "B")
    assert found["page of annotate: a decision to the next chart, p50 and p95"][0] == "60.2 and 113.6 ms, 200 windows"
    assert found["fresh clone to a trained run's page in a browser"][0].startswith("3.5 minutes, once")
    assert "\n- A: x86_64, 4 cores, torch 2.13.0\n- B: Some CPU, 2 cores, python 3.11.7, torch 2.13.0" in text
    assert text.endswith("\n- C: x86_64, cores not recorded")


def test_a_result_that_is_missing_or_of_the_smallest_size_has_no_row(tmp_path: Path) -> None:
    assert table.table(tmp_path) == f"no results in {tmp_path}: make bench"
    write(tmp_path, "startup")
    small = {**RESULTS["processes"], "about": {"smoke": True}}
    (tmp_path / "processes.json").write_text(json.dumps(small))
    assert set(rows(table.table(tmp_path))) == {"moola --help", "pretrain, first step"}


def roundings(figure: str, divisor: str, quoted: str) -> set[Decimal]:
    """What a figure of the table, itself rounded, may be when rounded to as many digits as a quoted one."""
    exact, digits = Decimal(figure.replace(",", "")), Decimal(quoted.replace(",", "")).as_tuple().exponent
    # What was rounded to the figure lies up to half a unit of its last digit away.
    half = Decimal((0, (5,), int(exact.as_tuple().exponent) - 1)) * Decimal("0.999999")
    step = Decimal((0, (1,), int(digits)))
    return {((exact + off) / Decimal(divisor)).quantize(step, ROUND_HALF_UP) for off in (-half, half)}


def wrongly_quoted(text: str, figures: Mapping[str, tuple[str, str]], known: Mapping[Any, Any] = QUOTED) -> list[str]:
    """Return the rows of a page's table of speed whose figures are not those of the table, with what they should be.

    Where a figure of the table lies on the border of two roundings, either may be quoted.
    """
    section = text.partition("\n## How fast\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if re.match(r"\| [^|]", line)]
    wrong, seen = [], []
    for what, shown in ([cell.strip() for cell in line.strip("|").split("|")] for line in lines):
        names = tuple(re.findall(r"benchmarks\.(?:\w+\.)?(\w+)", what))
        seen.append(names)
        form, places = known.get(names, ("no form", []))
        found = re.fullmatch(re.escape(form).replace(r"\#", f"({NUMBER})"), shown)
        if not found or any(row not in figures for row, _, _ in places):
            wrong.append(f"{what}: '{shown}' is not '{form}', or the table has no such row")
            continue
        numbers = found.groups() * (len(places) // len(found.groups()))
        for number, (row, place, divisor) in zip(numbers, places, strict=True):
            figure = re.findall(NUMBER, re.sub(r"\([^)]*\)", "", figures[row][0]))[place]
            if Decimal(number.replace(",", "")) not in (right := roundings(figure, divisor, number)):
                wrong.append(f"{what}: {number} where the results say {figure}, so {' or '.join(map(str, right))}")
    return wrong + [f"no row names {names}" for names in known if names not in seen]


def test_the_figures_of_speed_that_a_page_quotes_follow_from_the_results() -> None:
    page, text = PAGE.read_text(encoding="utf-8"), table.table(ROOT / "benchmarks" / "results")
    assert wrongly_quoted(page, rows(text)) == []
    assert f"| {FIVE_YEARS} (" in page


@pytest.mark.parametrize(
    ("shown", "wrong"),
    [
        ("6.0 s; 0.2 s", 0),
        ("6.1 s; 0.2 s", 1),
        ("6.0 s; 0.3 s", 1),
        ("5.9 s; 0.1 s", 2),
        ("6.04 s; 0.20 s", 0),
        ("6.05 s; 0.20 s", 1),
        ("6 s; 0 s", 0),
        ("6.0 minutes; 0.2 s", 1),
        ("six seconds", 1),
    ],
)
def test_a_figure_that_does_not_follow_from_the_results_is_found(tmp_path: Path, shown: str, wrong: int) -> None:
    write(tmp_path, "startup")
    text = (
        f"# Name\n\n## How fast\n\n| | |\n|---|---|\n| first step (`benchmarks.speed.startup`) | {shown} |\n\n## Next\n"
    )
    known = {("startup",): QUOTED[("startup",)]}
    assert len(wrongly_quoted(text, rows(table.table(tmp_path)), known)) == wrong
    assert wrongly_quoted(text.replace("startup", "stopping"), rows(table.table(tmp_path)), known)


def test_a_figure_on_the_border_of_two_roundings_may_be_quoted_as_either() -> None:
    assert roundings("2.95", "1", "2.9") == {Decimal("2.9"), Decimal("3.0")}
    assert roundings("2.93", "1", "2.9") == {Decimal("2.9")}
    assert roundings("0.1", "1", "0.1") == {Decimal("0.1")}
    assert roundings("1,303", "1024", "1.3") == {Decimal("1.3")}


def git(folder: Path, *words: str) -> None:
    name = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *name, *words], check=True, capture_output=True)


def test_a_machine_is_told_with_the_commit_that_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert synthetic_months.commit(tmp_path) is None
    git(tmp_path, "init", "--quiet")
    assert synthetic_months.commit(tmp_path) is None  # nothing is committed yet
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    for name in ("code.py", "benchmarks/results/a.json"):
        (tmp_path / name).write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    clean = synthetic_months.commit(tmp_path)
    assert clean
    assert re.fullmatch(r"[0-9a-f]{4,40}", clean)
    (tmp_path / "benchmarks" / "results" / "a.json").write_text("2")
    assert synthetic_months.commit(tmp_path) == clean  # results of the benchmark before are no other code
    (tmp_path / "code.py").write_text("2")
    assert synthetic_months.commit(tmp_path) == f"{clean}+"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert synthetic_months.commit(tmp_path) is None  # no git


def test_a_machine_is_told_with_the_threads_of_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic_months, "commit", lambda: "abc1234+")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    told = synthetic_months.machine()
    assert (told["commit"], told["threads"]) == ("abc1234+", 3)


def test_every_benchmark_that_leaves_a_result_tells_its_machine() -> None:
    for path in (ROOT / "benchmarks").glob("*/*.py"):
        text = path.read_text(encoding="utf-8")
        assert '/ "results"' not in text or path.stem.endswith(("table", "tables")) or "machine()" in text, path.name
        assert "platform.machine()" not in text or path.stem == "synthetic_months", path.name


def test_the_pandas_loop_reads_a_bar_with_iloc_as_often_as_it_says() -> None:
    read = []

    class Frame:
        def __len__(self) -> int:
            return 200

        @property
        def iloc(self) -> Frame:
            return self

        def __getitem__(self, i: int) -> pd.Series:
            read.append(i)
            middle = 100 + 5 * np.sin(i / 9)
            return pd.Series([middle, middle + 1, middle - 1, middle + 0.5], index=list(features.PRICES))

    rows_T = features.with_iloc(Frame(), features.load_reference())  # type: ignore[arg-type]
    assert {row[-1] for row in rows_T} == {-1, 0, 1}  # legs up and down: the zigzag has walked
    assert len(read) / len(rows_T) == pytest.approx(features.ILOC_A_BAR, abs=0.01)


def test_the_slopes_of_size_are_of_each_step_and_of_the_time_of_both() -> None:
    sized = [
        {
            "bars": n,
            "ingest": {"seconds": n / 1e6, "peak_mib": 200},
            "read": {"seconds": 9.0 - n / 1e6, "peak_mib": n / 1e4},
        }
        for n in (1e6, 2e6, 4e6)
    ]
    found = scale.slopes_of(sized)
    expected = {"ingest_time": 1.0, "ingest_memory": 0.0, "read_memory": 1.0, "both_time": 0.0}
    assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-9)
    assert "training a small network (hidden 32, one thread), windows/s" in scale.HEAD


@pytest.mark.parametrize("name", ["newcomer", "processes", "tracking"])
def test_a_benchmark_that_takes_minutes_can_be_imported_in_no_time(name: str) -> None:
    assert callable(importlib.import_module(f"benchmarks.speed.{name}").main)


def test_the_cost_of_a_fine_tuning_is_its_median_and_spread_beside_the_line() -> None:
    found = finetune.summary({finetune.ALONE: [31.0, 28.0, 29.0], finetune.COMMAND: [181.0, 170.0, 200.0]})
    assert found[finetune.ALONE] == {"median": 29.0, "min": 28.0, "max": 31.0, "line": 30.0, "met": True}
    assert (found[finetune.COMMAND]["median"], found[finetune.COMMAND]["met"]) == (181.0, False)


def test_make_bench_names_benchmarks_that_are_there() -> None:
    listed = re.search(r"^BENCHES := ((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert listed
    names = [name.split()[0] for name in re.findall(r"'[^']+'|[\w.]+", listed[1].replace("\\\n", " "))]
    # detect_worth needs registered detectors, events_shifted the seeds to run on, gpu a GPU.
    left_out = {"science.detect_worth", "science.events_shifted", "speed.gpu"}
    left_out |= {f"science.{name}" for name in ("events_methods", "events_pairs", "events_tables")}
    left_out |= {f"science.{name}" for name in ("rules_reading", "rules_baselines", "rules_tables", "fuzzy_labeller")}
    left_out |= {"science.trap_labeller", "science.turn_labeller", "science.ruled_labels"}
    there = {
        f"{path.parent.name}.{path.stem}"
        for room in ("speed", "science", "reliability")
        for path in (ROOT / "benchmarks" / room).iterdir()
        if path.suffix == ".py" or (path / "__main__.py").is_file()
    }
    assert {one.strip("'") for one in names} == {name for name in there if "__init__" not in name} - left_out
