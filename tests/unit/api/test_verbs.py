"""The five verbs run the commands of their names: the same figures, with a run or without one, and without a word."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from pathlib import Path

import mlflow
import pandas as pd
import pytest

import moola_mlflow as moola
from moola_mlflow.api import verbs
from moola_mlflow.cli import run_cli
from moola_mlflow.core import UserError
from moola_mlflow.reports import DetectResult, EvaluateResult, FinetuneResult, LabelResult, PretrainResult

SMALL = {"bars__sample_bars": 8000, "epochs": 1, "encoder__hidden": 4}
SCAN = {"detect__min_probability": 0.3, "detect__min_span_score": 0.0}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """All five verbs without tracking, each fed with what the one before returned, in an empty folder."""
    folder, before = tmp_path_factory.mktemp("untracked"), Path.cwd()
    os.chdir(folder)
    try:
        trained = verbs.pretrain("sample", "smoke", track=False, out="trained", **SMALL)
        labels = verbs.label("sample", n=24, track=False, bars__sample_bars=20_000)
        tuned = verbs.finetune(labels, trained, track=False, folds=2, epochs=1, cv__workers=1, out="tuned")
        bars = moola.read_bars(moola.BarsConfig(sample_bars=5000, sample_seed=9))
        found = verbs.detect(bars, tuned, track=False, out="found", **SCAN)
        scored = verbs.evaluate(bars, tuned, track=False, out="scored")
        there = sorted(path.name for path in folder.iterdir())
        yield {"pretrain": trained, "label": labels, "finetune": tuned, "detect": found, "evaluate": scored,
               "there": there, "bars": bars, "folder": folder}  # fmt: skip
    finally:
        os.chdir(before)


def test_without_tracking_there_is_no_store_and_no_run(chain: dict[str, object]) -> None:
    assert chain["there"] == ["found", "scored", "trained", "tuned"]
    for name in ("pretrain", "label", "finetune", "detect", "evaluate"):
        assert chain[name].run_id is None  # type: ignore[attr-defined]


def test_every_outcome_has_its_figures_files_and_a_chart(chain: dict[str, object]) -> None:
    kinds = {
        "pretrain": PretrainResult,
        "label": LabelResult,
        "finetune": FinetuneResult,
        "detect": DetectResult,
        "evaluate": EvaluateResult,
    }
    for name, kind in kinds.items():
        outcome = chain[name]
        assert isinstance(outcome, kind)
        assert outcome.metrics
        assert outcome.note == outcome._repr_markdown_()
        assert all((chain["folder"] / path).exists() for path in outcome.paths.values())  # type: ignore[operator]
        assert outcome.plot().data, name
        with pytest.raises(FrozenInstanceError):
            outcome.run_id = "another"  # type: ignore[misc]


def test_the_tables_of_outcomes_have_a_row_for_each_thing(chain: dict[str, object]) -> None:
    assert len(chain["pretrain"].history) == 1  # type: ignore[attr-defined]
    assert chain["finetune"].methods().index[0] == "detector"  # type: ignore[attr-defined]
    found = chain["detect"].table  # type: ignore[attr-defined]
    assert len(found) == chain["detect"].metrics["detect/hits"] > 0  # type: ignore[attr-defined]
    assert 0 < len(chain["detect"].pictures) <= len(found)  # type: ignore[attr-defined]


def test_a_scan_of_bars_in_memory_finds_what_scan_finds(chain: dict[str, object]) -> None:
    folder = chain["folder"] / chain["finetune"].detector  # type: ignore[operator,attr-defined]
    table = moola.scan(chain["bars"], folder, min_probability=0.3, min_span_score=0.0)  # type: ignore[arg-type]
    pd.testing.assert_frame_equal(table, chain["detect"].table, check_dtype=False)  # type: ignore[attr-defined]


def test_a_tracked_call_logs_the_run_that_the_command_logs(workdir: Path) -> None:
    trained = verbs.pretrain("sample", "smoke", **SMALL)
    assert trained.run_id is not None
    assert trained.encoder == "models:/moola-encoder/1"
    words = ["--config", "smoke", "--bars.sample_bars", "8000", "--epochs", "1", "--encoder.hidden", "4"]
    assert run_cli(["pretrain", *words]) == 0
    theirs, ours = mlflow.search_runs(experiment_names=["moola"], output_format="list")
    assert ours.info.run_id == trained.run_id
    assert ours.data.metrics["test/huber"] == theirs.data.metrics["test/huber"] == trained.metrics["test/huber"]
    assert ours.data.params == theirs.data.params


def test_a_tracked_scan_names_the_bars_it_was_given_as_its_input(workdir: Path, chain: dict[str, object]) -> None:
    detector = chain["folder"] / chain["finetune"].detector  # type: ignore[operator,attr-defined]
    found = verbs.detect(chain["bars"], detector, out="found", **SCAN)  # type: ignore[arg-type]
    run = mlflow.get_run(str(found.run_id))
    assert len(run.inputs.dataset_inputs) == 1
    assert (workdir / "found" / "detections.html").is_file()
    pd.testing.assert_frame_equal(found.table, chain["detect"].table)  # type: ignore[attr-defined]


def test_nothing_is_printed_unless_it_is_asked_for(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verbs.label("sample", n=20, track=False, bars__sample_bars=20_000)
    assert capsys.readouterr().out == ""
    verbs.label("sample", n=20, track=False, bars__sample_bars=20_000, verbose=True)
    assert "20 weak labels" in capsys.readouterr().out


def test_labels_are_written_where_the_caller_says(workdir: Path) -> None:
    made = verbs.label("sample", n=20, out="mine.parquet", track=False, bars__sample_bars=20_000)
    assert made.path == Path("mine.parquet")
    assert sorted(path.name for path in workdir.iterdir()) == ["mine.parquet", "mlflow.db"]
    with pytest.raises(UserError, match="exists"):
        verbs.label("sample", n=20, out="mine.parquet", track=False, bars__sample_bars=20_000)


def test_a_detector_in_memory_is_refused_with_the_function_that_takes_it() -> None:
    with pytest.raises(UserError, match=r"detector is a int; .*moola_mlflow\.scan"):
        verbs.detect("sample", 3)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="bars is a list"):
        verbs.pretrain([1, 2], "smoke", track=False)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="labels is a list"):
        verbs.finetune([1, 2], track=False)  # type: ignore[arg-type]
