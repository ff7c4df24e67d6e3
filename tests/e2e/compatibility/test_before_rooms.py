"""A store, run folders, checkpoints and models of the version before the rooms still work."""

from __future__ import annotations

import tarfile
from pathlib import Path

import mlflow
import numpy as np
import pytest
from finetuning import Done, command
from harness import Store, ask_elsewhere
from paths import ROOT
from small_models import windows

ARCHIVE = ROOT / "tests" / "fixtures" / "before_rooms.tar.xz"
SMALL = {"bars__sample_bars": "12000", "encoder__hidden": "4", "tracking__figures_every": "100"}
SERVED = """
import json, sys
import mlflow, numpy as np
windows = np.load(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
answer = model.predict(windows)
import moola_mlflow
from pathlib import Path
flat = (Path(moola_mlflow.__file__).parent / "bartimes.py").is_file()
print(json.dumps([list(map(str, getattr(answer, "columns", range(answer.shape[1])))), len(answer), flat]))
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The unpacked folder in its new place, where `doctor` has found the artifacts again."""
    folder = tmp_path_factory.mktemp("before_rooms")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    store = Store(folder)
    done = command(store, "doctor", fix="true")
    assert done.code == 0, done.err
    return store


def run_id(store: Store, preset: str, status: str) -> str:
    (run,) = [
        run for run in store.runs() if run.info.run_name.startswith(f"pretrain-{preset}-") and run.info.status == status
    ]
    return str(run.info.run_id)


@pytest.mark.parametrize(("preset", "epochs"), [("smoke", 30), ("path", 4)])
def test_an_interrupted_run_goes_on(store: Store, preset: str, epochs: int) -> None:
    interrupted = run_id(store, preset, "KILLED")
    done: Done = command(
        store, "pretrain", config=str(ROOT / "configs" / f"{preset}.yaml"), epochs=str(epochs), resume="auto", **SMALL
    )
    assert done.code == 0, done.err
    run = store.client.get_run(interrupted)
    assert run.info.status == "FINISHED"
    points = store.client.get_metric_history(interrupted, "val/huber")
    assert [point.step for point in points] == list(range(len(points)))
    assert len(points) > 1


def test_registered_models_load_as_objects(store: Store) -> None:
    import moola_mlflow as moola

    mlflow.set_tracking_uri(store.uri)
    encoder = moola.load_encoder("models:/moola-encoder/1")
    assert moola.embed(encoder, windows(3)).shape == (3, 8)
    found = moola.load_detector("models:/moola-detector/1").predict(windows(3))
    assert set(found.label) <= {"consolidation", "retracement"}


@pytest.mark.parametrize("name", ["moola-encoder", "moola-detector"])
def test_registered_models_are_served_with_the_code_that_they_brought(store: Store, name: str, tmp_path: Path) -> None:
    version = store.client.get_model_version(name, "1")
    code = SERVED.replace("sys.argv[2]", repr(f"models:/{name}/{version.version}"))
    columns, count, flat = ask_elsewhere(store, tmp_path, code, windows(3))
    assert count == 3
    assert flat, "the model must bring its own code and not find today's"
    assert ("label" in columns) == (name == "moola-detector")


def test_a_detector_of_then_is_promoted_and_scans_bars(store: Store) -> None:
    done = command(store, "promote", model="moola-detector", version="1", force="true")
    assert done.code == 0, done.err
    assert str(store.client.get_model_version_by_alias("moola-detector", "champion").version) == "1"
    done = command(store, "detect", bars="sample", bars__sample_bars="3000", out=str(store.folder / "hits"))
    assert done.code == 0, done.err


def test_a_detector_can_be_trained_on_an_encoder_of_then(store: Store) -> None:
    done = command(
        store, "finetune", encoder="models:/moola-encoder/1", labels__n="60", bars__sample_bars="20000", epochs="1",
        folds="2", cv__workers="1", register="none",
    )  # fmt: skip
    assert done.code == 0, done.err


def test_old_windows_still_give_the_same_encoding(store: Store, tmp_path: Path) -> None:
    import moola_mlflow as moola

    mlflow.set_tracking_uri(store.uri)
    now = moola.embed(moola.load_encoder("models:/moola-encoder/1"), windows(2)).numpy()
    code = SERVED.replace("sys.argv[2]", "'models:/moola-encoder/1'").replace(
        "print(json.dumps([", "print(json.dumps([answer.tolist(), "
    )
    then, *_ = ask_elsewhere(store, tmp_path, code, windows(2))
    np.testing.assert_allclose(now, np.asarray(then), atol=1e-6)
