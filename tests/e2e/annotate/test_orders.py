"""Orders of the windows over real HTTP: by a detector that is given, by a list, and a review of labels."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import Store
from small_events import random_event_detector
from small_sessions import sample, serving, wait_for

from moola_mlflow.annotate.candidates import Candidates
from moola_mlflow.labels import read_event_labels
from moola_mlflow.models import save_event_detector


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_a_detector_orders_windows_from_the_first_one_on(store: Store) -> None:
    save_event_detector(random_event_detector(num_classes=2), store.folder / "detector")
    keys = {"detector": "detector", "annotate__first_random": "0", "annotate__blind_share": "0"}
    with serving(store, **keys, annotate__ordered_share="1", annotate__overlap="0", annotate__order="top") as served:
        assert served.client.ask("/api/session").body["classes"] == ["consolidation", "retracement"]
        wait_for(lambda: served.client.ask("/api/progress").body["refit"]["at"] == 0)
        served.client.decide(served.client.window())
        for _ in range(3):
            window = served.client.window()
            assert window["suggestion"] is not None
            served.client.decide(window, action="accept")
        served.client.ask("/api/finish", {})
        served.end()
    (run,) = store.runs()
    assert run.data.tags["moola.detector"].endswith("detector")
    labels = read_event_labels(store.folder / "mine.parquet")
    assert labels.drawn is not None
    assert sorted(labels.drawn)[-3:] == ["top"] * 3


def test_a_list_is_shown_in_its_order(store: Store) -> None:
    found = Candidates.of(sample(), 105, 105, 5, "UTC")
    names = found.names(found.starts[[9, 4, 30]])
    (store.folder / "list.txt").write_text("\n".join(names))
    with serving(store, annotate__order="list", annotate__list="list.txt") as served:
        window, seen = served.client.window(), []
        while "ticket" in window:
            seen.append(window["window_id"])
            window = served.client.decide(window).body
        served.client.ask("/api/finish", {})
        served.end()
    assert seen == names
    labels = read_event_labels(store.folder / "mine.parquet")
    assert labels.drawn is not None
    assert set(labels.drawn) == {"listed"}


def test_hits_of_detect_are_accepted_or_rejected_in_a_review(store: Store) -> None:
    save_event_detector(random_event_detector(num_classes=2), store.folder / "detector")
    keys = {"detector": "detector", "bars.sample_bars": "12000", "detect.min_score": "0", "out": "found"}
    assert store.run("detect", keys).returncode == 0
    hits = "found/detections.parquet"
    with serving(store, annotate__review="true", annotate__list=hits) as served:
        accepted = served.client.window()
        assert accepted["review"]["kind"] == "hit"
        rejected = served.client.decide(accepted, action="accept").body
        corrected = served.client.decide(rejected, action="reject").body
        served.client.decide(corrected, ("retracement", 3, 12))
        served.client.ask("/api/finish", {})
        served.end()
    labels = read_event_labels(store.folder / "mine.parquet")
    counts = dict(zip(labels.window_id.tolist(), labels.events_per_window().tolist(), strict=True))
    assert counts[accepted["window_id"]] >= 1
    assert counts[rejected["window_id"]] == 0
    assert counts[corrected["window_id"]] == 1
    assert labels.extra is not None
    assert set(labels.extra["source"].to_pylist()) == {"corrected"}


def test_what_cannot_be_shown_is_refused(store: Store) -> None:
    base = {"bars.sample_bars": "12000", "port": "0", "labels": "mine.parquet"}
    for keys, said in (
        ({"annotate.order": "list"}, "needs annotate.list"),
        ({"annotate.list": "none.txt"}, "is no file"),
        ({"annotate.review": "true"}, "needs labels in the file"),
        ({"labels": "mine.csv"}, "a file that ends in .parquet"),
        ({"detector": "none"}, "none"),
        ({"annotate.zone": "Mars/Olympus"}, "annotate.zone"),
    ):
        done = store.run("annotate", {**base, **keys})
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
