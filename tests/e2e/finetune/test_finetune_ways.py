"""Ways to fine-tune: ensembles, other classes, other inputs, phase 2, seeds, gates."""

from __future__ import annotations

import json
import re

import mlflow
import numpy as np
import pytest
import torch
from finetuning import (
    NOTE,
    card_of,
    children,
    command,
    finetune,
    new_store,
    newest,
    parents,
    version_of,
)
from harness import ROOT, Store
from safetensors.torch import load_file
from small_labels import small_labels

import moola_mlflow
from moola_mlflow.bars.sample import generate_bars
from moola_mlflow.labels.label_files import write_labels


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with two encoders, for runs whose tests look at their own run alone."""
    return new_store(tmp_path_factory.mktemp("other"))


@pytest.mark.slow
def test_two_encoders_are_read_as_an_ensemble(other: Store) -> None:
    run = newest(other, finetune(other, encoder="models:/moola-encoder/1, models:/moola-encoder/2", register="both"))
    card = card_of(other, run)
    assert [row["model_id"] for row in card["encoders"]] == ["one", "other"]
    assert (card["architecture"]["num_encoders"], card["architecture"]["num_inputs"]) == (2, 8 + 10 + 56)
    version = version_of(other, "both")
    assert version.tags["features"] == "relativity11,relativity10"
    found = moola_mlflow.load_detector("models:/both/1").predict(small_labels(4).ohlc)
    assert found.probability.shape == (4, 2)


@pytest.mark.slow
def test_three_classes_come_from_a_file(other: Store) -> None:
    labels = small_labels(60, num_classes=3)
    write_labels(labels, other.folder / "three.parquet")
    run = newest(other, finetune(other, labels="three.parquet", encoder="one", register="three"))
    assert {f"cv/recall_{name}" for name in labels.classes} <= set(run.data.metrics)
    assert run.data.tags["moola.weak_labels"] == "false"
    assert "WEAK" not in run.data.tags[NOTE]
    gates = [row["gate"] for row in json.loads(other.artifact(run, "gates.json").read_text())]
    assert [f"recall/{name}" for name in labels.classes] == [gate for gate in gates if gate.startswith("recall/")]
    model = mlflow.pyfunc.load_model("models:/three/1")
    said = model.predict(labels.ohlc[:5])
    assert [c for c in said.columns if c.startswith("p_")] == [f"p_{name}" for name in labels.classes]
    assert said.filter(like="p_").sum(axis=1).tolist() == pytest.approx([1] * 5)


@pytest.mark.slow
def test_labels_without_times_are_used_and_what_that_costs_is_told(other: Store) -> None:
    write_labels(small_labels(60, times="none"), other.folder / "timeless.parquet")
    done = finetune(other, labels="timeless.parquet", encoder="one", register="none")
    run = newest(other, done)
    warning = "the labels carry no times"
    assert f"Warning: {warning}" in done.out
    assert run.data.tags["moola.warnings"].startswith(warning)
    assert f"Warning: {warning}" in run.data.tags[NOTE]
    assert "data/pretrain_overlap" not in run.data.metrics
    assert card_of(other, run)["pretrain_overlap"] is None


@pytest.mark.slow
def test_phase_2_trains_the_encoder_on_from_its_epoch(other: Store) -> None:
    phase_2 = str(ROOT / "configs" / "phase2.yaml")
    run = newest(
        other,
        finetune(other, config=phase_2, epochs="3", finetune__unfreeze_at="0", encoder="one", register="none"),
    )
    assert (run.data.params["finetune.freeze"], run.data.params["optimizer.lr"]) == ("False", "0.0001")
    assert card_of(other, run)["fitted"] == "unfrozen"
    kept = load_file(other.artifact(run, "detector") / "encoders" / "0" / "weights.safetensors")
    given = load_file(other.folder / "one" / "weights.safetensors")
    assert not any(torch.equal(kept[name], given[name]) for name in given if "weight" in name)
    assert torch.equal(kept["mean"], given["mean"])
    late = finetune(other, config=phase_2, epochs="2", finetune__unfreeze_at="2", encoder="one", register="none")
    assert late.code == 2
    assert "finetune.unfreeze_at=2 lies beyond the 2 epochs" in late.err
    assert "allowed: 0 to 1" in late.err


@pytest.mark.slow
def test_without_an_encoder_the_configured_network_is_trained_from_scratch(other: Store) -> None:
    run = newest(other, finetune(other, encoder="", register="scratch"))
    card = card_of(other, run)
    assert (card["fitted"], card["encoders"], card["architecture"]["num_inputs"]) == ("scratch", [], 6 + 56)
    assert "baseline/scratch/f1_macro" not in run.data.metrics
    assert "baseline/path_features/f1_macro" in run.data.metrics
    assert run.data.metrics["data/pretrain_overlap"] == 0
    version = version_of(other, "scratch")
    assert (version.tags["features"], version.tags["trained_from"]) == ("relativity11", "unknown")
    assert "encoder `none`" in run.data.tags[NOTE]
    assert re.match("No pre-training in this detector: .*path features alone", run.data.tags["moola.headline"])


@pytest.mark.slow
def test_path_features_alone_make_a_detector_without_an_encoder(other: Store) -> None:
    run = newest(other, finetune(other, **{"finetune.inputs": "price_path", "register": "path"}))
    card = card_of(other, run)
    assert (card["fitted"], card["architecture"]["num_encoders"], card["architecture"]["num_inputs"]) == (
        "price_path",
        0,
        56,
    )
    assert "baseline/path_features/f1_macro" not in run.data.metrics
    assert re.match("No pre-training in this detector: .*it reads path features alone", run.data.tags["moola.headline"])
    assert version_of(other, "path").tags["features"] == "price_path"
    assert len(moola_mlflow.load_detector("models:/path/1").predict(small_labels(4).ohlc)) == 4


@pytest.mark.slow
def test_hand_made_features_beside_the_encoding_reach_the_served_detector_and_a_scan(other: Store) -> None:
    given = {"finetune.inputs": "encoding+features", "features.set": "relativity12", "register": "own"}
    run = newest(other, finetune(other, encoder="one", **given))
    card = card_of(other, run)
    assert (card["inputs"], card["features"]["set"]) == ("encoding+features", "relativity12")
    assert card["architecture"]["num_inputs"] == 8 + 12
    assert "baseline/hand_made/joint_success_at_3" in run.data.metrics
    assert "moola.warnings" not in run.data.tags or "features.set" not in run.data.tags["moola.warnings"]
    assert version_of(other, "own").tags["features"] == "relativity11,relativity12"
    ohlc = small_labels(4).ohlc
    found = moola_mlflow.load_detector("models:/own/1").predict(ohlc)
    served = mlflow.pyfunc.load_model("models:/own/1").predict(ohlc)
    assert served["expansion_start"].tolist() == found.start.tolist()
    np.testing.assert_allclose(served.filter(like="p_").to_numpy(), found.probability, rtol=1e-6)
    hits = moola_mlflow.scan(generate_bars(2000, 5), moola_mlflow.load_detector("models:/own/1"), min_probability=0)
    assert hits.attrs["windows"] > 10


@pytest.mark.slow
def test_promote_judges_a_registered_detector_by_its_own_gates_and_no_one_reads_it_as_an_encoder(other: Store) -> None:
    assert finetune(other, finetune__inputs="price_path", register="judged").code == 0
    refused = command(other, "promote", model="judged", gates__delta_joint_success_at_3="2")
    assert refused.code == 3
    assert "delta_joint_success_at_3_lo" in refused.err
    assert "probe_r2_gain" not in refused.err
    # With limits that any detector meets, what is left is whether it serves.
    low = {f"gates__{name}": "-1" for name in ("f1_macro", "joint_success_at_3", "recall", "delta_joint_success_at_3")}
    promoted = command(other, "promote", model="judged", gates__ece="2", **low)
    assert promoted.code == 0, promoted.err
    assert other.client.get_model_version_by_alias("judged", "champion")
    leak = finetune(other, encoder="models:/judged@candidate")
    assert leak.code == 2
    assert "is a detector" in leak.err


def test_seeds_and_repeats_repeat_the_whole_and_count_a_window_once(other: Store) -> None:
    given = {"finetune.inputs": "price_path", "register": "none"}
    done = finetune(other, seeds="13,17", repeats="2", **given)
    run = newest(other, done)
    folds = children(other, run)
    assert [(fold.data.tags["moola.seed"], fold.data.tags["moola.repeat"]) for fold in folds].count(("13", "2")) == 3
    assert len(folds) == sum(line.startswith("Fold ") for line in done.out.splitlines()) == 12
    summary = json.loads(other.artifact(run, "cv_summary.json").read_text())
    assert [row["seed"] for row in summary["fold_results"]] == [13] * 6 + [17] * 6
    assert "3 folds x 2 repeats x 2 seeds" in done.out
    assert len(json.loads(other.artifact(run, "predictions.json").read_text())["data"]) == 240


@pytest.mark.slow
def test_fewer_windows_than_asked_for_are_all_used_with_a_warning(other: Store) -> None:
    done = finetune(
        other, labels__n="174", bars__sample_bars="12000", **{"finetune.inputs": "price_path", "register": "none"}
    )
    run = newest(other, done)
    num = int(run.data.metrics["labels/used"])
    assert num < 174
    warning = f"{num} labelled windows found, fewer than the 174 asked for (n): all are used."
    assert f"Warning: {warning}" in done.out
    assert warning in run.data.tags["moola.warnings"]
    assert warning in run.data.tags[NOTE]


@pytest.mark.slow
def test_strict_gates_end_with_3_and_everything_is_logged(other: Store) -> None:
    done = finetune(other, **{"finetune.inputs": "price_path", "register": "strict", "gates": "strict"})
    run = parents(other)[0]
    assert (done.code, run.info.status) == (3, "FAILED")
    assert "moola: gates failed: f1_macro" in done.err
    assert run.data.tags[NOTE].startswith("**Failed:** gates failed:")
    assert f"**{run.data.tags['moola.headline']}**" in run.data.tags[NOTE]
    assert {"cv/f1_macro", "cv/delta_joint_success_at_3_lo", "total_seconds"} <= set(run.data.metrics)
    assert other.artifact(run, "cv_summary.json").is_file()
    assert version_of(other, "strict").tags["gates"] == run.data.tags["moola.gates"]
    assert [fold.info.status for fold in children(other, run)] == ["FINISHED"] * 3
