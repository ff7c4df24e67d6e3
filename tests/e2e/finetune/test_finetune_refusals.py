"""What `finetune` refuses, before anything is fitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from finetuning import finetune, new_store, parents
from harness import Store, note_of
from small_labels import small_labels
from small_models import small_encoder

from moola_mlflow.labels.label_files import write_labels
from moola_mlflow.labels.labelled_set import LabelledSet
from moola_mlflow.models.files.encoder import save_encoder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with two encoders and files of bad labels."""
    store = new_store(tmp_path_factory.mktemp("refused"))
    write_bad_inputs(store.folder)
    return store


def with_window(labels: LabelledSet, i: int, window: np.ndarray) -> LabelledSet:
    ohlc = labels.ohlc.copy()
    ohlc[i] = window
    return replace(labels, ohlc=ohlc)


def spiked(window: np.ndarray) -> np.ndarray:
    """A price that a file format has broken."""
    window = window.copy()
    window[50, 1] = 1e300
    return window


def bodiless(ohlc: np.ndarray) -> np.ndarray:
    """Bars that close where they opened: half of the features say nothing."""
    ohlc = ohlc.copy()
    ohlc[..., 3] = ohlc[..., 0]
    return ohlc


def write_bad_inputs(folder: Path) -> None:
    longer, renamed = small_encoder(), small_labels(24)
    longer.card = {**longer.card, "window": {"length": 210, "stride": 52, "warmup": 20}}
    save_encoder(longer, longer.card, folder / "longer")
    for name, labels in {
        "one_class": replace(renamed, label=renamed.label * 0),
        "few": small_labels(8),
        "odd_name": replace(renamed, classes=("consolidation", "up & away")),
        "macro": replace(renamed, classes=("consolidation", "macro")),
        "good": renamed,
        "flat": with_window(renamed, 3, np.full((105, 4), 100.0)),
        "huge": with_window(renamed, 3, spiked(renamed.ohlc[3])),
        "dead": replace(renamed, ohlc=bodiless(renamed.ohlc)),
        "crowded": replace(renamed, start_ns=renamed.start_ns * 0, end_ns=renamed.end_ns * 0 + 104 * 60 * 10**9),
    }.items():
        write_labels(labels, folder / f"{name}.parquet")
    good = pd.read_parquet(folder / "good.parquet")
    for name, (column, change) in BAD_ROWS.items():
        values = good[column].tolist()
        values[2] = change(values)
        good.assign(**{column: values}).to_parquet(folder / f"{name}.parquet")


def with_nan(window: Sequence[Sequence[float]]) -> list[list[float]]:
    bars = [list(bar) for bar in window]
    bars[9][3] = float("nan")
    return bars


BAD_ROWS: dict[str, tuple[str, Callable[[list[Any]], Any]]] = {
    "short_row": ("features", lambda values: values[2][:-1]),
    "nan_row": ("features", lambda values: with_nan(values[2])),
    "reversed_row": ("expansion_end", lambda values: 0),
    "pointer_row": ("expansion_end", lambda values: 105),
    "class_row": ("label", lambda values: values[2].upper()),
    "twice_row": ("window_id", lambda values: values[0]),
}
"""What is wrong with the third row of a file: from all values of a column the one that it gets."""
GOOD = {"labels": "good.parquet"}
BAD = {
    "one class": ({"labels": "one_class.parquet"}, "every row is 'consolidation'; a detector needs two classes"),
    "too few": ({"labels": "few.parquet"}, "3 folds need 2 x 3 = 6 of each class", "label more"),
    "all overlap": ({"labels": "crowded.parquet"}, "1 groups that overlap", "label windows further apart"),
    "no labels": ({"labels": "none.parquet"}, "labels: no file 'none.parquet'", "'moola label' makes one"),
    "class named oddly": ({"labels": "odd_name.parquet"}, "'up & away' cannot be a class", "rename it"),
    "class named macro": ({"labels": "macro.parquet"}, "'macro' cannot be a class", "rename it"),
    "104 bars": ({"labels": "short_row.parquet"}, "row 3 (", "features holds 104 bars; a window has exactly 105"),
    "a NaN": ({"labels": "nan_row.parquet"}, "row 3 (", "close is not a finite number", "correct"),
    "end before start": ({"labels": "reversed_row.parquet"}, "row 3 (", "is not before expansion_end 0"),
    "pointer 105": ({"labels": "pointer_row.parquet"}, "row 3 (", "expansion_end 105 lies outside", "0 to 104"),
    "unknown class": ({"labels": "class_row.parquet"}, "row 3 (", "is an unknown class; write"),
    "an id twice": ({"labels": "twice_row.parquet"}, "row 3 (", "window_id"),
    "unknown head": ({**GOOD, "finetune.head": "spam"}, "finetune.head='spam' is unknown; did you mean 'span'?"),
    "no encoder": ({**GOOD, "encoder": "nowhere"}, "encoder 'nowhere' does not exist; give models:/moola-encoder@"),
    "no version": ({**GOOD, "encoder": "models:/moola-encoder/99"}, "'models:/moola-encoder/99' cannot be fetched"),
    "encoder twice": ({**GOOD, "encoder": "one,one"}, "names an encoder twice; name different ones"),
    "one encoder, two names": ({**GOOD, "encoder": "one,models:/moola-encoder/1"}, "are the same encoder; name"),
    "other windows": ({**GOOD, "encoder": "longer"}, "windows of 210 bars, the labels hold 105; take an encoder"),
    "seed twice": ({**GOOD, "seeds": "13,13"}, "a seed is given twice"),
    "a name of encoders": (
        {**GOOD, "register": "moola-encoder"},
        "'moola-encoder' holds encoders",
        "give another name",
    ),
    "a typing error": (
        {**GOOD, "encoder": "models:/moola-encodre@candidate"},
        "did you mean 'moola-encoder'? Registered: moola-encoder",
    ),
    "no such alias": (
        {**GOOD, "encoder": "models:/moola-encoder@candidat"},
        "did you mean 'candidate'?",
        "versions 1, 2",
    ),
    "a key of bars": (
        {**GOOD, "windows.stride": "7"},
        "finetune does not read windows.stride=7, a key of features, pretrain and sweep",
    ),
    "a key of objectives": ({"objective.name": "price_path"}, "finetune does not read objective.name=price_path"),
    "a schedule": ({"schedule.warmup_epochs": "1"}, "finetune does not read schedule.warmup_epochs=1"),
    "resume": ({"resume": "auto"}, "finetune does not read resume=auto, a key of pretrain"),
    "resume in full": ({"tracking.resume": "auto"}, "finetune does not read tracking.resume=auto, a key of pretrain"),
    "unfrozen too late": (
        {**GOOD, "encoder": "one", "freeze_encoder": "false", "finetune.unfreeze_at": "2"},
        "finetune.unfreeze_at=2 lies beyond the 2 epochs",
    ),
    "flat windows": ({"labels": "flat.parquet"}, "row 4 (window_id 'w3'): all prices of the window are 100"),
    "a price of 1e300": ({"labels": "huge.parquet"}, "row 4 (window_id 'w3'): bar 50 of features", "high 1e+300"),
    "windows without bodies": ({"labels": "dead.parquet"}, "feature quality: body_pct: non-zero in 0.00%"),
    "own bars": ({"labels.sample_seed": "1"}, "is also bars.sample_seed", "change one of the two"),
}
KEPT = ("windows without bodies",)
"""Cases whose run stays: it has a report on the features, which shows what is wrong."""


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_with_2_and_one_message_before_anything_is_fitted(store: Store, case: str) -> None:
    parameters, *messages = BAD[case]
    before = len(store.runs())
    done = finetune(store, **parameters)
    assert (done.code, "Traceback" in done.err) == (2, False)
    said = [line for line in done.err.splitlines() if line.startswith("moola: ")]
    assert len(said) == 1
    kept = case in KEPT
    assert len(store.runs()) == before + kept  # no fold
    for message in messages:
        assert message in said[0]
        assert not kept or message in note_of(parents(store)[0])
    assert store.client.search_model_versions("name = 'moola-detector'") == []
