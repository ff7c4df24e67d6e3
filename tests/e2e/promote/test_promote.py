"""promote on a real store: what it refuses, what it moves, and what a champion is worth in a fresh process."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from finetuning import command, newest
from harness import ROOT, Store, note_of
from sklearn.metrics import f1_score
from small_models import small_detector, small_encoder, windows

import moola_mlflow
from moola_mlflow.cli import main
from moola_mlflow.core import FinetuneKeys, make_config, read_preset
from moola_mlflow.evaluation.gates import OVER_OTHER_INPUTS
from moola_mlflow.labels.weak import sample_labels
from moola_mlflow.models.detector import PatternDetector
from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.files.detector import read_detector_card, save_detector
from moola_mlflow.models.files.encoder import save_encoder
from moola_mlflow.tracking.registry import models

NOTE = "mlflow.note.content"
COLLAPSED = {"recall": {"consolidation": 0.02, "retracement": 0.99}}
TRAINED = {"finetune.inputs": "price_path", "labels.n": "300", "bars.sample_bars": "120000", "encoder.hidden": "8",
           "encoder.layers": "1", "folds": "3", "cv.workers": "1"}  # fmt: skip
NO_GAIN = {"delta_joint_success_at_3": {"mean": 0.03, "lo": -0.05, "hi": 0.11}}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One store for all tests: each has a registered model of its own."""
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(autouse=True)
def _in_the_stores_folder(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(store.folder)
    mlflow.set_tracking_uri(store.uri)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A registered model of the test's own."""
    return re.sub(r"\W+", "-", request.node.name)


@pytest.fixture
def promote(store: Store, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, mlflow.entities.Run]]:
    """Run the command in this process; return its exit code, what it said, and its run."""

    def run(**parameters: str) -> tuple[int, str, mlflow.entities.Run]:
        capsys.readouterr()
        code = main.run_cli(["promote", *(word for key, value in parameters.items() for word in (f"--{key}", value))])
        said = capsys.readouterr()
        return code, said.out + said.err, store.newest()

    return run


def register(name: str, model: PatternDetector | Encoder, folder: Path) -> str:
    """Add a version made by a run of its own."""
    mlflow.set_experiment("moola")
    folder = folder / name / str(len(list(folder.glob(f"{name}/*"))))
    with mlflow.start_run():
        if isinstance(model, Encoder):
            save_encoder(model, model.card, folder)
            return models.log_encoder(name, folder, model.card, {"gates": "not evaluated"})
        save_detector(model, folder)
        return models.log_detector(
            name, folder, read_detector_card(folder / "detector.json"), {"gates": "not evaluated"}
        )


def aliases(store: Store, name: str) -> dict[str, str]:
    return {alias: str(version) for alias, version in store.client.get_registered_model(name).aliases.items()}


def test_a_good_detector_becomes_champion_and_the_run_holds_the_evidence(
    store: Store, name: str, promote: Callable, tmp_path: Path
) -> None:
    register(name, small_detector("both", 2), tmp_path)
    code, said, run = promote(model=name)
    assert code == 0, said
    assert f"{name}: champion is now version 1, it was unset before\nGates passed" in said
    assert aliases(store, name) == {"candidate": "1", "champion": "1"}
    version = store.client.get_model_version(name, "1")
    assert (version.tags["gates"], version.tags["promoted_by"]) == ("passed", run.info.run_id)
    assert (run.info.status, run.data.tags["moola.stage"]) == ("FINISHED", "promote")
    tags = {key: run.data.tags[key] for key in ("model", "version", "alias", "moola.from", "moola.to")}
    assert tags == {"model": name, "version": "1", "alias": "champion", "moola.from": "none", "moola.to": "1"}
    assert (run.data.params["version"], run.data.params["force"]) == ("candidate", "false")
    assert run.data.metrics["gate/joint_success_at_3"] == 0.52
    assert run.data.metrics["gate/recall/retracement"] == 0.78
    rows = json.loads(store.artifact(run, "gates.json").read_text())
    assert all(row["passed"] for row in rows)
    assert "| joint_success_at_3 | 0.52 | >= 0.40 | yes |" in run.data.tags[NOTE]


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "identity encoder": (
        lambda: small_encoder(objective={"name": "masked", "hide_masked": False}, leak=1.8, val_skill=0.99),
        "identity 1 != 0 (by 1): an encoder was shown",
    ),
    "masked encoder without gain": (
        lambda: small_encoder(probe={"r2_gain": -0.041}),
        "probe_r2_gain -0.041 <= 0.067 (by 0.108)",
    ),
    "collapsed detector": (lambda: small_detector(**COLLAPSED), "recall/consolidation 0.02 < 0.30 (by 0.28)"),
    "detector without gain": (
        lambda: small_detector(**NO_GAIN),
        "delta_joint_success_at_3_lo -0.05 <= 0 (by 0.05): no sure gain",
    ),
    "detector on an identity encoder": (lambda: small_detector(identity_encoder=True), "identity 1 != 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_version_that_misses_a_gate_is_refused(
    store: Store, name: str, promote: Callable, tmp_path: Path, case: str
) -> None:
    make, missed = REFUSED[case]
    register(name, make(), tmp_path)
    code, said, run = promote(model=name, version="1")
    assert (code, run.info.status) == (3, "FAILED")
    for text in (said, note_of(run)):
        assert f"{name} version 1 misses 1 of" in text
        assert missed in text
        assert "force=true" in text
    assert aliases(store, name) == {"candidate": "1"}
    assert "promoted_by" not in store.client.get_model_version(name, "1").tags
    assert [row["passed"] for row in json.loads(store.artifact(run, "gates.json").read_text())].count(False) == 1


def test_force_promotes_all_the_same_and_says_so(store: Store, name: str, promote: Callable, tmp_path: Path) -> None:
    register(name, small_detector(**COLLAPSED), tmp_path)
    code, said, run = promote(model=name, force="TRUE")
    assert (code, aliases(store, name)["champion"]) == (0, "1")
    expected = "forced: failed: recall/consolidation 0.02 < 0.30 (by 0.28)"
    assert store.client.get_model_version(name, "1").tags["gates"].startswith(expected)
    assert expected in said
    assert expected in run.data.tags[NOTE]


def test_previous_follows_champion_and_one_command_rolls_back(
    store: Store, name: str, promote: Callable, tmp_path: Path
) -> None:
    for detector in (small_detector(**COLLAPSED), small_detector(seed=1)):
        register(name, detector, tmp_path)
    assert promote(model=name, version="1", force="true")[0] == 0
    code, said, run = promote(model=name, version="2")
    assert code == 0
    assert f"{name}: champion moved from version 1 to version 2; previous is now version 1" in said
    assert (run.data.tags["moola.from"], run.data.tags["moola.to"]) == ("1", "2")
    assert f"mlflow run . -e promote -P model={name} -P version=previous" in run.data.tags[NOTE]
    assert "moola.rollback" not in run.data.tags

    code, said, run = promote(model=name, version="previous")  # misses a gate, yet was champion
    assert code == 0, said
    assert f"{name}: champion moved from version 2 to version 1; previous is now version 2" in said
    assert "rolled back: failed: recall/consolidation" in said
    assert run.data.tags["moola.rollback"] == "true"
    assert aliases(store, name) == {"candidate": "2", "champion": "1", "previous": "2"}

    code, said, run = promote(model=name, version="previous")  # and forth again
    assert (code, aliases(store, name)) == (0, {"candidate": "2", "champion": "2", "previous": "1"})

    code, said, run = promote(model=name, version="champion")
    assert (code, aliases(store, name)) == (0, {"candidate": "2", "champion": "2", "previous": "1"})
    assert "champion is version 2 already, no alias moved" in said


def test_another_alias_is_gated_too_and_leaves_champion_and_previous_alone(
    store: Store, name: str, promote: Callable, tmp_path: Path
) -> None:
    register(name, small_encoder(), tmp_path)
    register(name, small_encoder(seed=1, val_skill=0.02), tmp_path)
    assert promote(model=name, version="1")[0] == 0
    assert promote(model=name, version="1", alias="shadow")[0] == 0
    assert promote(model=name, version="2", alias="shadow")[0] == 3
    code, said, run = promote(model=name, version="2", alias="shadow", force="true")
    assert code == 0
    assert "shadow moved from version 1 to version 2\n" in said
    assert f"-P model={name} -P version=1 -P alias=shadow`" in run.data.tags[NOTE]
    assert aliases(store, name) == {"candidate": "2", "champion": "1", "shadow": "2"}


def test_limits_can_be_set_for_one_promotion_and_lower_ones_stay_written_on_the_version(
    store: Store, name: str, promote: Callable, tmp_path: Path
) -> None:
    register(name, small_detector(joint_success_at_3=0.3), tmp_path)
    assert promote(model=name)[0] == 3
    code, said, run = promote(model=name, **{"gates.joint_success_at_3": "0.25"})
    lowered = "passed under lowered limits: joint_success_at_3 0.25 instead of 0.40"
    assert (code, lowered in said) == (0, True)
    assert store.client.get_model_version(name, "1").tags["gates"] == lowered
    assert lowered in run.data.tags[NOTE]


UNKNOWN = {
    "model": ({"model": "{}x"}, "did you mean '{}'? Registered: "),
    "version": (
        {"model": "{}", "version": "7"},
        "no version or alias '7'. Versions: 1; aliases: candidate (version 1)",
    ),
    "version's alias": ({"model": "{}", "version": "candidat"}, "did you mean 'candidate'?"),
    "alias candidate": ({"model": "{}", "alias": "candidate"}, "registering a version moves it"),
    "alias previous": ({"model": "{}", "alias": "previous"}, "moves it with champion"),
    "alias latest": ({"model": "{}", "alias": "latest"}, "alias='latest'; allowed: letters"),
    "alias v1": ({"model": "{}", "alias": "v1"}, "alias='v1'; allowed: letters"),
    "alias with a space": ({"model": "{}", "alias": "my pick"}, "alias='my pick'; allowed: letters"),
    "force": ({"model": "{}", "force": "yes"}, "force='yes'; allowed: true, false"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_an_unknown_name_is_refused_with_those_that_are_there(
    store: Store, promote: Callable, tmp_path: Path, case: str
) -> None:
    name = "known-detector"
    if name not in {model.name for model in store.client.search_registered_models()}:
        register(name, small_detector(), tmp_path)
    parameters, message = UNKNOWN[case]
    code, said, run = promote(**{key: value.format(name) for key, value in parameters.items()})
    assert (code, run.info.run_id) == (2, store.refused()[0].info.run_id)
    assert message.format(name) in said
    assert message.format(name) in note_of(run)
    assert "Traceback" not in said
    assert aliases(store, name) == {"candidate": "1"}


def stored(store: Store, name: str, file: str) -> Path:
    """Return the stored file of a model's newest version, to break it."""
    source = store.client.get_model_version_by_alias(name, "candidate").source
    root = Path(mlflow.artifacts.download_artifacts(artifact_uri=source))  # of a local store: where it lies
    return next(root.rglob(file))


def test_a_version_that_does_not_serve_is_refused_force_or_not(
    store: Store, name: str, promote: Callable, tmp_path: Path
) -> None:
    register(name, small_detector(), tmp_path)
    stored(store, name, "weights.safetensors").write_bytes(b"junk")
    code, said, run = promote(model=name, force="true")
    assert (code, run.info.status) == (3, "FAILED")
    assert f"{name} version 1 does not serve" in said
    assert aliases(store, name) == {"candidate": "1"}


def test_a_model_of_somebody_else_is_refused(store: Store, name: str, promote: Callable, tmp_path: Path) -> None:
    register(name, small_encoder(), tmp_path)
    stored(store, name, "encoder.json").unlink()
    code, said, _ = promote(model=name, force="true")
    assert code == 2
    assert "holds neither detector.json nor encoder.json" in said


def test_an_alias_moved_by_hand_warns_and_a_promoted_one_does_not(
    store: Store, name: str, promote: Callable, tmp_path: Path
) -> None:
    for kind, make, load in (
        ("d", small_detector, moola_mlflow.load_detector),
        ("e", small_encoder, moola_mlflow.load_encoder),
    ):
        model = f"{kind}-{name}"
        register(model, make(), tmp_path)
        store.client.set_registered_model_alias(model, "champion", "1")
        with pytest.warns(UserWarning, match=f"'champion' of {model} was moved by hand to version 1, which has not"):
            load(f"models:/{model}@champion")
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            load(f"models:/{model}@candidate")
            load(f"models:/{model}/1")
            assert promote(model=model)[0] == 0  # the alias is there already; now the evidence is too
            load(f"models:/{model}@champion")


def test_what_cannot_be_loaded_says_what_is_wrong(name: str, tmp_path: Path) -> None:
    register(name, small_encoder(), tmp_path)
    with pytest.raises(moola_mlflow.core.UserError, match=r"holds no detector\.json, so it is no detector of"):
        moola_mlflow.load_detector(f"models:/{name}/1")
    with pytest.raises(moola_mlflow.core.UserError, match="detector 'no/such' does not exist; give models:/moola-det"):
        moola_mlflow.load_detector("no/such")
    with pytest.raises(moola_mlflow.core.UserError, match="cannot be fetched"):
        moola_mlflow.load_detector("models:/nobody@champion")


PREDICT = """
import json, statistics, sys, time
import mlflow, numpy as np
windows, uri = np.load(sys.argv[1]), sys.argv[2]
served = mlflow.pyfunc.load_model(uri)
import moola_mlflow
assert "/moola_mlflow/" in moola_mlflow.__file__ and moola_mlflow.__file__ not in sys.argv[3], moola_mlflow.__file__
frame = served.predict(windows)
found = moola_mlflow.load_detector(uri).predict(windows)
seconds = []
for i in range(30):
    begun = time.perf_counter()
    served.predict(windows[i % len(windows)][None])
    seconds.append(time.perf_counter() - begun)
print(json.dumps({
    "columns": list(frame.columns),
    "label": frame["label"].tolist(),
    "p": frame[[c for c in frame.columns if c.startswith("p_")]].to_numpy().tolist(),
    "start": frame["expansion_start"].tolist(),
    "same": float(abs(found.probability - frame.filter(regex="^p_").to_numpy()).max()),
    "ms": 1000 * statistics.median(seconds),
}))
"""


def ask_the_champion(store: Store, name: str, folder: Path, ohlc: np.ndarray) -> dict[str, Any]:
    """What the champion says of windows in a fresh process, outside the checkout, where no pickle may be loaded."""
    np.save(folder / "windows.npy", ohlc)
    environment = {**store.environment, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    del environment["PYTHONPATH"]  # the model brings its own code
    arguments = [str(folder / "windows.npy"), f"models:/{name}@champion", str(ROOT / "moola_mlflow" / "__init__.py")]
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning:__main__", "-c", PREDICT, *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.strip().splitlines()[-1])
    assert told["columns"] == ["label", "p_consolidation", "p_retracement", "expansion_start", "expansion_end"]
    assert told["same"] <= 1e-5
    print(f"served detector: median {told['ms']:.1f} ms a window")
    return dict(told)


def test_a_champion_loads_and_predicts_in_a_fresh_process_outside_the_checkout(
    store: Store, name: str, promote: Callable, tmp_path: Path
) -> None:
    detector = small_detector("both", 2)
    register(name, detector, tmp_path)
    assert promote(model=name)[0] == 0
    told, expected = ask_the_champion(store, name, tmp_path, windows(7)), detector.predict(windows(7))
    assert told["label"] == expected.label.tolist()
    assert told["start"] == expected.start.tolist()
    np.testing.assert_allclose(told["p"], expected.probability, atol=1e-5)


@pytest.mark.slow
def test_a_trained_detector_meets_the_shipped_gates_becomes_champion_and_finds_patterns_in_another_series(
    store: Store, promote: Callable, tmp_path: Path
) -> None:
    """Out of fold at seeds 13, 17, 23, 29 and 31: F1 0.80 to 0.83, Joint@3 0.73 to 0.77, recall of the scarcer class
    0.74 to 0.81, ECE 0.042 to 0.084 (0.065 at 17, which is run here), lower end of the gain 0.24 to 0.29: all pass.
    """
    tuned = newest(store, command(store, "finetune", **TRAINED))
    assert tuned.data.tags["moola.gates"] == "passed"
    assert OVER_OTHER_INPUTS in tuned.data.tags[NOTE]
    code, said, run = promote()
    assert code == 0, said
    assert "moola-detector: champion is now version 1, it was unset before\nGates passed" in said
    assert said.count(f" > 0, {OVER_OTHER_INPUTS}, ") == 1
    assert store.client.get_model_version("moola-detector", "1").tags["moola.delta_inputs"] == "encoding"
    shipped = read_preset(ROOT / "configs" / "gates.yaml")["gates"]
    assert {key: store.config(run)["gates"][key] for key in shipped} == shipped
    rows = json.loads(store.artifact(run, "gates.json").read_text())
    assert len(rows) == 7
    assert all(row["passed"] for row in rows)
    assert store.client.get_model_version_by_alias("moola-detector", "champion").run_id == tuned.info.run_id
    others = make_config(FinetuneKeys, {}, {"bars.sample_bars": 20_000, "labels.sample_seed": 1002})
    fresh = sample_labels(others, 60, 17)
    told = ask_the_champion(store, "moola-detector", tmp_path, fresh.ohlc)
    assert f1_score(np.array(fresh.classes)[fresh.label], told["label"], average="macro") >= 0.6


@pytest.mark.slow
def test_a_refusal_fails_the_launchers_run(store: Store, promote: Callable, name: str, tmp_path: Path) -> None:
    register(name, small_detector(), tmp_path)
    assert promote(model=name)[0] == 0
    register(name, small_detector(**NO_GAIN), tmp_path)
    assert store.run("promote", {"model": name, "version": "2"}, launcher=True).returncode == 1
    run = store.runs()[0]
    assert run.info.status == "FAILED"
    assert "delta_joint_success_at_3_lo" in run.data.tags[NOTE]
    assert aliases(store, name) == {"candidate": "2", "champion": "1"}
