"""`moola rules` on a real store: what the run, its table and its page say of the rules."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pytest
from finetuning import command
from harness import Store
from touched import windows_of

from moola_mlflow.labels import SELECTORS

KEYS = {"bars__sample_bars": "6000", "objective__num_rules": "12", "objective__family": "broad"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_the_run_holds_a_table_of_all_rules_and_a_page_with_pictures(store: Store) -> None:
    done = command(store, "rules", **KEYS, objective__rules_seed="3", out="found")
    assert done.code == 0, done.err
    (run,) = store.runs()
    assert (run.info.status, run.data.tags["moola.stage"]) == ("FINISHED", "rules")
    assert run.data.metrics["rules/drawn"] == 12
    assert 0.35 < run.data.metrics["rules/found"] <= 1
    rows = list(csv.DictReader((store.folder / "found" / "rules.csv").open(encoding="utf-8")))
    assert {"surge-1"} <= {row["rule"] for row in rows}
    drawn = [row for row in rows if row["rule"].startswith("broad-3-")]
    assert len(drawn) == 12
    assert {row["selector"] for row in drawn} <= set(SELECTORS)
    assert all(float(row["found"]) >= 0.3 for row in drawn)
    page = (store.folder / "found" / "rules.html").read_text(encoding="utf-8")
    shown = {row["selector"] for row in drawn} | {"surge-1"}
    (titles,) = windows_of(page)
    assert {title.partition(":")[0] for title in titles} == shown
    for name in ("rules.csv", "rules.html"):
        assert store.artifact(run, name).read_bytes() == (store.folder / "found" / name).read_bytes()
    assert "12 rules of family broad, seed 3, find a span in" in done.out
    assert all(f" {name} " in done.out for name in SELECTORS)
    assert run.data.tags["mlflow.note.content"].startswith("**12 rules of family broad, seed 3")


def test_the_same_bars_and_seed_give_the_same_table(store: Store) -> None:
    for out in ("one", "two"):
        assert command(store, "rules", **KEYS, out=out).code == 0
    assert (store.folder / "one" / "rules.csv").read_bytes() == (store.folder / "two" / "rules.csv").read_bytes()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"objective__family": "lax"}, "objective.family"),
        ({"windows__length": "60"}, "needs 90 bars or more"),
        ({"windows__stride": "7"}, "does not read windows.stride"),
    ],
)
def test_what_cannot_be_shown_is_refused(store: Store, keys: dict[str, str], message: str) -> None:
    done = command(store, "rules", **{**KEYS, **keys})
    assert done.code == 2
    assert message in done.err


def test_a_folder_that_is_a_file_is_refused(store: Store) -> None:
    (store.folder / "taken").write_text("")
    assert command(store, "rules", **KEYS, out="taken").code == 2


def test_bars_of_ones_own_are_read(store: Store) -> None:
    from moola_mlflow.bars.sample import generate_bars

    generate_bars(4000, 5).to_parquet(store.folder / "mine.parquet")
    done = command(store, "rules", bars="mine.parquet", objective__num_rules="4")
    assert done.code == 0, done.err
    assert [item.dataset.name for item in store.runs()[0].inputs.dataset_inputs] == ["mine.parquet"]
    assert isinstance(pd.read_csv(store.artifact(store.runs()[0], "rules.csv")), pd.DataFrame)
