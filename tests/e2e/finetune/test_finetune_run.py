"""A finished fine-tuning on a real store: everything that the run, its folds and the registered version say."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from finetuning import CLASSICAL, NETWORKS, NOTE, Done, children, command, finetune, new_store, newest
from harness import Store, ask_elsewhere
from mlflow.entities import Run
from safetensors.torch import load_file
from sklearn.metrics import f1_score
from small_labels import small_labels

import moola_mlflow
from moola_mlflow.core import FinetuneKeys, make_config
from moola_mlflow.labels.weak import sample_labels
from moola_mlflow.models.files.detector import load_detector_folder

PUBLISHED = "import json; print(json.load(open('cv_summary.json'))['avg_metrics']['{}']['mean'])"
Tuned = tuple[Store, Run, Done]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Run, Done]:
    """A store with two encoders and one finished fine-tuning of the first."""
    store = new_store(tmp_path_factory.mktemp("tuned"))
    done = finetune(store, encoder="models:/moola-encoder/1")
    return store, newest(store, done), done


def test_the_run_is_finished_and_says_what_it_is(tuned: Tuned) -> None:
    store, run, done = tuned
    tags = run.data.tags
    assert run.info.status == "FINISHED"
    assert run.info.run_name.startswith("finetune-finetune-17-20")
    assert (tags["moola.stage"], tags["moola.weak_labels"], tags["moola.workers"]) == ("finetune", "true", "1")
    labels = sample_labels(make_config(FinetuneKeys, {}, {"bars.sample_bars": 20_000}), 60, 17)
    assert tags["moola.data_sha256"] == labels.sha256
    (given,) = run.inputs.dataset_inputs
    assert {tag.key: tag.value for tag in given.tags}["sha256"] == labels.sha256
    assert run.data.params["cv.folds"] == "3"
    assert run.data.params["finetune.encoder"] == "models:/moola-encoder/1"
    note = tags[NOTE]
    assert note.startswith(f"**{tags['moola.headline']}**")
    assert "The labels are WEAK" in note
    assert "Next, before it can be promoted: label more windows" in note
    assert "-e promote" not in note
    assert tags["moola.headline"] == json.loads(store.artifact(run, "cv_summary.json").read_text())["headline"]
    assert tags["moola.headline"] in done.out.splitlines()
    assert " Joint@3 against " in tags["moola.headline"]
    assert "path features alone" in tags["moola.headline"]


def test_the_version_behind_an_alias_is_known_for_good(tuned: Tuned) -> None:
    store, run, _ = tuned
    given = {"encoder": "models:/moola-encoder@candidate,one", "finetune.inputs": "encoding"}
    alias = newest(store, finetune(store, register="none", **given))
    store.client.set_registered_model_alias("moola-encoder", "candidate", "1")  # what it names tomorrow
    tags = store.client.get_run(alias.info.run_id).data.tags
    assert tags["moola.encoder"] == "models:/moola-encoder/2,one"
    assert tags["moola.encoder_run_id"] == "run-other,run-one"
    assert re.match("(Gain|No gain|Loss): .*path features alone", tags["moola.headline"])
    assert run.data.tags["moola.encoder"] == "models:/moola-encoder/1"
    model_id = store.client.get_model_version("moola-encoder", "1").source.removeprefix("models:/")
    assert run.data.tags["moola.encoder_model_id"] == model_id
    assert [given.model_id for given in store.client.get_run(run.info.run_id).inputs.model_inputs] == [model_id]


def test_a_parameter_is_logged_where_it_had_an_effect(tuned: Tuned) -> None:
    store, run, _ = tuned
    params = run.data.params
    assert {"trainer.clip_norm", "labels.n", "cv.folds", "finetune.head"} <= set(params)
    unread = ("schedule.", "objective.", "split.", "sweep.", "windows.stride", "bars.path")
    assert [key for key in params if key.startswith(unread)] == []
    assert "schedule" not in store.config(run)


def test_what_every_baseline_said_of_each_window_is_kept(tuned: Tuned) -> None:
    store, run, _ = tuned
    table = json.loads(store.artifact(run, "baseline_predictions.json").read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    detector = json.loads(store.artifact(run, "predictions.json").read_text())
    assert table["columns"] == ["method", *detector["columns"]]
    for name in (*NETWORKS, *CLASSICAL):
        mine = [row for row in rows if row["method"] == name]
        assert [row["window_id"] for row in mine] == [row[0] for row in detector["data"]]
        joint = np.mean([row["joint_success_at_3"] for row in mine])
        assert joint == pytest.approx(run.data.metrics[f"baseline/{name}/joint_success_at_3"])


def test_the_features_of_the_labelled_windows_are_checked_as_those_of_bars_are(tuned: Tuned) -> None:
    store, run, done = tuned
    assert sum(name.startswith("feature/nonzero/") for name in run.data.metrics) == 11
    assert sum(name.startswith("feature/psi/") for name in run.data.metrics) == 11
    assert json.loads(store.artifact(run, "features/quality.json").read_text())["num_windows"] == 60
    assert done.out.count("Warning: features drifted") == 1  # the encoder's own report is made up


def test_keys_without_effect_are_named(tuned: Tuned) -> None:
    _, run, done = tuned
    warning = "no effect: encoder.hidden=3, encoder.layers=1; a given encoder has its own."
    assert f"Warning: {warning}" in done.out
    assert warning in run.data.tags["moola.warnings"]


def test_each_fold_is_a_finished_run_nested_in_it_with_its_curves(tuned: Tuned) -> None:
    store, run, _ = tuned
    folds = children(store, run)
    assert [fold.data.tags["moola.fold"] for fold in folds] == ["1", "2", "3"]
    assert {fold.info.status for fold in store.runs()} == {"FINISHED"}
    for k, fold in enumerate(folds, 1):
        assert {key: fold.data.params[key] for key in ("fold", "folds", "seed")} == {
            "fold": str(k), "folds": "3", "seed": "17"
        }  # fmt: skip
        lasted_s = (fold.info.end_time - fold.info.start_time) / 1000
        assert lasted_s >= fold.data.metrics["seconds"] - 0.002 > 0
        assert fold.info.start_time >= run.info.start_time
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
        "wrong_windows.html",
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
    expected |= {
        "labels/used",
        "labels/consolidation",
        "data/pretrain_overlap",
        "total_seconds",
        "cv/ece_if_calibrated",
    }
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
    labels = sample_labels(make_config(FinetuneKeys, {}, {"bars.sample_bars": 20_000}), 60, 17)
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
        {"uri": "models:/moola-encoder/1", "objective": "masked", "model_id": "one", "run_id": "run-one",
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
    columns, same, off, _ = ask_elsewhere(store, tmp_path, PREDICT, small_labels(7, seed=3).ohlc)
    assert columns == ["label", "p_consolidation", "p_retracement", "expansion_start", "expansion_end"]
    assert same
    assert off <= 1e-6


@pytest.mark.slow
def test_two_processes_log_what_one_does(tuned: Tuned) -> None:
    store, one, _ = tuned
    two = newest(store, finetune(store, encoder="models:/moola-encoder/1", cv__workers="2", register="none"))
    assert two.data.tags["moola.workers"] == "2"
    assert [fold.info.status for fold in children(store, two)] == ["FINISHED"] * 3
    measured = [
        {name: value for name, value in run.data.metrics.items() if name != "total_seconds" and "system/" not in name}
        for run in (one, two)
    ]
    assert measured[0] == measured[1]
    a, b = (load_detector_folder(store.artifact(run, "detector")) for run in (one, two))
    fresh = small_labels(12, seed=3).ohlc
    assert np.array_equal(a.predict(fresh).probability, b.predict(fresh).probability)
    assert "-e promote" not in two.data.tags[NOTE]
