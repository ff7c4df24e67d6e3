"""The table of speed is made from whatever results there are, and says on what machine each figure was measured."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import finetune, table  # noqa: E402

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
    "five_years": {
        "machine": HERE, "bars": 1_797_854, "epochs": 20, "seconds": 600.0, "peak_mib": 1500,
        "windows_per_second": [700.0, 800.0, 750.0],
    },
    "startup": {"machine": HERE, "seconds": {"moola --help": [0.1, 0.3, 0.2]}},
    "finetune": {"machine": HERE, "smoke": False, "seconds": {"detector alone": [20.0, 22.0]}},
    "features": {
        "machine": HERE, "smoke": False, "share_of_epoch": [0.005],
        "bars_per_cpu_second": {"ours": [9e6, 8e6], "pandas loop with iloc": [1e4, 2e4]},
    },
    "tracking": {
        "machine": HERE, "about": {"smoke": False},
        "shares": {"SQLite": {"difference": [0.01, 0.03, 0.02], "counted": [0.015]}},
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
    assert found["validation Huber against usual script"] == ("1.0000 (0.5000 to 1.0000) times", "A")
    assert found["training step on 2 cores, share of the bf16 GEMM peak"] == ("10 %; by CPU time 12 %", "B")
    assert found["1,797,854 bars, 20 epochs, start to registered encoder"][0].startswith("10.0 minutes")
    assert found["moola --help"] == ("0.20 (0.10 to 0.30) s", "B")
    assert found["feature pass against a pandas loop with iloc"] == ("650 (400 to 900) times", "B")
    assert found["tracking to SQLite, CPU time against an epoch without it"][0].startswith("+2.0 % (+1.0 % to +3.0 %)")
    assert found["2 processes of one thread against 1, windows/s"] == ("1.70 times", "B")
    assert found["1,000,000 bars from parquet to a store"][0].startswith("2.00 million bars/s")
    assert "\n- A: x86_64, 4 cores, torch 2.13.0\n- B: Some CPU, 2 cores, python 3.11.7, torch 2.13.0" in text


def test_a_result_that_is_missing_or_of_the_smallest_size_has_no_row(tmp_path: Path) -> None:
    assert table.table(tmp_path) == f"no results in {tmp_path}: make bench"
    write(tmp_path, "startup")
    small = {**RESULTS["processes"], "about": {"smoke": True}}
    (tmp_path / "processes.json").write_text(json.dumps(small))
    assert set(rows(table.table(tmp_path))) == {"moola --help"}


@pytest.mark.parametrize("name", ["newcomer", "processes", "tracking"])
def test_a_benchmark_that_takes_minutes_can_be_imported_in_no_time(name: str) -> None:
    assert callable(importlib.import_module(f"benchmarks.{name}").main)


def test_the_cost_of_a_fine_tuning_is_its_median_and_spread_beside_the_line() -> None:
    found = finetune.summary({finetune.ALONE: [31.0, 28.0, 29.0], finetune.COMMAND: [181.0, 170.0, 200.0]})
    assert found[finetune.ALONE] == {"median": 29.0, "min": 28.0, "max": 31.0, "line": 30.0, "met": True}
    assert (found[finetune.COMMAND]["median"], found[finetune.COMMAND]["met"]) == (181.0, False)


def test_make_bench_names_benchmarks_that_are_there() -> None:
    listed = re.search(r"^BENCHES := ((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert listed
    names = [name.split()[0] for name in re.findall(r"'[^']+'|[\w]+", listed[1].replace("\\\n", " "))]
    for name in (one.strip("'") for one in names):
        assert (ROOT / "benchmarks" / f"{name}.py").is_file() or (ROOT / "benchmarks" / name / "__main__.py").is_file()
    assert {"peers", "scale", "serving", "detect", "processes"} <= {one.strip("'") for one in names}
