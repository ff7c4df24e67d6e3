"""finetune of an event detector on a real store: what the run, the version and its readers say."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from finetuning import NOTE, Done, add_encoder, command, newest, version_of
from harness import Store
from mlflow.entities import Run
from small_events import encoder_of_rules, looked_at, sample
from touched import windows_of

import moola_mlflow
from moola_mlflow.labels import write_labels
from moola_mlflow.models import EventDetector

SMALL = {"folds": "2", "cv.workers": "1"}
BARS = {"bars.sample_bars": "12000", "bars.sample_seed": "7"}
Tuned = tuple[Store, Run, Done]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """A store with a detector on path features, then one on an encoder of rules."""
    store = Store(tmp_path_factory.mktemp("events"))
    write_labels(looked_at(60), store.folder / "labels.parquet")
    add_encoder(store, "encoder", encoder_of_rules())
    assert command(store, "finetune", labels="labels.parquet", **SMALL).code == 0
    done = command(store, "finetune", labels="labels.parquet", encoder="models:/moola-encoder/1", **SMALL)
    return store, newest(store, done), done


def test_labels_with_windows_without_an_event_ask_for_an_event_detector(tuned: Tuned) -> None:
    _, run, done = tuned
    assert run.info.status == "FINISHED"
    assert "mAP" in run.data.tags[NOTE]
    assert {"cv/map", "cv/delta_map", "cv/recall", "labels/none", "labels/events", "event_threshold"} <= set(
        run.data.metrics
    )
    assert run.data.tags["moola.headline"] in done.out
    (given,) = run.inputs.dataset_inputs
    assert {tag.key: tag.value for tag in given.tags}["sha256"] == run.data.tags["moola.data_sha256"]


def test_the_artifacts_of_the_run_are_whole(tuned: Tuned, tmp_path: Path) -> None:
    store, run, _ = tuned
    names = {file.path for file in store.client.list_artifacts(run.info.run_id, "figures")}
    assert {"figures/precision_recall.png", "figures/reliability.png", "figures/paired_differences.png"} <= names
    path = store.client.download_artifacts(run.info.run_id, "cv_summary.json", str(tmp_path))
    summary = json.loads(Path(path).read_text(encoding="utf-8"))
    assert summary["kind"] == "event"
    assert summary["num_windows"] == 60
    assert summary["avg_metrics"]["map"]["mean"] == pytest.approx(run.data.metrics["cv/map"])


def test_the_version_serves_windows_with_none_and_null_spans_and_bars_with_the_time_at_which_events_are_known(
    tuned: Tuned,
) -> None:
    store, _, _ = tuned
    mlflow.set_tracking_uri(store.uri)
    served, detector = (
        load("models:/moola-detector/2") for load in (mlflow.pyfunc.load_model, moola_mlflow.load_detector)
    )
    assert isinstance(detector, EventDetector)
    answer, found = served.predict(looked_at(60).ohlc), detector.predict(looked_at(60).ohlc)
    assert list(answer.columns) == [
        *("label", "p_consolidation", "p_retracement", "p_none", "expansion_start", "expansion_end")
    ]
    assert answer["label"].tolist() == found.label.tolist()
    empty = answer["label"] == "none"
    assert 0 < empty.sum() < 60
    assert answer.loc[empty, "expansion_start"].isna().all()
    assert (answer.loc[~empty, "expansion_start"] == found.start[~empty]).all()
    assert np.allclose(answer.filter(regex="^p_").sum(axis=1), 1)

    bars = sample()
    table = pd.DataFrame(bars.ohlc[:4000], columns=["open", "high", "low", "close"])
    table.insert(0, "time", pd.to_datetime(bars.time_ns[:4000], utc=True))
    events = served.predict(table, params={"min_score": 0.1})
    assert len(events) > 0
    assert (pd.to_datetime(events["known_at"]) > pd.to_datetime(events["end"])).all()
    assert len(served.predict(table, params={"min_score": 1.0})) == 0


def test_detect_writes_events_and_says_what_to_expect_at_the_threshold(tuned: Tuned) -> None:
    store, _, _ = tuned
    given = {"detector": "models:/moola-detector/2", "bars": "sample", "out": "found", **BARS}
    done = command(store, "detect", **given, detect__precision="0.5")
    run = newest(store, done)
    table = pd.read_parquet(store.folder / "found" / "detections.parquet")
    assert run.data.metrics["detect/hits"] == len(table) > 0
    assert table["score"].mean() == pytest.approx(run.data.metrics["detect/expected_precision"])
    assert run.data.metrics["detect/expected_precision"] >= 0.5
    assert (table["known_at"] > table["end"]).all()
    assert "Expected there: precision" in done.out
    page = (store.folder / "found" / "detections.html").read_text(encoding="utf-8")
    assert len(windows_of(page)[0]) == min(50, len(table))
    events = pd.read_parquet(store.folder / "found" / "events.parquet")
    assert len(events) == len(table)
    assert (events["tradable_at"].dropna() >= events.loc[events["tradable_at"].notna(), "known_at"]).all()
    after = pd.read_csv(store.folder / "found" / "after_events.csv")
    assert set(after["bars"]) == {5, 10, 20, 60}
    assert "It is not a backtest" in page
    assert not (store.folder / "found" / "signals.parquet").exists()
    signals = command(store, "detect", **given, detect__precision="0.5", detect__signals="true")
    assert signals.code == 0, signals.err
    assert pd.read_parquet(store.folder / "found" / "signals.parquet").filter(like="entry_").any(axis=None)
    names = {file.path for file in store.client.list_artifacts(newest(store, signals).info.run_id)}
    assert {"events.parquet", "after_events.csv", "signals.parquet"} <= names
    other = command(store, "detect", **given, detect__min_probability="0.5")
    assert other.code == 2
    assert "detect.min_probability=0.5 has no meaning for event detectors" in other.err
    both = command(store, "detect", **given, detect__precision="0.5", detect__min_score="0.5")
    assert both.code == 2
    assert "each choose a threshold" in both.err


def test_promote_judges_an_event_detector_by_its_own_gates(tuned: Tuned) -> None:
    store, run, _ = tuned
    missed = version_of(store, number="2").tags["gates"]
    assert version_of(store, number="2").run_id == run.info.run_id
    refused = command(store, "promote", model="moola-detector", version="2")
    assert refused.code == (0 if missed == "passed" else 3)
    assert command(store, "promote", model="moola-detector", version="2", force="true").code == 0
    assert moola_mlflow.load_detector("models:/moola-detector@champion").card["run_id"] == run.info.run_id


def test_a_head_for_spans_reads_the_windows_with_one_event_and_says_so(tuned: Tuned) -> None:
    store, _, _ = tuned
    done = command(
        store, "finetune", labels="labels.parquet", finetune__head="span", finetune__inputs="price_path", epochs="1",
        encoder__hidden="3", register="none", **SMALL,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert f"{looked_at(60).num_events} labelled windows" in done.out


def test_a_sweep_refuses_the_event_head_in_words(tuned: Tuned) -> None:
    store, _, _ = tuned
    done = command(
        store, "sweep", config="configs/sweep_finetune.yaml", base="configs/finetune.yaml", labels="labels.parquet",
        finetune__head="event", n_trials="1",
    )  # fmt: skip
    assert done.code == 2
    assert "a sweep searches detectors of spans" in done.err


@pytest.mark.slow
def test_the_launcher_fits_an_event_detector_too(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write_labels(looked_at(60), store.folder / "labels.parquet")
    done = store.run("finetune", {"labels": str(store.folder / "labels.parquet"), **SMALL}, True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "windows looked at" in done.stdout
    assert store.client.get_model_version("moola-detector", "1")


def test_positives_alone_and_bars_give_a_detector_that_knows_none_and_says_what_was_assumed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    labels = looked_at(60)
    write_labels(labels.select(np.flatnonzero(labels.events_per_window() == 1)), store.folder / "positives.parquet")
    bars = sample()
    table = pd.DataFrame(bars.ohlc, columns=["open", "high", "low", "close"])
    table.insert(0, "time", pd.to_datetime(bars.time_ns, utc=True))
    table.to_parquet(store.folder / "bars.parquet")
    given = {"labels": "positives.parquet", "finetune__unlabelled": "bars", "finetune__unlabelled_windows": "200"}
    refused = command(store, "finetune", **given, **SMALL)
    assert refused.code == 2
    assert "give --bars FILE" in refused.err
    done = command(store, "finetune", **given, bars="bars.parquet", **SMALL, finetune__base_rate="0.3")
    assert done.code == 0, done.err
    run = newest(store, done)
    assert "Assumed: 30% of windows hold an event (finetune.base_rate)" in done.out
    assert "positive-unlabelled learning" in run.data.tags[NOTE]
    assert "precision and mAP are too high" in run.data.tags[NOTE]
    assert {item.dataset.name for item in run.inputs.dataset_inputs} == {"positives.parquet", "bars.parquet"}
    mlflow.set_tracking_uri(store.uri)
    detector = moola_mlflow.load_detector("models:/moola-detector/1")
    assert detector.card["unlabelled"]["step"] == "positive-unlabelled"
    assert detector.card["unlabelled"]["base_rate"] == 0.3
    found = detector.predict(labels.ohlc)
    assert 0 < (found.label == "none").mean() < 1
