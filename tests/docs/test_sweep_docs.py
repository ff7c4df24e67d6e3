"""The commands of docs/how-to/sweep.md in a fresh clone: every sweep ends with its best, and notes the next step."""

from __future__ import annotations

from pathlib import Path

import pytest
from documented import clone, newest, run_all

pytestmark = pytest.mark.slow


def test_every_sweep_of_the_docs_ends_with_its_best(tmp_path: Path) -> None:
    folder = clone(tmp_path, "docs/how-to/sweep.md")
    said = run_all("docs/how-to/sweep.md", folder)
    assert len(said) >= 6
    assert all("Best of " in text for text in said)
    sweeps = newest(folder, "sweep")
    assert len(sweeps) == 5  # the second terminal joins the sweep of the first
    assert {one.info.status for one in newest(folder)} <= {"FINISHED", "KILLED"}
    for one in sweeps:
        assert "sweep/best_value" in one.data.metrics
        best = folder / ".moola" / "runs" / one.info.run_id / "best_config.yaml"
        assert f"-P config={best.relative_to(folder)}" in one.data.tags["mlflow.note.content"]
        assert best.is_file()
