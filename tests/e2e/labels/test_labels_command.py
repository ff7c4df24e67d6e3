"""`moola labels` on a real store: what the run, its table and its page say, other forms, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from event_files import some_events
from finetuning import command
from harness import Store
from touched import windows_of

from moola_mlflow.labels import read_event_labels, write_labels


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path)
    write_labels(some_events(), made.folder / "mine.parquet")
    return made


def test_the_run_holds_figures_a_table_and_a_page_with_a_chart_of_every_window(store: Store) -> None:
    done = command(store, "labels", labels="mine.parquet", out="shown")
    assert done.code == 0, done.err
    (run,) = store.runs()
    labels = some_events()
    assert (run.info.status, run.data.tags["moola.stage"]) == ("FINISHED", "labels")
    wanted = {"labels/windows": len(labels), "labels/events": labels.num_events, "labels/none": 4, "labels/kept": 0.6}
    assert {name: run.data.metrics[name] for name in wanted} == wanted
    table = json.loads(store.artifact(run, "labels_table.json").read_text())
    assert len(table["data"]) == len(labels.row_window())
    page = (store.folder / "shown" / "labels.html").read_text(encoding="utf-8")
    assert sum(map(len, windows_of(page))) == len(labels)
    assert page == store.artifact(run, "labels.html").read_text(encoding="utf-8")
    assert "10 windows looked at, 8 events (5 fall, 3 rise); 60% of the windows hold one, 4 hold none" in done.out
    assert run.data.tags["mlflow.note.content"].startswith("**10 windows looked at")
    assert len(run.inputs.dataset_inputs) == 1


def test_labels_are_written_again_with_a_page_beside_them(store: Store) -> None:
    assert command(store, "labels", labels="mine.parquet", out="new/again.parquet").code == 0
    again = read_event_labels(store.folder / "new" / "again.parquet")
    assert again.sha256 == read_event_labels(store.folder / "mine.parquet").sha256
    assert (store.folder / "new" / "again.html").is_file()
    (run,) = store.runs()
    assert read_event_labels(store.artifact(run, "again.parquet")).sha256 == again.sha256
    assert command(store, "labels", labels=f"runs:/{run.info.run_id}").code == 0


@pytest.mark.parametrize("form", ["json", "csv"])
def test_labels_change_their_form_and_back(store: Store, form: str) -> None:
    keys = {"bars__sample_bars": "12000"}
    assert command(store, "label", n="20", **keys, out="weak.parquet").code == 0
    assert command(store, "labels", labels="weak.parquet", out=f"weak.{form}").code == 0
    seed = {"bars__sample_seed": "1001"}  # of sample labels
    done = command(store, "labels", labels=f"weak.{form}", out="back.parquet", **keys, **seed)
    assert done.code == 0, done.err
    back, labels = (read_event_labels(store.folder / name) for name in ("back.parquet", "weak.parquet"))
    assert back.sha256 == labels.sha256
    assert back.weak
    run = store.runs()[0]
    inputs = {one.dataset.name for one in run.inputs.dataset_inputs}
    assert len(inputs) == (2 if form == "csv" else 1)


def test_a_file_that_is_there_is_kept_unless_it_may_be_replaced(store: Store) -> None:
    before = (store.folder / "mine.parquet").read_bytes()
    done = command(store, "labels", labels="mine.parquet", out="mine.parquet")
    assert done.code == 2
    assert "'mine.parquet' exists, and no command of this folder has written it; give another name" in done.err
    assert (store.folder / "mine.parquet").read_bytes() == before
    for _ in range(2):  # what the command has written itself, it may replace
        assert command(store, "labels", labels="mine.parquet", out="new.json").code == 0
    done = command(store, "labels", labels="mine.parquet", out="mine.parquet", overwrite="true")
    assert done.code == 0, done.err
    assert (store.folder / "mine.parquet.bak").read_bytes() == before


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"labels": "other.parquet"}, "no file 'other.parquet'; did you mean 'mine.parquet'"),
        ({"labels": "mine.parquet", "out": "mine.txt"}, "out='mine.txt'; allowed: a file that ends in .parquet"),
        ({"labels": "mine.parquet", "labels__charts": "5000"}, "labels.charts"),
    ],
)
def test_what_cannot_be_shown_is_refused(store: Store, keys: dict[str, str], message: str) -> None:
    done = command(store, "labels", **keys)
    assert done.code == 2
    assert message in done.err
