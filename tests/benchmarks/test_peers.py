"""The comparison with other tools: seeds, differences, and results of several sizes in one file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT

sys.path.insert(0, str(ROOT))

from benchmarks import synthetic_months, table
from benchmarks.speed import peers


def run(whole: float, steady: float, huber: float) -> dict[str, float]:
    return {"whole": whole, "steady": steady, "per_cpu_s": 1.0, "val_huber": huber, "peak_mb": 1.0, "load": 0.0}


def test_each_round_of_peers_has_a_seed_that_all_share_and_hubers_are_compared_within_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hubers = {("usual script", 17): 0.2, ("usual script", 18): 0.4, ("moola", 17): 0.202, ("moola", 18): 0.396}
    asked = []

    def measure(peer: str, arguments: Any, seed: int) -> dict[str, Any]:
        asked.append((peer, seed))
        return {**run(1.0, 1.0, hubers[peer, seed]), "seed": seed, "judged_in": "fp32"}

    out = tmp_path / "peers.json"
    monkeypatch.setattr(peers, "measure", measure)
    monkeypatch.setattr(synthetic_months, "commit", lambda: None)
    monkeypatch.setattr(sys, "argv", ["peers", "--rounds=2", "--peers", "usual script", "moola", f"--out={out}"])
    peers.main()
    assert asked == [("usual script", 17), ("moola", 17), ("usual script", 18), ("moola", 18)]
    assert "| moola / usual script | 1.00 (1.00 to 1.00) |" in (said := capsys.readouterr().out)
    assert said.rstrip().endswith("| +0.00% (-1.00% to +1.00%) |")
    found = json.loads(out.read_text())
    assert found["huber_differences"] == {"usual script": pytest.approx([0.01, -0.01])}
    assert {"cpu", "threads", "commit"} <= set(found["machine"])


def test_peers_of_another_size_are_kept_beside_those_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    first, small = {"runs": {}, "about": {"hidden": 128}}, {"runs": {"moola": []}, "about": {"hidden": 32}}
    for size, result in ((128, first), (32, small), (128, {**first, "again": True})):
        path.write_text(json.dumps(peers.merged(path, size, result)))
    assert json.loads(path.read_text()) == {**first, "again": True, "sizes": {"32": small}}


def test_the_table_has_rows_of_peers_at_every_size() -> None:
    small = {"about": {"smoke": False}, "runs": {"usual script": [run(100, 200, 0.2)], "moola": [run(300, 800, 0.2)]}}
    large = {"runs": {"usual script": [run(100, 200, 0.2)], "moola": [run(400, 600, 0.2)]}}
    rows = dict(table.peers({**large, "sizes": {"32": small, "8": {**small, "about": {"smoke": True}}}}))
    assert rows["windows/s against usual script, after the first epoch"].startswith("3.00")
    assert rows["windows/s against usual script, hidden 32, after the first epoch"] == "4.00 times"
    assert not [name for name in rows if "hidden 8" in name]
