"""`label` end to end: the file, the run that says its labels are weak, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from harness import Store
from mlflow.entities import Run

from moola_mlflow.bars.sample import generate_bars
from moola_mlflow.core import FinetuneKeys, make_config
from moola_mlflow.labels.label_files import read_event_labels, read_span_labels
from moola_mlflow.labels.weak import sample_labels
from moola_mlflow.tracking import read_input_events, read_input_labels

SMALL = {"bars.sample_bars": "12000", "n": "20"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def assert_told(store: Store, run: Run, file: Path) -> None:
    """The run has the labels as file and table, their counts, their input, and the word weak."""
    labels = read_span_labels(file)
    assert labels.weak
    assert run.info.status == "FINISHED"
    assert read_span_labels(store.artifact(run, file.name)).sha256 == labels.sha256
    table = json.loads(store.artifact(run, "labels_table.json").read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [row["window_id"] for row in rows] == labels.window_id.tolist()
    assert [row["expansion_end"] for row in rows] == labels.end.tolist()
    metrics, tags = run.data.metrics, run.data.tags
    assert metrics["labels/used"] == len(labels)
    assert metrics["labels/found"] >= len(labels)
    assert {name: metrics[f"labels/{name}"] for name in labels.classes} == labels.counts()
    assert (tags["moola.stage"], tags["moola.weak_labels"]) == ("label", "true")
    assert tags["moola.labels_sha256"] == labels.sha256
    assert tags["moola.data_sha256"] == labels.bars_sha256
    assert "WEAK" in tags["mlflow.note.content"]
    assert len(run.inputs.dataset_inputs) == 1


def test_label_writes_what_labels_sample_means(store: Store) -> None:
    done = store.run("label", SMALL)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "20 weak labels of" in done.stdout
    assert "WEAK" in done.stdout
    (run,) = store.runs()
    assert_told(store, run, store.folder / "out" / "labels.parquet")
    config = make_config(FinetuneKeys, {}, {"bars.sample_bars": 12_000})
    written = read_span_labels(store.folder / "out" / "labels.parquet")
    assert written.sha256 == sample_labels(config, 20, config.trainer.seed).sha256
    assert store.config(run)["bars"]["sample_seed"] == config.labels.sample_seed != config.bars.sample_seed


def test_rejected_windows_are_kept_if_asked_for_and_n_counts_windows(store: Store) -> None:
    done = store.run("label", {**SMALL, "label.rejects": "true", "out": "events.parquet"})
    assert done.returncode == 0, done.stderr[-2000:]
    labels = read_event_labels(store.folder / "events.parquet")
    counts = labels.counts()
    assert (len(labels), counts["none"] > 3) == (20, True)
    (run,) = store.runs()
    metrics = run.data.metrics
    assert {name: metrics[f"labels/{name}"] for name in counts} == counts
    assert metrics["labels/used"] == 20
    assert metrics["labels/found"] > labels.num_events
    assert "20 windows that the rule looked at, of " in done.stdout
    config = make_config(FinetuneKeys, {}, {"bars.sample_bars": 12_000, "labels.rejects": True, "labels.n": 20})
    assert read_input_events(config).sha256 == labels.sha256
    assert len(read_input_labels(config)) == labels.num_events


@pytest.mark.slow
def test_the_seed_chooses_other_windows_of_the_same_bars(store: Store) -> None:
    for seed in ("1", "2"):
        assert store.run("label", {**SMALL, "seed": seed, "out": f"{seed}.parquet"}).returncode == 0
    one, other = (read_span_labels(store.folder / f"{seed}.parquet") for seed in ("1", "2"))
    assert one.bars_sha256 == other.bars_sha256
    assert not np.array_equal(one.window_id, other.window_id)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        pytest.param({"bars": "in.parquet", "out": "in.parquet"}, "holds the bars themselves", id="out is the input"),
        pytest.param(
            {"bars": "in.parquet", "out": "a.csv"}, "ends in .parquet", id="no parquet", marks=pytest.mark.slow
        ),
        pytest.param({"bars": "in.parquet"}, "no labels: ", id="bars that never move", marks=pytest.mark.slow),
        pytest.param(
            {"labels.sample_seed": "1"}, "is also bars.sample_seed", id="pre-training's bars", marks=pytest.mark.slow
        ),
    ],
)
def test_label_refuses_with_one_message_and_writes_nothing(
    store: Store, parameters: dict[str, str], message: str
) -> None:
    still = generate_bars(400, 5)
    still[["open", "high", "low", "close"]] = 100.0
    still.to_parquet(store.folder / "in.parquet")
    before = (store.folder / "in.parquet").read_bytes()
    done = store.run("label", parameters)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert message in done.stderr
    assert (store.folder / "in.parquet").read_bytes() == before
    assert not list(store.folder.glob("**/labels.parquet"))
    assert store.runs() == []
