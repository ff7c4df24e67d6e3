"""detect on a real store: what it logs, what it says where there is no champion, and its page in a browser."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import mlflow
import pandas as pd
import pytest
from harness import Store, browser_path
from small_models import small_detector
from touched import windows_of

from moola_mlflow import load_detector
from moola_mlflow import scan as detect
from moola_mlflow.bars.sample import generate_bars
from moola_mlflow.cli import main
from moola_mlflow.models.files.detector import read_detector_card, save_detector
from moola_mlflow.tracking.registry import models

NOTE = "mlflow.note.content"
EVERYTHING = {"detect.min_probability": "0", "detect.min_span_score": "0", "detect.margin": "0"}
SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with a promoted detector, one that is a candidate only, and bars of a symbol that looks like HTML."""
    store = Store(tmp_path_factory.mktemp("store"))
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("made", f"{store.folder}/made"))
    for name in ("moola-detector", "unpromoted"):
        folder = store.folder / name
        save_detector(small_detector("both"), folder)
        with mlflow.start_run():
            models.log_detector(name, folder, read_detector_card(folder / "detector.json"), {"gates": "passed"})
    store.client.set_registered_model_alias("moola-detector", "champion", "1")
    generate_bars(1500, 9).assign(symbol=SCRIPT).to_parquet(store.folder / "bars.parquet")
    return store


@pytest.fixture
def scan(store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable:
    """Run the command in this process; return its exit code, what it said, and its run."""
    monkeypatch.chdir(store.folder)
    mlflow.set_tracking_uri(store.uri)

    def run(**parameters: str) -> tuple[int, str, mlflow.entities.Run]:
        words = {"bars": "bars.parquet", **EVERYTHING, **parameters}
        code = main.run_cli(["detect", *(word for key, value in words.items() for word in (f"--{key}", value))])
        said = capsys.readouterr()
        return code, said.out + said.err, store.newest()

    return run


def test_the_champions_hits_are_logged_as_the_library_finds_them(store: Store, scan: Callable) -> None:
    code, said, run = scan(out="found")
    assert code == 0, said
    table = pd.read_parquet(store.artifact(run, "detections.parquet"))
    expected = detect(
        store.folder / "bars.parquet", load_detector("models:/moola-detector@champion"),
        min_probability=0, min_span_score=0, margin=0,
    )  # fmt: skip
    assert len(table) > 10
    pd.testing.assert_frame_equal(table, expected, atol=1e-5)
    assert (run.info.status, run.data.tags["moola.stage"]) == ("FINISHED", "detect")
    assert run.data.tags["moola.detector"] == "models:/moola-detector/1"
    metrics = run.data.metrics
    assert metrics["detect/hits"] == len(table) == metrics["hits/consolidation"] + metrics["hits/retracement"]
    assert metrics["detect/windows"] == expected.attrs["windows"]
    assert metrics["detect/share_above"] == 1
    assert metrics["detect/windows_per_second"] > 0
    assert run.data.tags[NOTE].startswith(f"**{len(table)} hits (")
    assert "also in one without a pattern" in run.data.tags[NOTE]
    assert [item.dataset.name for item in run.inputs.dataset_inputs] == ["bars.parquet"]
    assert len(store.client.get_run(run.info.run_id).inputs.model_inputs) == 1
    assert store.artifact(run, "figures/detections.png").stat().st_size > 10_000
    assert f"{len(table)} hits (" in said
    assert "found/detections.html" in said


def test_a_second_scan_makes_the_same_files(store: Store, scan: Callable) -> None:
    names = ("detections.html", "detections.parquet")
    contents = []
    for _ in range(2):
        assert scan(out="again")[0] == 0
        contents.append([(store.folder / "again" / name).read_bytes() for name in names])
    assert contents[0] == contents[1]
    assert contents[0] == [store.artifact(store.runs()[0], name).read_bytes() for name in names]


def test_without_a_champion_it_says_which_versions_there_are_and_what_to_do(store: Store, scan: Callable) -> None:
    code, said, run = scan(detector="models:/unpromoted@champion")
    assert (code, run.info.run_id) == (2, store.refused()[0].info.run_id)
    assert (
        "moola: detector='models:/unpromoted@champion': unpromoted has no champion. Versions: 1; aliases: candidate "
        "(version 1). Promote one: `moola promote --model unpromoted --alias champion`, or scan with the newest: "
        "--detector models:/unpromoted@candidate" in said
    )
    assert "Traceback" not in said
    assert scan(detector="models:/unpromoted@candidate")[0] == 0


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"detector": "models:/moola-detecter@champion"}, "did you mean 'moola-detector'?"),
        ({"detector": "models:/moola-detector/7"}, "cannot be fetched"),
        ({"detector": "nowhere"}, "detector 'nowhere' does not exist"),
        ({"out": "bars.parquet"}, "out='bars.parquet' is a file; give a folder"),
        ({"bars": "nothing.parquet"}, "no file 'nothing.parquet'"),
        ({"detect.min_probability": "2"}, "detect.min_probability='2'"),
    ],
)
def test_what_cannot_be_scanned_with_ends_with_one_message(
    store: Store, scan: Callable, parameters: dict[str, str], message: str
) -> None:
    before = [run.info.run_id for run in store.runs()]
    code, said, _ = scan(**parameters)
    assert (code, [run.info.run_id for run in store.runs()]) == (2, before)
    assert message in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_the_page_opens_in_a_browser_without_an_error_and_without_the_network(store: Store, scan: Callable) -> None:
    browser = browser_path()
    assert scan(out="page")[0] == 0
    opened = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         f"--user-data-dir={store.folder}/browser", "--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom",
         (store.folder / "page" / "detections.html").as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert opened.returncode == 0
    assert ":CONSOLE" not in opened.stderr  # where Chromium says what the page's console shows
    hits = len(pd.read_parquet(store.folder / "page" / "detections.parquet"))
    page = (store.folder / "page" / "detections.html").read_text(encoding="utf-8")
    assert len(windows_of(page)[0]) == min(50, hits) > 10
    assert 'class="main-svg"' in opened.stdout, "the chart is drawn"
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in opened.stdout
