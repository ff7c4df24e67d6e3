"""Workers start with a command only where they save time: on a second core, before MLflow is imported."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from harness import Store
from small_events import random_event_detector
from small_models import small_detector

from moola_mlflow.cli import ahead
from moola_mlflow.cli.ahead import FITS, PICTURES, workers_of
from moola_mlflow.cli.parser import settle
from moola_mlflow.models.files.detector import save_detector
from moola_mlflow.models.files.event_detector import save_event_detector
from moola_mlflow.tracking.registry import models

COUNTED = """
import sys
from moola_mlflow.cli.main import run_cli
from moola_mlflow.core import WorkerPool
made = []
start = WorkerPool.__init__
WorkerPool.__init__ = lambda pool, num, *more: (made.append(num), start(pool, num, *more))[1]
code = run_cli(sys.argv[1:])
print(max(made), "matplotlib" in sys.modules)
sys.exit(code)
"""


def test_no_worker_starts_once_mlflow_is_imported_or_on_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert workers_of("data", settle("data", {})) == (1, PICTURES["data"])
    assert workers_of("detect", settle("detect", {})) == (1, PICTURES["detect"])
    assert workers_of("promote", settle("promote", {})) == (0, ())
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert workers_of("data", settle("data", {})) == (0, ())
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setitem(sys.modules, "mlflow", sys)
    assert workers_of("data", settle("data", {})) == (0, ())


@pytest.mark.parametrize(
    ("device", "workers", "gpu", "num"),
    [
        ("cpu", "3", True, 3),
        ("auto", "3", False, 3),
        ("auto", "3", True, 0),
        ("cuda", "3", True, 0),
        ("cpu", "1", False, 0),
    ],
)
def test_the_processes_of_a_fine_tuning_start_early_unless_a_gpu_may_do_it(
    device: str, workers: str, gpu: bool, num: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    monkeypatch.setattr(ahead, "may_have_gpu", lambda: gpu)
    given = settle("finetune", {"runtime.device": device, "cv.workers": workers})
    assert workers_of("finetune", given) == ((num, FITS) if num else (0, ()))


@pytest.mark.parametrize("name", sorted({module for modules in (*PICTURES.values(), FITS) for module in modules}))
def test_every_module_that_a_worker_imports_is_there(name: str) -> None:
    importlib.import_module(name)


@pytest.mark.slow
def test_a_fine_tuning_fits_in_the_processes_that_started_with_it(tmp_path: Path) -> None:
    few = "--labels.n 40 --bars.sample_bars 8000 --trainer.epochs 1 --cv.folds 2 --cv.workers 2 --register none"
    words = f"{few} --finetune.inputs price_path --cv.baselines quick".split()
    done = subprocess.run(
        [sys.executable, "-c", COUNTED.replace("max(made)", "made"), "finetune", *words],
        cwd=tmp_path, env=Store(tmp_path).environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "2 processes" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("[2] ")


def pictures_drawn(store: Store, cores: str, *words: str) -> str:
    """How many workers a command started, and whether it imported matplotlib itself."""
    environment = {**store.environment, "OMP_NUM_THREADS": cores}
    done = subprocess.run(
        [sys.executable, "-c", COUNTED, *words],
        cwd=store.folder, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(("cores", "said"), [("2", "1 False"), ("1", "0 True")])
def test_data_has_its_pictures_drawn_by_a_worker_on_a_second_core(cores: str, said: str, tmp_path: Path) -> None:
    found = pictures_drawn(Store(tmp_path), cores, "data", "--bars.sample_bars", "2000", "--out", "bars.parquet")
    assert found == said


@pytest.mark.parametrize("kind", ["min_probability", pytest.param("min_score", marks=pytest.mark.slow)])
def test_detect_has_its_pictures_drawn_by_a_worker_also_with_a_detector_of_the_store(kind: str, tmp_path: Path) -> None:
    store, folder = Store(tmp_path), tmp_path / "detector"
    if kind == "min_probability":
        save_detector(small_detector(), folder)
    else:
        save_event_detector(random_event_detector(), folder)
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("made", f"{tmp_path}/made"))
    card = json.loads((folder / "detector.json").read_text(encoding="utf-8"))
    with mlflow.start_run():
        models.log_detector("some", folder, card, {"gates": "passed"})
    words = ["--bars.sample_bars", "3000", "--detector", "models:/some@candidate", f"--detect.{kind}", "0"]
    assert pictures_drawn(store, "2", "detect", *words) == "1 False"
    (run,) = store.client.search_runs(["0", *(e.experiment_id for e in store.client.search_experiments())],
                                      "tags.`moola.stage` = 'detect'")  # fmt: skip
    assert store.artifact(run, "figures/detections.png").read_bytes().startswith(b"\x89PNG")
