"""finetune on a real store: what a run leaves behind, what it refuses, and how it ends when it is stopped."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import psutil
import pytest
import torch
from harness import ROOT, Store
from mlflow.entities import Run
from safetensors.torch import load_file
from sklearn.metrics import f1_score
from small_labels import small_labels
from small_models import small_encoder

import moola_mlflow
from moola_mlflow import cli, registry, stages
from moola_mlflow.config import resolve
from moola_mlflow.detector_files import load_detector_folder
from moola_mlflow.encoder_files import save_encoder
from moola_mlflow.encoders import Encoder
from moola_mlflow.labels import LabelledSet, sample_labels, write_labels

NOTE = "mlflow.note.content"
SMALL = {"labels.n": "60", "bars.sample_bars": "20000", "encoder.hidden": "3", "encoder.layers": "1", "epochs": "2",
         "folds": "3", "cv.workers": "1"}  # fmt: skip
NETWORKS = ("scratch", "pooled_scratch", "random_encoder", "path_features")
CLASSICAL = ("majority", "logistic", "boosting", "rule")
PUBLISHED = "import json; print(json.load(open('cv_summary.json'))['avg_metrics']['{}']['mean'])"


@dataclass
class Done:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


def command(store: Store, name: str, **parameters: str) -> Done:
    """Run a command in this process and the store's folder; two underscores in a key are a dot."""
    given = {key.replace("__", "."): value for key, value in parameters.items()}
    words = [word for key, value in given.items() for word in (f"--{key}", value)]
    out, err = io.StringIO(), io.StringIO()
    mlflow.set_tracking_uri(store.uri)
    with contextlib.chdir(store.folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([name, *words])
    return Done(code, out.getvalue(), err.getvalue())


def finetune(store: Store, **parameters: str) -> Done:
    given = {key.replace("__", "."): value for key, value in parameters.items()}
    return command(store, "finetune", **{**SMALL, **given})


def parents(store: Store) -> list[Run]:
    """Runs that are no fold, the newest first."""
    return [run for run in store.runs() if "mlflow.parentRunId" not in run.data.tags]


def children(store: Store, run: Run) -> list[Run]:
    """Fold runs of a run, in the order in which they ended."""
    found = [one for one in store.runs() if one.data.tags.get("mlflow.parentRunId") == run.info.run_id]
    return sorted(found, key=lambda one: (one.data.tags["moola.seed"], int(one.data.tags["moola.fold"])))


def newest(store: Store, done: Done) -> Run:
    assert done.code == 0, done.err[-3000:]
    return parents(store)[0]


def version_of(store: Store, name: str = "moola-detector", number: str = "1") -> Any:
    return store.client.get_model_version(name, number)


def add_encoder(store: Store, folder: str, encoder: Encoder) -> None:
    """Save an encoder in the store's folder and register it as moola-encoder."""
    mlflow.set_tracking_uri(store.uri)
    with contextlib.chdir(store.folder):
        mlflow.set_experiment("moola")
        save_encoder(encoder, encoder.card, Path(folder))
        with mlflow.start_run() as run:
            registry.log_encoder("moola-encoder", Path(folder), encoder.card, {})
        mlflow.MlflowClient().delete_run(run.info.run_id)  # tests look at runs of commands


def new_store(folder: Path) -> Store:
    store = Store(folder)
    times = {"trained_from": "2024-01-01T00:00:00Z", "trained_until": "2024-02-01T00:00:00Z"}
    for i, (name, features) in enumerate([("one", "relativity11"), ("other", "relativity10")]):
        data = {"path": "elsewhere.parquet", "sha256": "0" * 64}
        add_encoder(store, name, small_encoder(features, 4 + i, i, model_id=name, data=data, **times))
    return store


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Run, Done]:
    """A store with two encoders and one finished fine-tuning of the first."""
    store = new_store(tmp_path_factory.mktemp("tuned"))
    done = finetune(store, encoder="models:/moola-encoder/1")
    return store, newest(store, done), done


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with two encoders, for runs whose tests look at their own run alone."""
    return new_store(tmp_path_factory.mktemp("other"))


Tuned = tuple[Store, Run, Done]


# A finished run ----------------------------------------------------------------------------------------------------


def test_the_run_is_finished_and_says_what_it_is(tuned: Tuned) -> None:
    _, run, done = tuned
    tags = run.data.tags
    assert run.info.status == "FINISHED"
    assert run.info.run_name.startswith("finetune-finetune-17-20")
    assert (tags["moola.stage"], tags["moola.weak_labels"], tags["moola.workers"]) == ("finetune", "true", "1")
    labels = sample_labels(resolve({}, {"bars.sample_bars": 20_000}), 60, 17)
    assert tags["moola.data_sha256"] == labels.sha256
    (given,) = run.inputs.dataset_inputs
    assert {tag.key: tag.value for tag in given.tags}["sha256"] == labels.sha256
    assert run.data.params["cv.folds"] == "3"
    assert run.data.params["finetune.encoder"] == "models:/moola-encoder/1"
    note = tags[NOTE]
    assert note.startswith(f"**{tags['moola.headline']}**")
    assert "The labels are WEAK" in note
    assert note.rstrip().endswith("Next: `mlflow run . -e promote -P model=moola-detector -P version=1`")
    assert tags["moola.headline"] in done.out


def test_each_fold_is_a_finished_run_nested_in_it_with_its_curves(tuned: Tuned) -> None:
    store, run, _ = tuned
    folds = children(store, run)
    assert [fold.data.tags["moola.fold"] for fold in folds] == ["1", "2", "3"]
    assert {fold.info.status for fold in store.runs()} == {"FINISHED"}
    for fold in folds:
        assert (fold.data.tags["moola.stage"], fold.data.tags["moola.seed"]) == ("fold", "17")
        for name in ("train/loss", "val/nll", "val/f1_macro", "val/joint_success_at_3"):
            points = store.client.get_metric_history(fold.info.run_id, name)
            assert [point.step for point in points] == [0, 1], name
        assert {"test/f1_macro", "test/joint_success_at_3", "best_epoch", "temperature"} <= set(fold.data.metrics)
    assert sum(fold.data.metrics["split/test"] for fold in folds) == 60
    summary = json.loads(store.artifact(run, "cv_summary.json").read_text())
    assert [fold.data.metrics["test/f1_macro"] for fold in folds] == pytest.approx(
        [row["f1_macro"] for row in summary["fold_results"]]
    )


def test_the_console_says_each_fold_as_published(tuned: Tuned) -> None:
    store, run, done = tuned
    lines = [line for line in done.out.splitlines() if line.startswith("Fold ")]
    assert len(lines) == 3
    for k, (line, fold) in enumerate(zip(lines, children(store, run), strict=True), 1):
        f1, joint = fold.data.metrics["test/f1_macro"], fold.data.metrics["test/joint_success_at_3"]
        assert line.startswith(f"Fold {k}/3: F1={f1:.3f}, Joint@3={joint:.3f}")


def test_every_promised_artifact_is_there(tuned: Tuned) -> None:
    store, run, _ = tuned

    def listed(folder: str | None = None) -> set[str]:
        found = set()
        for item in store.client.list_artifacts(run.info.run_id, folder):
            found |= listed(item.path) if item.is_dir else {item.path}
        return found

    figures = ("confusion", "reliability", "pointer_errors", "recall", "paired_differences")
    expected = {
        "config.yaml", "environment.txt", "cv_summary.json", "predictions.json", "gates.json",
        "detector/detector.json", "detector/weights.safetensors", "detector/encoders/0/encoder.json",
        "detector/encoders/0/weights.safetensors", *(f"figures/{name}.png" for name in figures),
    }  # fmt: skip
    assert expected - listed() == set()
    assert store.config(run)["finetune"]["encoder"] == "models:/moola-encoder/1"
    assert store.artifact(run, "figures/confusion.png").read_bytes()[:4] == b"\x89PNG"


def test_every_promised_metric_is_there(tuned: Tuned) -> None:
    _, run, _ = tuned
    found = run.data.metrics
    scores = {"f1_macro", "accuracy", "auroc", "auprc", "hit_at_3", "hit_at_5", "centre_mae", "length_mae", "ece",
              "brier", "joint_success_at_3", "joint_success_at_5"}  # fmt: skip
    scores |= {f"{kind}_{name}" for kind in ("precision", "recall", "f1") for name in ("consolidation", "retracement")}
    expected = {f"cv/{name}{end}" for name in scores for end in ("", "_std", "_lo", "_hi")}
    deltas = ("delta_f1_macro", "delta_joint_success_at_3", "delta_best_joint_success_at_3")
    expected |= {f"cv/{name}{end}" for name in deltas for end in ("", "_lo", "_hi")}
    expected |= {f"baseline/{name}/f1_macro" for name in (*NETWORKS, *CLASSICAL)}
    expected |= {"labels/used", "labels/consolidation", "data/pretrain_overlap", "total_seconds"}
    assert expected - set(found) == set()
    assert all(np.isfinite(list(found.values())))
    assert found["labels/used"] == 60
    assert found["data/pretrain_overlap"] == 0


def test_the_published_snippet_reads_the_summary(tuned: Tuned, tmp_path: Path) -> None:
    store, run, _ = tuned
    (tmp_path / "cv_summary.json").write_bytes(store.artifact(run, "cv_summary.json").read_bytes())
    for name in ("f1_macro", "joint_success_at_3"):
        with contextlib.chdir(tmp_path), contextlib.redirect_stdout(io.StringIO()) as said:
            exec(PUBLISHED.format(name))
        assert float(said.getvalue()) == pytest.approx(run.data.metrics[f"cv/{name}"])

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    summary = json.loads((tmp_path / "cv_summary.json").read_text(), parse_constant=refuse)
    assert summary["config"]["cv"]["folds"] == 3
    assert len(summary["fold_results"]) == 3


def test_the_predictions_give_the_logged_scores_and_name_the_labelled_windows(tuned: Tuned) -> None:
    store, run, _ = tuned
    table = json.loads(store.artifact(run, "predictions.json").read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    labels = sample_labels(resolve({}, {"bars.sample_bars": 20_000}), 60, 17)
    assert [row["window_id"] for row in rows] == labels.window_id.tolist()
    assert [row["label"] for row in rows] == [labels.classes[k] for k in labels.label]
    f1 = f1_score([row["label"] for row in rows], [row["predicted"] for row in rows], average="macro")
    assert f1 == pytest.approx(run.data.metrics["cv/f1_macro"])
    assert np.mean([row["joint_success_at_3"] for row in rows]) == pytest.approx(
        run.data.metrics["cv/joint_success_at_3"]
    )


def test_the_version_is_a_candidate_with_its_evidence(tuned: Tuned) -> None:
    store, run, _ = tuned
    version = store.client.get_model_version_by_alias("moola-detector", "candidate")
    expected = {"preset", "data_sha256", "trained_from", "trained_until", "features", "window", "gates"}
    assert expected - set(version.tags) == set()
    assert (str(version.version), version.run_id) == ("1", run.info.run_id)
    tags = (version.tags["preset"], version.tags["features"], version.tags["trained_until"], version.tags["window"])
    assert tags == ("finetune", "relativity11", "2024-02-01T00:00:00Z", "105")
    assert version.tags["gates"] == run.data.tags["moola.gates"]
    assert version.tags["gates"].startswith("failed: ")
    assert float(version.tags["f1_macro"]) == pytest.approx(run.data.metrics["cv/f1_macro"], abs=1e-4)
    gates = {row["gate"]: row for row in json.loads(store.artifact(run, "gates.json").read_text())}
    assert gates["f1_macro"]["value"] == pytest.approx(run.data.metrics["cv/f1_macro"])
    assert gates["delta_joint_success_at_3_lo"]["value"] == pytest.approx(
        run.data.metrics["cv/delta_joint_success_at_3_lo"]
    )


def test_the_registered_detector_is_that_of_the_run_and_holds_the_untouched_encoder(tuned: Tuned) -> None:
    store, run, _ = tuned
    mlflow.set_tracking_uri(store.uri)
    registered, logged = (
        moola_mlflow.load_detector(uri) for uri in ("models:/moola-detector/1", f"runs:/{run.info.run_id}/detector")
    )
    fresh = small_labels(12, seed=3).ohlc
    assert np.array_equal(registered.predict(fresh).probability, logged.predict(fresh).probability)
    assert registered.card["run_id"] == run.info.run_id
    assert registered.card["encoders"] == [
        {"uri": "models:/moola-encoder/1", "objective": "masked", "model_id": "one", "run_id": None,
         "trained_from": "2024-01-01T00:00:00Z", "trained_until": "2024-02-01T00:00:00Z"}
    ]  # fmt: skip
    assert registered.card["headline"] == run.data.tags["moola.headline"]
    assert registered.card["evidence"]["f1_macro"] == pytest.approx(run.data.metrics["cv/f1_macro"])
    kept = load_file(store.artifact(run, "detector") / "encoders" / "0" / "weights.safetensors")
    assert all(
        torch.equal(tensor, kept[name]) for name, tensor in load_file(store.folder / "one/weights.safetensors").items()
    )


@pytest.mark.slow
def test_drift_is_reported_against_the_training_windows_of_an_encoder(tuned: Tuned) -> None:
    store, _, _ = tuned
    plain = newest(store, command(store, "features", bars__sample_bars="3000"))
    assert not any(name.startswith("feature/psi/") for name in plain.data.metrics)
    run = newest(store, command(store, "features", bars__sample_bars="3000", encoder="models:/moola-encoder/1"))
    assert sum(name.startswith("feature/psi/") for name in run.data.metrics) == 11
    assert run.data.params["finetune.encoder"] == "models:/moola-encoder/1"


PREDICT = """
import json, sys
import mlflow, numpy as np
windows = np.load(sys.argv[1])
said = mlflow.pyfunc.load_model("models:/moola-detector/1").predict(windows)
import moola_mlflow
found = moola_mlflow.load_detector("models:/moola-detector/1").predict(windows)
same = bool((said["label"] == found.label).all() and (said["expansion_start"] == found.start).all())
off = float(abs(said["p_retracement"] - found.probability[:, 1]).max())
print(json.dumps([list(said.columns), same, off, moola_mlflow.__file__]))
"""


@pytest.mark.slow
def test_a_fresh_process_serves_the_detector_outside_the_checkout_without_pickle(tuned: Tuned, tmp_path: Path) -> None:
    store, _, _ = tuned
    np.save(tmp_path / "windows.npy", small_labels(7, seed=3).ohlc)
    environment = {**store.environment, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    del environment["PYTHONPATH"]  # the model brings its own code
    done = subprocess.run(
        [sys.executable, "-c", PREDICT, str(tmp_path / "windows.npy")],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    columns, same, off, _ = json.loads(done.stdout.strip().splitlines()[-1])
    assert columns == ["label", "p_consolidation", "p_retracement", "expansion_start", "expansion_end"]
    assert same
    assert off <= 1e-6


# Other ways to fine-tune -------------------------------------------------------------------------------------------


def card_of(store: Store, run: Run) -> dict[str, Any]:
    return json.loads(store.artifact(run, "detector/detector.json").read_text())


@pytest.mark.slow
def test_two_processes_log_what_one_does(tuned: Tuned) -> None:
    store, one, _ = tuned
    two = newest(store, finetune(store, encoder="models:/moola-encoder/1", cv__workers="2", register="none"))
    assert two.data.tags["moola.workers"] == "2"
    assert [fold.info.status for fold in children(store, two)] == ["FINISHED"] * 3
    assert {name: value for name, value in two.data.metrics.items() if name != "total_seconds"} == {
        name: value for name, value in one.data.metrics.items() if name != "total_seconds"
    }
    a, b = (load_detector_folder(store.artifact(run, "detector")) for run in (one, two))
    fresh = small_labels(12, seed=3).ohlc
    assert np.array_equal(a.predict(fresh).probability, b.predict(fresh).probability)
    assert "Next: `mlflow run . -e finetune with a register name`" in two.data.tags[NOTE]


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
    late = newest(
        other,
        finetune(other, config=phase_2, epochs="2", finetune__unfreeze_at="9", encoder="one", register="none"),
    )
    kept = load_file(other.artifact(late, "detector") / "encoders" / "0" / "weights.safetensors")
    assert all(torch.equal(kept[name], given[name]) for name in given)


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


@pytest.mark.slow
def test_path_features_alone_make_a_detector_without_an_encoder(other: Store) -> None:
    run = newest(other, finetune(other, **{"finetune.inputs": "path", "register": "path"}))
    card = card_of(other, run)
    assert (card["fitted"], card["architecture"]["num_encoders"], card["architecture"]["num_inputs"]) == ("path", 0, 56)
    assert "baseline/path_features/f1_macro" not in run.data.metrics
    assert version_of(other, "path").tags["features"] == "path"
    assert len(moola_mlflow.load_detector("models:/path/1").predict(small_labels(4).ohlc)) == 4


@pytest.mark.slow
def test_promote_judges_a_registered_detector_by_its_own_gates_and_no_one_reads_it_as_an_encoder(other: Store) -> None:
    assert finetune(other, finetune__inputs="path", register="judged").code == 0
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
    given = {"finetune.inputs": "path", "register": "none"}
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
        other, labels__n="174", bars__sample_bars="12000", **{"finetune.inputs": "path", "register": "none"}
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
    done = finetune(other, **{"finetune.inputs": "path", "register": "strict", "gates": "strict"})
    run = parents(other)[0]
    assert (done.code, run.info.status) == (3, "FAILED")
    assert "moola: gates failed: f1_macro" in done.err
    assert run.data.tags[NOTE].startswith("**Failed:** gates failed:")
    assert f"**{run.data.tags['moola.headline']}**" in run.data.tags[NOTE]
    assert {"cv/f1_macro", "cv/delta_joint_success_at_3_lo", "total_seconds"} <= set(run.data.metrics)
    assert other.artifact(run, "cv_summary.json").is_file()
    assert version_of(other, "strict").tags["gates"] == run.data.tags["moola.gates"]
    assert [fold.info.status for fold in children(other, run)] == ["FINISHED"] * 3


@pytest.mark.slow
def test_the_launchers_run_is_adopted_with_its_folds_beneath(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    done = store.run("finetune", {**SMALL, "encoder": str(tmp_path / "one")}, launcher=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (run,) = parents(store)
    assert run.info.status == "FINISHED"
    assert run.info.run_name.startswith("finetune-finetune-17-20")
    assert run.data.params["folds"] == run.data.params["cv.folds"] == "3"
    assert [fold.info.status for fold in children(store, run)] == ["FINISHED"] * 3
    assert version_of(store).run_id == run.info.run_id


# What is refused ---------------------------------------------------------------------------------------------------


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
    "own bars": ({"labels.sample_seed": "1"}, "is also bars.sample_seed", "change one of the two"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_with_2_and_one_message_before_anything_is_fitted(tuned: Tuned, case: str) -> None:
    store, _, _ = tuned
    if not (store.folder / "good.parquet").exists():
        write_bad_inputs(store.folder)
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
    assert len(store.client.search_model_versions("name = 'moola-detector'")) == 1  # the fixture's
    assert not any(name.startswith("cv/") for name in run.data.metrics)


# Overlap with pre-training -----------------------------------------------------------------------------------------


class Told:
    """A run that remembers its metrics."""

    def __init__(self) -> None:
        self.found: dict[str, float] = {}

    def metrics(self, metrics: dict[str, float]) -> None:
        self.found |= metrics


def trained(labels: LabelledSet, share: float, path: str = "bars.parquet", sha256: str = "a") -> tuple[str, Encoder]:
    """An encoder whose training ended within a share of the labelled windows."""
    assert labels.start_ns is not None
    until = int(labels.start_ns[int(share * len(labels)) - 1]) + 1 if share else int(labels.start_ns[0]) - 1
    stamps = [f"{np.datetime64(ns, 'ns').astype('datetime64[s]')}Z" for ns in (0, until + 10**9 if share else until)]
    encoder = small_encoder(data={"path": path, "sha256": sha256}, trained_from=stamps[0], trained_until=stamps[1])
    return "e", encoder


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_labelled_windows_within_an_encoders_training_time_are_counted_and_told(share: float) -> None:
    labels, run = small_labels(40), Told()
    found, warnings = stages.check_overlap(run, labels, [trained(labels, share)])  # type: ignore[arg-type]
    assert found == run.found["data/pretrain_overlap"] == share
    assert [f"{share:.0%} of the labelled windows lie within" in text for text in warnings] == [True] * bool(share)


def test_a_window_that_two_encoders_know_is_counted_once() -> None:
    labels, run = small_labels(40), Told()
    both = [trained(labels, 0.25), trained(labels, 0.5)]
    assert stages.check_overlap(run, labels, both)[0] == 0.5  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("labels_from", "encoder_from", "same_bars", "share"),
    [
        ("sample", "sample", False, 0.0),
        ("out/labels.parquet", "sample", False, 0.0),  # what `moola label` wrote of sample bars
        ("sample", "bars.parquet", False, 0.0),
        ("sample", "sample", True, 1.0),
        ("out/labels.parquet", "sample", True, 1.0),
        ("out/labels.parquet", "bars.parquet", False, 1.0),  # other bars of the same time may be the same market
    ],
)
def test_sample_bars_have_no_time_in_common_with_any_other_series(
    labels_from: str, encoder_from: str, same_bars: bool, share: float
) -> None:
    labels = replace(small_labels(40), path=labels_from, bars_sha256="l")
    encoder = trained(labels, 1.0, encoder_from, "l" if same_bars else "e")
    assert stages.check_overlap(Told(), labels, [encoder])[0] == share  # type: ignore[arg-type]


# Interruptions -----------------------------------------------------------------------------------------------------

LONG = {**SMALL, "epochs": "400", "trainer.patience": "400"}


def wait_for(process: subprocess.Popen[str], start: str) -> None:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(start):
            return
    raise AssertionError("".join(lines))


def assert_killed(store: Store) -> None:
    (run,) = parents(store)
    deadline = time.monotonic() + 30  # under the launcher a process of its own has the last word
    while run.info.status != "KILLED" and time.monotonic() < deadline:
        time.sleep(0.2)
        (run,) = parents(store)
    assert run.info.status == "KILLED", run.data.tags
    assert "Interrupted" in run.data.tags[NOTE]
    assert {fold.info.status for fold in children(store, run)} == {"FINISHED"}
    assert not any(one.info.status == "RUNNING" for one in store.runs())
    assert store.client.search_model_versions("name = 'moola-detector'") == []


def assert_no_process(group: int) -> None:
    """Nothing of a process group lives on; what multiprocessing keeps notes with ends a moment after its parent."""
    deadline, alive = time.monotonic() + 20, ["?"]
    while alive and time.monotonic() < deadline:
        time.sleep(0.1)
        alive = []
        for process in psutil.process_iter(["cmdline", "status"]):
            with contextlib.suppress(ProcessLookupError):
                if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                    alive.append(process.info["cmdline"])
    assert alive == []


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"])
def test_an_interrupted_fine_tuning_is_killed_with_its_folds_finished_and_no_process_left(
    tmp_path: Path, workers: str, signum: int, code: int
) -> None:
    store = Store(tmp_path)
    process = store.start("finetune", {**LONG, "cv.workers": workers})
    wait_for(process, "Fold ")
    os.killpg(process.pid, signum)  # a terminal or a job scheduler signals the whole group
    assert process.wait(60) == code
    assert_killed(store)
    assert_no_process(process.pid)


@pytest.mark.slow
def test_ctrl_c_at_the_launcher_kills_the_run_and_leaves_no_process(tmp_path: Path) -> None:
    store = Store(tmp_path)
    process = store.start("finetune", {**LONG, "cv.workers": "2"}, launcher=True)
    wait_for(process, "Fold ")
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) != 0
    assert_killed(store)
    assert_no_process(process.pid)
