"""The benchmark behind the calibration errors of docs/how-to/detect.md says of a detector what the library says."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from paths import ROOT
from small_models import small_detector

from moola_mlflow import scan as detect
from moola_mlflow.bars.sample import generate_bars
from moola_mlflow.models.files.detector import save_detector

sys.path.insert(0, str(ROOT))

from benchmarks.science import detect_worth


def test_every_detector_is_scored_on_every_bars_before_and_after_its_temperature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    detector = small_detector("price_path")
    for name, temperature in (("warm", 1.3), ("raw", 1.0)):
        save_detector(replace(detector, temperature=temperature), tmp_path / name)
    for seed in (5, 6):
        generate_bars(8000, seed).to_parquet(tmp_path / f"{seed}.parquet")
    words = "detect_worth --detector warm raw --bars 5.parquet 6.parquet --out results/worth.json"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", shlex.split(words))
    detect_worth.main()
    result = json.loads(Path("results/worth.json").read_text())
    assert result["machine"]["cores"]
    rows = {(row["detector"], row["bars"]): row for row in result["rows"]}
    assert len(rows) == 4
    for bars in ("5.parquet", "6.parquet"):
        warm, raw = rows["warm", bars], rows["raw", bars]
        assert warm["ece_before"] == pytest.approx(raw["ece"]) == pytest.approx(raw["ece_before"])
        assert warm["ece"] != pytest.approx(raw["ece"])
        assert 0 < warm["ece_if_calibrated"] < 1
        assert warm["labelled_windows"] == raw["labelled_windows"] > 10
        found = detect(bars, "warm")
        assert (warm["hits"], warm["windows"]) == (len(found), found.attrs["windows"])
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(detect_worth.HEAD.splitlines()) + 4
    assert f"{rows['raw', '6.parquet']['ece']:.3f} (" in printed[-1]


def test_the_commands_that_make_the_table_are_those_of_the_page() -> None:
    told = [line.strip() for line in (detect_worth.__doc__ or "").replace("\\\n", "").splitlines()]
    commands = [" ".join(line.split()) for line in told if line.startswith(("moola ", "python -m "))]
    assert len(commands) == 4
    page = (ROOT / "docs" / "how-to" / "detect.md").read_text(encoding="utf-8")
    assert "\n".join(commands) in page
