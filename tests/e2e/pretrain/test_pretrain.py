"""pretrain as users start it, through the launcher and through `moola`, on a real store."""

from __future__ import annotations

import json
import re
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from harness import QUICK, ROOT, SMOKE, Store, ask_elsewhere, note_of
from safetensors.torch import load_file
from warm_process import run_python

from moola_mlflow.bars.reader import read_bars
from moola_mlflow.bars.times import utc
from moola_mlflow.cli.commands import pretrain
from moola_mlflow.core import PretrainKeys, make_config
from moola_mlflow.core.errors import TrainingError
from moola_mlflow.core.signals import Interrupts
from moola_mlflow.features.relativity import compute_features, feature_names
from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.objectives.masked import Masked
from moola_mlflow.windows.batches import Batch, fit_scaling
from moola_mlflow.windows.splits import split_by_time
from moola_mlflow.windows.windows import make_windows

PER_EPOCH = {"train/loss", "train/mae", "val/loss", "val/loss_profiled", "val/huber", "val/mae", "val/skill", "lr",
             "epoch_seconds", "windows_per_second"}  # fmt: skip
ONCE = {"best_val_loss", "test/loss", "test/huber", "test/mae", "test/skill", "test/skill_candle", "test/skill_state",
        "leak/masked_sensitivity", "feature/swing_flip_rate", "probe/r2", "probe/r2_random", "probe/r2_inputs",
        "probe/r2_gain", "probe/r2_path"}  # fmt: skip

SAID = "said.txt"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with one smoke run made by the launcher, registered as version 1."""
    store = Store(tmp_path_factory.mktemp("trained"))
    done = store.run("pretrain", {**QUICK, "config": SMOKE, "epochs": "2"}, launcher=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (store.folder / SAID).write_text(done.stdout)
    return store


def pretrained(store: Store) -> mlflow.entities.Run:
    """The one pre-training run of a store."""
    (run,) = [run for run in store.runs() if run.data.tags["moola.stage"] == "pretrain"]
    return run


def test_the_launchers_run_is_adopted_and_finished(trained: Store) -> None:
    run = pretrained(trained)
    assert run.info.status == "FINISHED"
    assert run.info.run_name.startswith("pretrain-smoke-17-20")
    assert run.data.tags["moola.stage"] == "pretrain"
    assert len(run.data.tags["moola.config_sha256"]) == len(run.data.tags["moola.data_sha256"]) == 64
    assert "**Test:**" in run.data.tags["mlflow.note.content"]


def test_where_the_run_is_seen_is_said_first_and_last(trained: Store) -> None:
    info, lines = pretrained(trained).info, (trained.folder / SAID).read_text().splitlines()
    said = [i for i, line in enumerate(lines) if line.startswith(f"Run {info.run_id}: ")]
    assert len(said) == 2
    assert said[0] < next(i for i, line in enumerate(lines) if line.startswith("Epoch   1 "))
    assert said[1] == len(lines) - 1
    assert all(lines[i].endswith(f"/#/experiments/{info.experiment_id}/runs/{info.run_id}") for i in said)


def test_how_a_batch_is_shared_out_is_said_in_words(trained: Store) -> None:
    run, said = pretrained(trained), (trained.folder / SAID).read_text()
    assert f"; cpu, {run.data.tags['moola.precision']}, one part of one thread\n" in said
    assert run.data.tags["moola.allocator"] in ("tuned", "not glibc")


def test_the_machine_is_watched_while_it_trains(trained: Store) -> None:
    figures = pretrained(trained).data.metrics
    assert 0 < figures["system/cpu_utilization_percentage"] <= 100
    assert figures["system/system_memory_usage_megabytes"] > 0


def test_every_promised_metric_is_there_with_one_point_an_epoch(trained: Store) -> None:
    run = pretrained(trained)
    names = feature_names("relativity11")
    expected = PER_EPOCH | ONCE | {f"test/mae_{name}" for name in names}
    expected |= {f"feature/{kind}/{name}" for kind in ("nonzero", "clipped") for name in names}
    assert expected - set(run.data.metrics) == set()
    for name in PER_EPOCH:
        assert [point.step for point in trained.client.get_metric_history(run.info.run_id, name)] == [0, 1]
    assert run.data.metrics["leak/masked_sensitivity"] == 0.0


def test_parameters_hold_the_resolved_tree_beside_the_launchers_raw_text(trained: Store) -> None:
    run = pretrained(trained)
    assert run.data.params["encoder.hidden"] == "4"
    assert run.data.params["trainer.batch_size"] == "32"
    assert run.data.params["epochs"] == "2"
    assert trained.config(run)["trainer"]["epochs"] == 2


def test_the_data_is_an_input_with_its_whole_hash(trained: Store) -> None:
    run = pretrained(trained)
    (given,) = run.inputs.dataset_inputs
    tags = {tag.key: tag.value for tag in given.tags}
    assert tags["sha256"].startswith(given.dataset.digest)
    assert len(tags["sha256"]) == 64
    assert run.data.tags["moola.data_sha256"] == tags["sha256"]  # the sample is one file: its content


def test_every_promised_artifact_is_there(trained: Store) -> None:
    run = pretrained(trained)

    def listed(folder: str | None = None) -> set[str]:
        found = set()
        for item in trained.client.list_artifacts(run.info.run_id, folder):
            found |= listed(item.path) if item.is_dir else {item.path}
        return found

    expected = {
        "config.yaml", "environment.txt", "training_results.json", "features/quality.json",
        "figures/feature_quality.png",
        "figures/loss_curves.png", "figures/learning_rate.png", "figures/reconstruction_epoch_000.png",
        "checkpoints/checkpoint_best.pt", "checkpoints/checkpoint_latest.pt", "checkpoints/checkpoint_top_1.pt",
        "encoder/weights.safetensors", "encoder/encoder.json",
    }  # fmt: skip
    assert expected - listed() == set()


def test_what_a_user_of_the_published_system_checks_passes(trained: Store) -> None:
    run = pretrained(trained)
    best = torch.load(trained.artifact(run, "checkpoints/checkpoint_best.pt"), map_location="cpu")
    assert best["epoch"] >= 0
    assert best["metrics"]["val_loss"] == pytest.approx(run.data.metrics["best_val_loss"])
    assert any("encoder" in key for key in best["model_state_dict"])
    results = json.loads(trained.artifact(run, "training_results.json").read_text())
    assert {"best_val_loss", "test_metrics", "total_time", "train_metrics", "val_metrics", "config", "seed"} <= set(
        results
    )
    assert {"val_loss", "val_mae"} <= set(results["test_metrics"])
    config = trained.config(run)
    assert config["objective"]["jitter_sigma"] == 0.03
    assert config["objective"]["mask_ratio"] == 0.15
    card = json.loads(trained.artifact(run, "encoder/encoder.json").read_text())
    assert card["architecture"]["input_size"] == len(card["features"]["names"]) == len(card["scaling"]["mean"]) == 11
    assert card["trained_from"] < card["trained_until"]


def test_the_encoder_is_the_best_checkpoint_scaled_on_the_training_windows_alone(trained: Store) -> None:
    run = pretrained(trained)
    config = make_config(PretrainKeys, trained.config(run), {})
    windows = make_windows(read_bars(config.bars))
    split = split_by_time(windows, config.split)
    card = json.loads(trained.artifact(run, "encoder/encoder.json").read_text())
    mean, std = fit_scaling(compute_features(windows.gather(split.train)), config.windows.warmup)
    assert card["scaling"] == {"mean": pytest.approx(mean.tolist()), "std": pytest.approx(std.tolist())}
    assert card["trained_from"] == utc(int(windows.start_ns[split.train[0]]))
    assert card["trained_until"] < utc(int(windows.start_ns[split.val[0]]))
    assert card["quality"]["num_windows"] == len(split.train)
    assert (card["precision"], card["device"]) == (run.data.tags["moola.precision"], "cpu")
    history = json.loads(trained.artifact(run, "training_results.json").read_text())["history"]
    best = int(np.argmin([row["val/huber"] for row in history]))
    assert (card["epochs"], card["best_val_loss"]) == (best + 1, history[best]["val/loss"])
    saved = torch.load(trained.artifact(run, "checkpoints/checkpoint_best.pt"), map_location="cpu")
    weights = load_file(trained.artifact(run, "encoder/weights.safetensors"))
    assert all(torch.equal(weights[key], saved["model_state_dict"][f"encoder.{key}"]) for key in weights)


class Leaking(Masked):
    """Hides in name only."""

    def encoder_input(self, encoder: Encoder, batch: Batch, drawn: torch.Tensor, g: torch.Generator) -> torch.Tensor:
        return encoder.standardise(batch.x_BTF)


def test_an_objective_that_leaks_does_not_train(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moola_mlflow.models.objectives.masked.Masked", Leaking)  # what its `build` makes
    store = Store(workdir)
    config = make_config(PretrainKeys, {}, {**QUICK, "registry.name": "none", "trainer.epochs": "1"})
    with pytest.raises(TrainingError, match="leak/masked_sensitivity is"):
        pretrain.run(config, "leaking", Interrupts())
    (run,) = store.runs()
    assert (run.info.status, "train/loss" in run.data.metrics) == ("FAILED", False)
    assert run.data.metrics["leak/masked_sensitivity"] > 0


PREDICT = """
import json, sys
import mlflow, numpy as np
windows = np.load(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/moola-encoder@candidate")
out = model.predict(windows)
last = model.predict(windows, params={"pool": "last"})
import moola_mlflow
encoder = moola_mlflow.load_encoder("models:/moola-encoder@candidate")
same = moola_mlflow.embed(encoder, windows).numpy()
trainable = all(p.requires_grad for p in encoder.parameters())
print(json.dumps([list(out.shape), float(abs(out - same).max()), list(last.shape), trainable]))
"""


def test_a_fresh_process_loads_the_served_encoder_outside_the_checkout_without_pickle(
    trained: Store, sample_prices: np.ndarray, tmp_path: Path
) -> None:
    shape, difference, last_shape, trainable = ask_elsewhere(trained, tmp_path, PREDICT, sample_prices[:7])
    assert shape == last_shape == [7, 8]
    assert difference <= 1e-5
    assert trainable


def test_the_version_carries_its_evidence_and_the_alias_candidate(trained: Store) -> None:
    version = trained.client.get_model_version_by_alias("moola-encoder", "candidate")
    expected = {"preset", "data_sha256", "trained_from", "trained_until", "features", "window", "val_skill", "gates"}
    assert expected - set(version.tags) == set()
    assert (version.tags["preset"], version.tags["features"], version.tags["window"]) == (
        "smoke",
        "relativity11",
        "105",
    )


def test_missed_gates_are_in_tag_note_and_artifact_with_what_to_do_instead(trained: Store) -> None:
    run, version = pretrained(trained), trained.client.get_model_version_by_alias("moola-encoder", "candidate")
    rows = {row["gate"]: row for row in json.loads(trained.artifact(run, "gates.json").read_text())}
    assert list(rows) == ["identity", "leak", "probe_r2_gain", "skill", "feature_faults"]
    assert [rows[name]["passed"] for name in ("identity", "leak", "feature_faults")] == [True, True, True]
    assert rows["probe_r2_gain"]["value"] == pytest.approx(run.data.metrics["probe/r2_gain"])
    assert not rows["probe_r2_gain"]["passed"]  # two epochs of masking add nothing
    missed = f"probe_r2_gain {run.data.metrics['probe/r2_gain']:.4g} <= 0.067 (by "
    assert version.tags["gates"].startswith(f"failed: {missed}")
    note = run.data.tags["mlflow.note.content"]
    assert f"**Gates missed:**\n\n- {missed}" in note
    assert "Next: `mlflow run . -e pretrain -P config=configs/rules.yaml -P bars.sample_bars=12000`" in note
    assert "EXCELLENT" not in note
    assert "WARNING" not in note


def test_a_copy_shows_the_published_levels_and_strict_gates_fail_a_run_that_is_logged_whole(tmp_path: Path) -> None:
    store = Store(tmp_path)
    quick = {**QUICK, "config": SMOKE, "epochs": "1", "register": "copy"}
    done = store.run("pretrain", {**quick, "objective.hide_masked": "false", "gates": "strict"})
    assert done.returncode == 3
    assert "identity 1 != 0 (by 1)" in done.stderr
    (run,) = store.runs()
    assert run.info.status == "FAILED"
    assert "identity 1 != 0" in run.data.tags["mlflow.note.content"]
    (version,) = store.client.search_model_versions("name = 'copy'")
    assert version.tags["gates"].startswith("failed: identity 1 != 0")
    assert store.run("pretrain", {**quick, "objective.hide_masked": "false", "register": "none"}).returncode == 0
    assert re.search(
        r"Published levels: validation loss \S+ WARNING, MAE \S+ WARNING",
        store.runs()[0].data.tags["mlflow.note.content"],
    )


def test_plain_pytorch_trains_to_the_same_losses(tmp_path: Path) -> None:
    store, given = Store(tmp_path), {**QUICK, "config": SMOKE, "encoder.dropout": "0", "runtime.precision": "fp32"}
    curves = []
    for tune, allocator in (("on", ("tuned", "not glibc")), ("off", ("as it comes",))):
        done = store.run("pretrain", {**given, "runtime.tune": tune, "register": "none"})
        assert done.returncode == 0, done.stderr[-3000:]
        run = store.runs()[0]
        assert run.data.tags["moola.allocator"] in allocator
        names = ("train/loss", "val/huber")
        curves.append([p.value for name in names for p in store.client.get_metric_history(run.info.run_id, name)])
    assert curves[1] == pytest.approx(curves[0], rel=1e-5)


def test_bars_are_compared_with_the_encoders_own_training_windows(trained: Store) -> None:
    same, other = (
        {"bars.sample_bars": "12000", "encoder": "models:/moola-encoder@candidate", "bars.sample_seed": seed}
        for seed in ("1", "8")
    )
    assert trained.run("features", same).returncode == trained.run("features", other).returncode == 0
    drift = [
        run.data.metrics["feature/psi/range_z"] for run in trained.runs() if run.data.tags["moola.stage"] == "features"
    ]
    assert 0 < drift[1] < drift[0] < 0.25
    names = feature_names("relativity11")
    assert all(f"feature/psi/{name}" in trained.runs()[0].data.metrics for name in names)


def test_nothing_of_a_registered_encoder_is_a_pickle(trained: Store) -> None:
    files = [path for path in trained.folder.rglob("*") if path.is_file() and "models" in path.parts]
    assert any(path.name == "weights.safetensors" for path in files)
    assert [path for path in files if path.suffix in (".pkl", ".pickle", ".pt", ".pth", ".pt2")] == []


@pytest.mark.parametrize("launcher", [False, True], ids=["moola", "mlflow run"])
def test_a_preset_alone_decides_and_a_short_parameter_beats_a_dotted_key(tmp_path: Path, launcher: bool) -> None:
    store = Store(tmp_path)
    # An impossible share stops the run after its configuration is logged: what was resolved is the point here.
    stop = {"bars.sample_bars": "150", "config": str(ROOT / "configs" / "jade10.yaml")}
    assert store.run("pretrain", stop, launcher).returncode == (1 if launcher else 2)
    config = store.config(store.newest())
    assert (config["trainer"]["epochs"], config["trainer"]["batch_size"], config["features"]["set"]) == (
        50,
        1024,
        "relativity10",
    )
    store.run("pretrain", {**stop, "trainer.epochs": "7", "epochs": "3", "trainer.batch_size": "8"}, launcher)
    config = store.config(store.newest())
    assert (config["trainer"]["epochs"], config["trainer"]["batch_size"]) == (3, 8)


BAD = {
    "unknown key": ({"ecnoder.hidden": "64"}, "did you mean 'encoder.hidden'?"),
    "negative epochs": ({"epochs": "-1"}, "trainer.epochs='-1'"),
    "a path that is not there": ({"bars": "no/such.parquet"}, "no/such.parquet"),
    "a name no registry takes": ({"register": "a/b"}, "registry.name='a/b'"),
    "an unknown objective": ({"objective.name": "maskd"}, "did you mean 'masked'?"),
}


@pytest.mark.parametrize("launcher", [False, True], ids=["moola", "mlflow run"])
@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_with_one_message_and_no_run_but_the_launchers(
    tmp_path: Path, case: str, launcher: bool
) -> None:
    parameters, message = BAD[case]
    store = Store(tmp_path)
    done = store.run("pretrain", {"config": SMOKE, **parameters}, launcher)
    assert done.returncode == (1 if launcher else 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr.split("moola:")[0]
    if not launcher:
        assert store.runs() == []
        return
    (run,) = store.runs()
    assert (run.info.status, run.data.tags["moola.refused"]) == ("FAILED", "true")
    assert message in note_of(run)
    assert "train/loss" not in run.data.metrics


def test_a_folder_that_cannot_be_written_fails_the_run_with_the_reason(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / ".moola").write_text("in the way")
    done = store.run("pretrain", {**QUICK, "config": SMOKE})
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    (run,) = store.runs()
    assert run.info.status == "FAILED"
    assert "cannot write .moola" in run.data.tags["mlflow.note.content"]


@pytest.mark.parametrize("content", [b"no database", None], ids=["damaged", "folder missing"])
def test_a_store_that_does_not_work_is_named_without_a_traceback(tmp_path: Path, content: bytes | None) -> None:
    store = Store(tmp_path / "gone")
    if content is not None:
        store.folder.mkdir()
        (store.folder / "mlflow.db").write_bytes(content * 1000)
    words = store.command("features", {"bars.sample_bars": "12000"}, launcher=False)
    done = run_python(words[1:], tmp_path, store.environment)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "the tracking store 'sqlite:///" in done.stderr.splitlines()[-1]


def test_two_commands_that_create_the_store_together_both_finish(tmp_path: Path) -> None:
    store = Store(tmp_path)
    processes = [store.start("features", {"bars.sample_bars": "12000"}) for _ in range(2)]
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert [run.info.status for run in store.runs()] == ["FINISHED", "FINISHED"]
