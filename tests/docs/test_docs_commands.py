"""The documents' commands run in order in a fresh clone, and the files they show whole work where they say."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from documented import (
    OWN_FILES,
    PREPARED,
    PYTHON_BY,
    REAL_BARS,
    TROUBLESHOOTING,
    TUTORIAL,
    blocks,
    clone,
    commands,
    files,
    newest,
    reasons,
    reduced,
    run,
    run_all,
)
from harness import Store

from moola_mlflow.bars.sample import generate_bars

pytestmark = pytest.mark.slow

FOUND = {
    "docs/how-to/own-encoder.md": "encoder.name",
    "docs/how-to/own-features.md": "features.set",
    "docs/how-to/own-objective.md": "objective.name",
    "docs/how-to/own-rule.md": "labels.rule",
}


def with_bars(path: Path) -> None:
    """Put bars of several instruments where a reader has their own: real ones, where they are at hand."""
    if REAL_BARS.is_file():
        path.write_bytes(REAL_BARS.read_bytes())
    else:
        generate_bars(100_000, 9).to_parquet(path)


def test_the_tutorial_goes_from_bars_to_a_report(tmp_path: Path) -> None:
    folder = clone(tmp_path, TUTORIAL)
    with_bars(folder / "my_bars.parquet")
    run_all(TUTORIAL, folder)
    stages = [made.data.tags["moola.stage"] for made in newest(folder) if "mlflow.parentRunId" not in made.data.tags]
    assert {"data", "features", "pretrain", "label", "finetune", "promote", "detect", "report"} <= set(stages)
    assert (folder / "found" / "detections.html").is_file()
    assert (folder / "report" / "report.html").is_file()


def test_the_tutorial_begins_with_sample_bars_where_there_are_none(tmp_path: Path) -> None:
    folder = clone(tmp_path, TUTORIAL)
    (folder / "my_bars.parquet").unlink()
    begun = [line for line, _ in commands(TUTORIAL) if line.startswith("moola data ")]
    assert reasons(TUTORIAL, begun[0]) != []
    for line in begun:
        done = run(reduced(line), folder)
        assert done.returncode == 0, f"{line}\n{done.stderr[-3000:]}"
    assert (folder / "bars.parquet").is_file()


@pytest.mark.parametrize("page", OWN_FILES)
def test_the_file_that_a_how_to_page_shows_works(tmp_path: Path, page: str) -> None:
    assert len(files(page)) == 1, "one file, shown whole"
    folder = clone(tmp_path, page)
    run_all(page, folder)
    made = newest(folder, "label" if page == "docs/how-to/own-rule.md" else "pretrain")[0]
    assert made.info.status == "FINISHED"
    if page in FOUND:
        assert Path(next(iter(files(page)))).stem in made.data.params[FOUND[page]]


def test_every_diagnosis_of_the_troubleshooting_page_runs(tmp_path: Path) -> None:
    folder = clone(tmp_path, TROUBLESHOOTING)
    assert len(commands(TROUBLESHOOTING)) > 12
    run_all(TROUBLESHOOTING, folder)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with three versions of encoder and detector, every alias, labels, a folder of bars, a bad file."""
    folder = clone(tmp_path_factory.mktemp("prepared"))
    bars = generate_bars(12_000, 9)
    for name in ("my_bars", "bars"):
        bars.to_parquet(folder / f"{name}.parquet")
    (folder / "months").mkdir()
    for key, symbol in enumerate(("NQ", "CL"), start=1):
        bars.assign(instrument_id=key, symbol=symbol).to_parquet(folder / "months" / f"{symbol}.parquet")
    with_bars(folder / "es_front_1min.parquet")
    dirty = bars.reset_index()
    dirty.loc[700, "high"] = dirty.loc[700, "low"] - 1
    dirty.to_csv(folder / "dirty.csv", index=False)
    seconds = bars.reset_index(drop=True).head(3000)
    seconds.insert(0, "time", pd.date_range("2024-03-04T14:30Z", periods=len(seconds), freq="5s"))
    seconds.to_csv(folder / "trades.csv", index=False)
    for line in (
        "moola pretrain --config configs/path.yaml",
        "moola pretrain --config configs/path.yaml --seed 18",
        "moola promote --model moola-encoder --version 1",
        "moola label --bars my_bars.parquet --out my_labels.parquet",
        "moola finetune --finetune.inputs price_path",
        "moola promote",
    ):
        done = run(reduced(line), folder)
        assert done.returncode == 0, f"{line}\n{done.stderr[-3000:]}"
    client = Store(folder).client
    for name in ("moola-encoder", "moola-detector"):  # up to version 3: copies cost no training
        first = client.get_model_version(name, "1")
        while str(client.get_model_version_by_alias(name, "candidate").version) != "3":
            made = client.create_model_version(name, first.source, first.run_id, tags=first.tags)
            client.set_registered_model_alias(name, "candidate", made.version)
    model = mlflow.artifacts.download_artifacts(
        "models:/moola-detector/1", dst_path=str(folder / "model"), tracking_uri=Store(folder).uri
    )
    shutil.copytree(next(Path(model).rglob("detector.json")).parent, folder / "my_detector")
    return folder


@pytest.mark.parametrize("page", PREPARED)
def test_every_command_of_a_page_runs(prepared: Path, page: str) -> None:
    assert run_all(page, prepared) != []


@pytest.mark.parametrize(
    "page", [page for page, test in PYTHON_BY.items() if test == "test_docs_commands.py" and page not in OWN_FILES]
)
def test_every_python_example_of_a_page_runs(prepared: Path, page: str) -> None:
    assert blocks(page, "python") != []
    for code in blocks(page, "python"):
        done = run([sys.executable, "-c", code], prepared)
        assert done.returncode == 0, f"{page}\n{code}\n{done.stderr[-3000:]}"


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
