"""`evaluate` on a real store: scores by a rule and by labels, what the run holds, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from finetuning import NOTE, command, newest
from harness import Store
from small_events import looked_at, random_event_detector
from small_models import small_detector
from touched import windows_of

from moola_mlflow.labels import EventLabels, write_labels
from moola_mlflow.models import save_detector, save_event_detector

DETECTOR = "models:/moola-detector/1"
BARS = {"bars.sample_bars": "8000", "bars.sample_seed": "7"}
LABELLED = {"bars.sample_bars": "30000", "bars.sample_seed": "43"}
"""The bars of the labels that no detector has seen."""


def drawn_labels() -> EventLabels:
    """Windows looked at of other bars than those of the detector's labels; a query chose ten of them."""
    drawn = np.array(["random"] * 50 + ["uncertain"] * 10)
    return replace(looked_at(60, seed=43), drawn=drawn, weak=False, sha256="")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with a registered event detector, folders with two others, and labels to score them on."""
    made = Store(tmp_path_factory.mktemp("evaluate"))
    write_labels(replace(looked_at(60), rule="surge-1"), made.folder / "labels.parquet")
    write_labels(drawn_labels(), made.folder / "looked_at.parquet")
    done = command(made, "finetune", labels="labels.parquet", folds="2", cv__workers="1")
    assert done.code == 0, done.err
    span = small_detector("price_path")
    card = {**span.card, "labels": {"weak": True, "rule": "surge-1"}}
    save_detector(replace(span, card=card), made.folder / "span")
    save_event_detector(random_event_detector(num_classes=2), made.folder / "of_people")
    return made


def test_the_rule_of_the_detectors_weak_labels_says_what_is_true(store: Store) -> None:
    done = command(store, "evaluate", detector=DETECTOR, out="shown", **BARS)
    run = newest(store, done)
    assert (run.info.status, run.data.tags["moola.stage"]) == ("FINISHED", "evaluate")
    assert (run.data.tags["moola.truth"], run.data.tags["moola.detector"]) == ("the rule surge-1", DETECTOR)
    figures = run.data.metrics
    scores = ("map", "ap_consolidation", "ap_retracement", "recall", "event_ece")
    assert {f"eval/{name}{end}" for name in scores for end in ("", "_lo", "_hi")} <= set(figures)
    assert figures["eval/map"] > 0.2
    assert figures["eval/true_events"] > 30
    table = pd.read_parquet(store.folder / "shown" / "evaluation.parquet")
    counts = table[table["above"]].groupby("judged")["label"].count()
    assert counts.get("right", 0) == figures["eval/right"]
    assert counts.get("wrong", 0) == figures["eval/wrong"]
    assert (table["judged"] == "missed").sum() == figures["eval/missed"]
    assert figures["eval/right"] + figures["eval/missed"] == figures["eval/true_events"]
    summary = json.loads(store.artifact(run, "evaluation.json").read_text(encoding="utf-8"))
    assert summary["scores"]["map"]["mean"] == pytest.approx(figures["eval/map"])
    assert summary["headline"] == run.data.tags["moola.headline"]
    page = (store.folder / "shown" / "evaluation.html").read_text(encoding="utf-8")
    assert page == store.artifact(run, "evaluation.html").read_text(encoding="utf-8")
    assert sum(map(len, windows_of(page))) == min(50, figures["eval/missed"]) + min(50, figures["eval/wrong"])
    assert {file.path for file in store.client.list_artifacts(run.info.run_id, "figures")} == {
        "figures/precision_recall.png", "figures/reliability.png",
    }  # fmt: skip
    errors = json.loads(store.artifact(run, "errors_table.json").read_text(encoding="utf-8"))
    assert len(errors["data"]) == figures["eval/missed"] + figures["eval/wrong"]
    assert {"path": "errors_table.json", "type": "table"} in json.loads(run.data.tags["mlflow.loggedArtifacts"])
    assert run.data.tags[NOTE].startswith("**mAP ")
    assert summary["headline"] in done.out
    assert "shown/evaluation.html" in done.out
    assert len(run.inputs.dataset_inputs) == 1


def test_labels_are_scored_where_somebody_looked_and_windows_of_a_query_are_left_out(store: Store) -> None:
    run = newest(store, done := command(store, "evaluate", detector=DETECTOR, labels="looked_at.parquet", **LABELLED))
    labels = drawn_labels()
    assert run.data.metrics["eval/true_events"] == (labels.window < 50).sum()
    assert run.data.metrics["eval/bars"] == 50 * 65  # a window of 105 bars without 20 at each end
    assert "10 of 60 windows were chosen by a query and are left out" in done.out
    assert "10 of 60 windows" in run.data.tags[NOTE]
    assert {one.tags[0].value for one in run.inputs.dataset_inputs} == {"evaluate"}
    assert len(run.inputs.dataset_inputs) == 2
    assert run.data.tags["moola.labels_sha256"] != run.data.tags["moola.data_sha256"]


def test_bars_that_the_detectors_labels_come_from_are_named(store: Store) -> None:
    own = {"bars.sample_bars": "30000", "bars.sample_seed": "41"}
    done = command(store, "evaluate", detector=DETECTOR, labels="labels.parquet", **own)
    assert done.code == 0, done.err
    assert "Warning: The detector learned from these very labels" in done.out
    assert "these very labels" in newest(store, done).data.tags["moola.warnings"]


def test_a_span_detector_is_scored_by_its_hits(store: Store) -> None:
    run = newest(store, done := command(store, "evaluate", detector="span", detect__min_span_score="0", **BARS))
    assert run.data.metrics["eval/threshold"] == 0.8
    assert "A span detector names a class in every window" in done.out


def test_two_evaluations_can_be_compared(store: Store) -> None:
    runs = [
        newest(store, command(store, "evaluate", detector=detector, evaluate__rule="surge-1", **BARS))
        for detector in (DETECTOR, "of_people")
    ]
    done = command(store, "compare", run_ids=",".join(run.info.run_id for run in runs), out="compared")
    assert done.code == 0, done.err
    page = (store.folder / "compared" / "compare.md").read_text(encoding="utf-8")
    assert "eval/map" in page
    assert f"`{DETECTOR}`" in page
    assert "did not read the same bars" not in page


REFUSED = {
    "an unknown rule": ({"evaluate.rule": "surge-9"}, "rule 'surge-9' is unknown"),
    "nobody says what is true": ({"detector": "of_people"}, "what is true is not known"),
    "two truths": ({"labels": "looked_at.parquet", "evaluate.rule": "surge-1"}, "each say what is true; give one"),
    "a margin without labels": ({"evaluate.margin": "5"}, "evaluate.margin is about labels"),
    "keys of another kind": ({"detect.min_probability": "0.5"}, "has no meaning for event detectors"),
    "other bars": ({"labels": "looked_at.parquet"}, "no window has the times and prices of these bars"),
    "windows of another length": ({"labels": "short.parquet"}, "holds 60 bars; a window has exactly 105"),
    "no event": ({"labels": "empty.parquet", **LABELLED}, "no event lies in these bars"),
    "an unknown class": ({"labels": "other.parquet", **LABELLED}, "and the detector knows consolidation, retracement"),
    "no labels file": ({"labels": "none.parquet"}, "no file 'none.parquet'"),
    "no such version": ({"detector": "models:/moola-detector@champion"}, "has no champion"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_scored_is_refused_in_words(store: Store, case: str) -> None:
    labels, folder = looked_at(60, seed=43), store.folder
    if not (folder / "short.parquet").exists():
        few = labels.select(np.flatnonzero(labels.events_per_window() == 0))
        write_labels(replace(few, classes=()), folder / "empty.parquet")
        write_labels(replace(few, ohlc=few.ohlc[:, :60], classes=()), folder / "short.parquet")
        write_labels(replace(labels, classes=("breakout", "retracement")), folder / "other.parquet")
    given, message = REFUSED[case]
    done = command(store, "evaluate", **{"detector": DETECTOR, **BARS, **given})
    assert done.code == 2, done.out + done.err
    assert message in done.err


def test_a_file_that_no_command_has_written_is_not_replaced(store: Store) -> None:
    folder = store.folder / "mine"
    folder.mkdir()
    (folder / "evaluation.json").write_text("{}")
    done = command(store, "evaluate", detector=DETECTOR, out="mine", **BARS)
    assert done.code == 2
    assert "no command of this folder has written it" in done.err
    assert (folder / "evaluation.json").read_text() == "{}"


@pytest.mark.slow
def test_the_launcher_evaluates_too(tmp_path: Path) -> None:
    store = Store(tmp_path)
    card = {"labels": {"weak": True, "rule": "surge-1"}}
    save_event_detector(random_event_detector(num_classes=2, **card), store.folder / "det")
    done = store.run("evaluate", {"detector": str(store.folder / "det"), **BARS}, True)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = store.runs()
    assert (run.data.tags["moola.stage"], run.info.status) == ("evaluate", "FINISHED")
    assert "eval/map" in run.data.metrics
