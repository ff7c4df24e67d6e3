"""The documents' commands run in order in a fresh clone, and the files they show whole work where they say."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from documented import REAL_BARS, ROOT, clone, commands, files, newest, reduced, run, run_all

from moola_mlflow.synthetic import generate

pytestmark = pytest.mark.slow

HOW_TOS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs" / "how-to").glob("*.md"))
OTHERS = {
    "docs/data.md": "",
    "docs/labels.md": "",
    "docs/pretraining.md": "--resume ",  # tests/e2e/test_resume_command.py
    "docs/fine-tuning.md": "",
    "docs/detection.md": "",
    "docs/reports.md": "",
}
"""Pages whose commands run in one prepared folder, each with what marks the commands that another test runs."""
ELSEWHERE = {"docs/registry.md": "test_promote.py", "docs/sweeps.md": "test_sweep_docs.py"}
FOUND = {
    "docs/how-to/own-encoder.md": "encoder.name",
    "docs/how-to/own-features.md": "features.set",
    "docs/how-to/own-objective.md": "objective.name",
}


def with_bars(path: Path) -> None:
    """Put bars of several instruments where a reader has their own: real ones, where they are at hand."""
    if REAL_BARS.is_file():
        path.write_bytes(REAL_BARS.read_bytes())
    else:
        generate(100_000, 9).to_parquet(path)


def test_the_tutorial_goes_from_bars_to_a_report(tmp_path: Path) -> None:
    folder = clone(tmp_path, "docs/tutorial.md")
    with_bars(folder / "my_bars.parquet")
    run_all("docs/tutorial.md", folder)
    stages = [made.data.tags["moola.stage"] for made in newest(folder) if "mlflow.parentRunId" not in made.data.tags]
    assert {"data", "features", "pretrain", "label", "finetune", "promote", "detect", "report"} <= set(stages)
    assert (folder / "found" / "detections.html").is_file()
    assert (folder / "report" / "report.html").is_file()


@pytest.mark.parametrize("page", HOW_TOS)
def test_the_file_that_a_how_to_page_shows_works(tmp_path: Path, page: str) -> None:
    assert len(files(page)) == 1, "one file, shown whole"
    folder = clone(tmp_path, page)
    run_all(page, folder)
    made = newest(folder, "pretrain")[0]
    assert made.info.status == "FINISHED"
    if page in FOUND:
        assert Path(next(iter(files(page)))).stem in made.data.params[FOUND[page]]


def test_every_diagnosis_of_the_troubleshooting_page_runs(tmp_path: Path) -> None:
    folder = clone(tmp_path, "docs/troubleshooting.md")
    assert len(commands("docs/troubleshooting.md")) > 12
    run_all("docs/troubleshooting.md", folder)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with encoders, a detector with every alias, labels, a folder of bars, and a file with a bad row."""
    folder = clone(tmp_path_factory.mktemp("prepared"))
    bars = generate(12_000, 9)
    bars.to_parquet(folder / "my_bars.parquet")
    (folder / "months").mkdir()
    for key, symbol in enumerate(("NQ", "CL"), start=1):
        bars.assign(instrument_id=key, symbol=symbol).to_parquet(folder / "months" / f"{symbol}.parquet")
    with_bars(folder / "es_front_1min.parquet")
    dirty = bars.reset_index()
    dirty.loc[700, "high"] = dirty.loc[700, "low"] - 1
    dirty.to_csv(folder / "dirty.csv", index=False)
    for line in (
        "moola pretrain --config configs/path.yaml",
        "moola pretrain --config configs/path.yaml --seed 18",
        "moola promote --model moola-encoder",
        "moola label --bars my_bars.parquet --out my_labels.parquet",
        "moola finetune --finetune.inputs path",
        "moola promote",
    ):
        done = run(reduced(line), folder)
        assert done.returncode == 0, f"{line}\n{done.stderr[-3000:]}"
    return folder


@pytest.mark.parametrize("page", OTHERS)
def test_every_command_of_a_page_runs(prepared: Path, page: str) -> None:
    run_all(page, prepared, OTHERS[page])


def test_every_page_with_commands_is_run_here_or_by_a_test_that_is_named() -> None:
    pages = [str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")]
    here = {*HOW_TOS, *OTHERS, "docs/tutorial.md", "docs/troubleshooting.md"}
    assert [page for page in pages if commands(page) and page not in here | set(ELSEWHERE)] == []
    assert [name for name in ELSEWHERE.values() if not (ROOT / "tests" / "e2e" / name).is_file()] == []


def test_the_notebook_runs_and_is_stored_without_outputs(tmp_path: Path) -> None:
    folder = clone(tmp_path)
    notebook = json.loads((folder / "examples" / "notebook.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    # One namespace, cell after cell, as a kernel does; the notebook has no magics, so a kernel would add nothing.
    script = folder / "examples" / "notebook.py"
    script.write_text("\n\n".join("".join(cell["source"]) for cell in cells) + "\n", encoding="utf-8")
    done = run([sys.executable, "notebook.py"], folder / "examples")
    assert done.returncode == 0, done.stderr[-3000:]
