"""A quick comparison names what it left out and is not promoted; an averaged detector is served as it predicts."""

from __future__ import annotations

import json

import mlflow
import numpy as np
import pytest
from finetuning import NOTE, add_encoder, card_of, command, finetune, new_store, newest, version_of
from harness import Store
from prior_settings import encoder_with_heads
from small_labels import small_labels

import moola_mlflow

LEFT_OUT = ["scratch", "pooled_scratch", "random_encoder"]
GAIN = "delta_joint_success_at_3_lo"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return new_store(tmp_path_factory.mktemp("quick"))


@pytest.mark.slow
def test_a_quick_comparison_names_what_it_left_out_and_promotion_refuses_it(store: Store) -> None:
    run = newest(store, finetune(store, encoder="one", register="quick", cv__baselines="quick"))
    assert run.data.tags["moola.baselines"] == version_of(store, "quick").tags["moola.baselines"] == "quick"
    assert {name for name in run.data.metrics if name.startswith("baseline/scratch")} == set()
    assert "baseline/path_features/f1_macro" in run.data.metrics
    assert f"Not compared with {', '.join(LEFT_OUT)} (cv.baselines=quick)." in run.data.tags["moola.headline"]
    assert "left out" in run.data.tags["moola.warnings"]
    assert "cv.baselines=all" in run.data.tags[NOTE]
    gates = {row["gate"]: row for row in json.loads(store.artifact(run, "gates.json").read_text())}
    assert (gates[GAIN]["passed"], gates[GAIN]["value"]) == (False, None)
    assert card_of(store, run)["evidence"]["left_out"] == LEFT_OUT
    low = {f"gates__{name}": "-1" for name in ("f1_macro", "joint_success_at_3", "recall", "delta_joint_success_at_3")}
    refused = command(store, "promote", model="quick", gates__ece="2", **low)
    assert refused.code == 3
    assert f"{GAIN} was not measured" in refused.err


@pytest.mark.slow
def test_an_averaged_detector_is_registered_and_served_as_it_predicts(store: Store) -> None:
    encoder = encoder_with_heads()
    add_encoder(store, "rules", encoder)
    keys = {"encoder": "rules", "register": "averaged", "finetune__reader": "averaged", "cv__baselines": "quick"}
    run = newest(store, finetune(store, **keys))
    card = card_of(store, run)
    assert (card["reader"], card["inputs"], card["architecture"]["head"]) == ("averaged", "both", "averaged")
    ohlc = small_labels(4).ohlc
    found = moola_mlflow.load_detector("models:/averaged/1").predict(ohlc)
    served = mlflow.pyfunc.load_model("models:/averaged/1").predict(ohlc)
    assert served["expansion_start"].tolist() == found.start.tolist()
    np.testing.assert_allclose(served.filter(like="p_").to_numpy(), found.probability, rtol=1e-6)
