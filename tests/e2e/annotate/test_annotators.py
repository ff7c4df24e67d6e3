"""People who label the same file one after another, and what `finetune` knows of their run."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import Store
from small_sessions import serving, wait_for

from moola_mlflow.labels import read_event_labels


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_two_annotators_share_some_windows_and_their_agreement_is_tracked(store: Store) -> None:
    seen: dict[str, list[str]] = {"ann": [], "bob": []}
    for name, names in seen.items():
        with serving(store, annotator=name, annotate__overlap="0.5") as served:
            window = served.client.window()
            assert window["number"] == 1
            for place in range(12):
                names.append(window["window_id"])
                marks = [("retracement", 30, 40)] if len(names) % 2 or name == "ann" else []
                window = served.client.decide(window, *marks).body
                assert window["number"] == place + 2
            last = window["progress"]["agreement"]
            served.client.ask("/api/finish", {})
            served.end()
    common = set(seen["ann"]) & set(seen["bob"])
    assert len(common) == 6
    assert last["windows"] == 6
    labels = read_event_labels(store.folder / "mine.parquet")
    assert len(labels) == 18
    assert set(labels.events_per_window()[[list(labels.window_id).index(name) for name in common]]) == {1}  # ann's
    run = store.runs()[0]
    assert run.data.metrics["annotate/kappa"] == pytest.approx(last["kappa"])
    assert run.data.tags["moola.annotator"] == "bob"


def test_the_run_has_figures_by_decision_and_the_detector_that_ordered_the_windows(store: Store) -> None:
    keys = {"annotate__first_random": "12", "annotate__refit_every": "12", "annotate__overlap": "0"}
    with serving(store, **keys) as served:
        window = served.client.window()
        for place in range(12):
            window = served.client.decide(window, *([("retracement", 30, 40)] if place % 2 else [])).body
        wait_for(lambda: served.client.ask("/api/progress").body["refit"]["at"] == 12)
        drawn = []
        for _ in range(6):
            drawn.append((window["blind"], window["suggestion"] is not None))
            window = served.client.decide(window).body
        assert window["progress"]["map"][0][0] == 12
        run = store.runs()[0]
        wait_for(lambda: len(store.client.get_metric_history(run.info.run_id, "annotate/looked_at")) > 1)
        served.client.ask("/api/finish", {})
        served.end()
    run = store.runs()[0]
    assert run.data.tags["moola.detector"] == "refit at 12"
    assert run.data.metrics["annotate/looked_at"] == 18
    assert 0 <= run.data.metrics["annotate/blind_map"] <= 1
    labels = read_event_labels(store.folder / "mine.parquet")
    assert labels.drawn is not None
    assert sorted(labels.drawn).count("uncertain") >= 2
    assert run.data.tags["moola.labels_sha256"] == labels.sha256
    assert [blind for blind, _ in drawn].count(True) >= 1
    assert not any(blind and shown for blind, shown in drawn)
    done = store.run(
        "finetune",
        {"labels": "mine.parquet", "folds": "2", "finetune.head": "event", "register": "none", "epochs": "1"},
    )
    assert f"Labels of run {run.info.run_id} of annotate" in done.stdout, done.stdout + done.stderr
    assert store.runs()[-0].data.tags["moola.annotate_run_id"] == run.info.run_id
