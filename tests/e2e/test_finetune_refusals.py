"""What `finetune` refuses, before anything is fitted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from finetuning import NOTE, finetune, new_store, parents
from harness import Store
from small_labels import small_labels
from small_models import small_encoder

from moola_mlflow.encoder_files import save_encoder
from moola_mlflow.labels import LabelledSet, write_labels


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


GOOD = {"labels": "good.parquet"}
BAD = {
    "one class": ({"labels": "one_class.parquet"}, "every row is 'consolidation'; a detector needs two classes"),
    "too few": ({"labels": "few.parquet"}, "3 folds need 6 of each class", "label more windows or lower cv.folds"),
    "all overlap": ({"labels": "crowded.parquet"}, "1 groups that overlap", "label windows further apart"),
    "no labels": ({"labels": "none.parquet"}, "labels: no file 'none.parquet'", "'moola label' makes one"),
    "class named oddly": ({"labels": "odd_name.parquet"}, "'up & away' cannot be a class", "rename it"),
    "class named macro": ({"labels": "macro.parquet"}, "'macro' cannot be a class", "rename it"),
    "unknown head": ({**GOOD, "finetune.head": "spam"}, "finetune.head='spam' is unknown; did you mean 'span'?"),
    "no encoder": ({**GOOD, "encoder": "nowhere"}, "encoder 'nowhere' is not there; give models:/moola-encoder@"),
    "no version": ({**GOOD, "encoder": "models:/moola-encoder/99"}, "'models:/moola-encoder/99' cannot be fetched"),
    "encoder twice": ({**GOOD, "encoder": "one,one"}, "names an encoder twice; an ensemble needs different ones"),
    "one encoder, two names": ({**GOOD, "encoder": "one,models:/moola-encoder/1"}, "are one encoder; give different"),
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
        "finetune does not read windows.stride=7",
        "remove what belongs",
    ),
    "a key of objectives": ({"objective.name": "path"}, "finetune does not read objective.name=path"),
    "a schedule": ({"schedule.warmup_epochs": "1"}, "finetune does not read schedule.warmup_epochs=1"),
    "resume": ({"resume": "auto"}, "unknown parameter 'resume'"),
    "resume in full": ({"tracking.resume": "auto"}, "finetune does not read tracking.resume=auto"),
    "unfrozen too late": (
        {**GOOD, "encoder": "one", "freeze_encoder": "false", "finetune.unfreeze_at": "2"},
        "finetune.unfreeze_at=2 lies beyond the 2 epochs",
    ),
    "flat windows": ({"labels": "flat.parquet"}, "row 4 (window_id 'w3'): all prices of the window are 100"),
    "a price of 1e300": ({"labels": "huge.parquet"}, "row 4 (window_id 'w3'): bar 50 of features", "high 1e+300"),
    "windows without bodies": ({"labels": "dead.parquet"}, "feature quality: body_pct: non-zero in 0.00%"),
    "own bars": ({"labels.sample_seed": "1"}, "is also bars.sample_seed", "change one of the two"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_with_2_and_one_message_before_anything_is_fitted(store: Store, case: str) -> None:
    parameters, *messages = BAD[case]
    before = len(store.runs())
    done = finetune(store, **parameters)
    assert (done.code, "Traceback" in done.err) == (2, False)
    said = [line for line in done.err.splitlines() if line.startswith("moola: ")]
    assert len(said) == 1
    run = parents(store)[0]
    assert len(store.runs()) == before + 1  # no fold
    assert run.info.status == "FAILED"
    for message in messages:
        assert message in said[0]
        assert message in run.data.tags[NOTE]
    assert store.client.search_model_versions("name = 'moola-detector'") == []
    assert not any(name.startswith("cv/") for name in run.data.metrics)
