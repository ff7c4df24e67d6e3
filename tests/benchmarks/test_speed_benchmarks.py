"""The benchmarks of speed run to their end and say what they promise; their figures are not judged here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from harness import browser_path
from paths import ROOT

pytestmark = pytest.mark.slow


def smoke(name: str, out: Path, *words: str) -> tuple[str, dict[str, Any]]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.speed.{name}", "--smoke", "--out", str(out), *words],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout, json.loads(out.read_text())


def test_the_roofline_compares_steps_with_two_ceilings(tmp_path: Path) -> None:
    said, result = smoke("roofline", tmp_path / "r.json")
    assert "of products' ceiling" in said
    # 3 x 105 steps x two directions: products of 11 + 128 and 256 + 128 inputs with 512 gates, and the decoder.
    multiplied = 2 * 512 * (11 + 128 + 256 + 128) + 256 * 11
    assert result["about"]["gflop"] == pytest.approx(3 * 105 * 2 * multiplied / 1e9)
    assert result["machine"]["cpu"]
    for runs in result["runs"].values():
        assert all(0 < run["share_of_products_cpu_time"] < 2 for run in runs)
        assert all(run["peak_gflops"] > 0 and run["windows_per_s"] > 0 for run in runs)


def test_peers_train_alike_and_are_compared_within_a_round(tmp_path: Path) -> None:
    peers = ["usual script", "usual script, bf16", "Lightning", "moola"]
    said, result = smoke("peers", tmp_path / "p.json", "--threads", "1")
    assert "| moola / usual script |" in said
    assert "| moola / usual script, bf16 |" in said
    assert "| moola / Lightning |" in said
    assert list(result["runs"]) == peers
    hubers = [result["runs"][peer][0]["val_huber"] for peer in peers]
    assert max(hubers) / min(hubers) < 1.1
    assert {(runs[0]["seed"], runs[0]["judged_in"]) for runs in result["runs"].values()} == {(17, "fp32")}
    assert set(result["huber_differences"]) == set(peers[:-1])
    assert result["about"]["lightning"]
    assert result["machine"]["cores"]
    assert all(
        run[0][key] > 0 for run in result["runs"].values() for key in ("whole", "steady", "per_cpu_s", "peak_mb")
    )


def test_the_parts_of_a_step_are_seen_and_make_up_what_lies_outside_of_the_primitive(tmp_path: Path) -> None:
    said, result = smoke("step_share", tmp_path / "s.json")
    assert "| outside of the primitive |" in said
    ((name, (run,)),) = result["runs"].items()
    assert name == "hidden 8, fp32"
    assert sum(run["kinds"].values()) == pytest.approx(run["outside"])
    assert run["outside"] < 1
    assert run["seen_ms"]["LSTM primitive"] > 0
    parts = {"dropout", "masks", "scaling, jitter, token", "decoder and loss", "clipping", "optimiser"}
    assert parts < set(run["kinds"])
    assert all(run["seen_ms"][kind] > 0 for kind in parts)
    assert run["plain_ms"] > 0
    assert run["profiled_ms"] > 0


def test_event_detectors_are_fitted_scanned_with_and_followed(tmp_path: Path) -> None:
    said, result = smoke("events", tmp_path / "e.json")
    assert set(result["summary"]) == {"finetune", "scan", "live"}
    assert all({"line", "met"} < set(row) for row in result["summary"].values())
    (live,) = result["rows"]["live"]
    assert live["windows"] == 10, "300 bars"
    assert 0 < live["mean"] < live["of_a_window"] <= live["slowest"]
    assert '"line": 150.0' in said


def test_the_cost_of_rules_is_the_share_of_a_step_that_is_not_the_encoder(tmp_path: Path) -> None:
    said, result = smoke("rules_cost", tmp_path / "c.json")
    assert "Share of the objective: " in said
    assert (result["about"]["hidden"], result["about"]["precision"], result["about"]["threads"]) == (8, "fp32", 1)
    assert len(result["runs"]) == 2
    for run in result["runs"]:
        assert run["share"] == pytest.approx(1 - (run["encoder_s"] + run["update_s"]) / run["step_s"])
        assert run["share_with_update"] == pytest.approx(1 - run["encoder_s"] / run["step_s"])
        assert run["windows_per_cpu_s"] > 0
    assert min(run["share"] for run in result["runs"]) <= result["share"] <= max(run["share"] for run in result["runs"])


def test_encoders_are_compared_with_the_lstm_of_the_preset_and_scans_with_a_loop(tmp_path: Path) -> None:
    said, result = smoke("encoders", tmp_path / "e.json")
    for rows in result["encoders"].values():
        assert {"bilstm32", "mingru16", "attention32", "dilated32"} < set(rows)
        assert all(row[what]["ms"] > 0 for row in rows.values() for what in ("train", "read"))
        assert rows["bilstm32"]["read"]["median"] == 1
    assert all(result["scans"][name]["error"] < 1e-5 for name in ("loop", "chunks", "doubling"))
    assert "scan logarithms: " in said


def test_the_page_of_annotate_says_how_long_a_decision_takes_to_the_next_chart(tmp_path: Path) -> None:
    browser_path()
    said, result = smoke("annotate_page", tmp_path / "a.json")
    assert "| p50 ms | p95 ms |" in said.replace("windows | ", "")
    assert result["smoke"]
    assert 0 < result["row"]["p50_ms"] <= result["row"]["p95_ms"] <= result["row"]["largest_ms"]


def test_the_server_of_annotate_answers_decisions_and_ends_well(tmp_path: Path) -> None:
    said, result = smoke("annotate_server", tmp_path / "a.json")
    assert "p99_ms" in said
    assert result["exit_code"] == 0
    assert set(result["lines"]) == {"open", "p99", "memory"}
    assert set(result["open_s"]) == {"parquet", "store"}


def test_the_gpus_command_makes_every_row_on_a_machine_without_one(tmp_path: Path) -> None:
    said, result = smoke("gpu", tmp_path / "g.json", "--device", "cpu")
    rows = result["rows"]
    assert [name for name, row in rows.items() if "not_run" in row] == [], said
    assert rows["smoke"]["registered"]
    assert rows["resume, interrupted"]["interrupted_with"] == 130
    assert rows["resume, interrupted"]["val_loss"] == rows["resume, uninterrupted"]["val_loss"]
    assert {name.split(",")[0] for name in rows} == {"smoke", "throughput", "agreement", "resume"}


def test_the_gpus_command_says_in_one_line_that_there_is_none(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed.gpu", "--out", str(tmp_path / "g.json")],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "--device cpu --smoke" in done.stderr
    assert not (tmp_path / "g.json").exists()
