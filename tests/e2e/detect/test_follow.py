"""detect.follow on a real store: a file that grows and standard input give the events and the run of a scan."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from harness import Store, note_of
from small_events import random_event_detector, sample
from small_models import small_detector

from moola_mlflow.cli import main
from moola_mlflow.models.files.detector import save_detector
from moola_mlflow.models.files.event_detector import save_event_detector

Ran = tuple[int, str, str]


def lines(num: int = 700) -> list[str]:
    bars = sample().head(num)
    table = pd.DataFrame(bars.ohlc, columns=["open", "high", "low", "close"])
    table.insert(0, "time", pd.to_datetime(bars.time_ns, utc=True).strftime("%Y-%m-%dT%H:%M:%SZ"))
    return table.to_csv(index=False).splitlines()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("store"))
    save_event_detector(random_event_detector(), store.folder / "events")
    save_detector(small_detector("both"), store.folder / "spans")
    (store.folder / "bars.csv").write_text("\n".join(lines()) + "\n")
    return store


@pytest.fixture
def follow(store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run the command in this process; return its exit code and what it said on both outputs."""
    monkeypatch.chdir(store.folder)
    mlflow.set_tracking_uri(store.uri)

    def run(**parameters: str) -> Ran:
        words = {"bars": "bars.csv", "detector": "events", "detect.min_score": "0.0", **parameters}
        code = main.run_cli(["detect", *(word for key, value in words.items() for word in (f"--{key}", value))])
        return (code, *capsys.readouterr())

    return run


def test_a_file_gives_the_run_of_a_scan_and_prints_its_final_events(store: Store, follow: Callable[..., Ran]) -> None:
    assert follow(out="scanned")[0] == 0
    code, out, err = follow(follow="true", out="followed", **{"detect.idle_s": "0", "detect.lines": "json"})
    run, scanned = store.runs()[:2]
    assert code == 0, err
    assert run.info.status == "FINISHED"
    one, other = (pd.read_parquet(store.folder / name / "detections.parquet") for name in ("scanned", "followed"))
    pd.testing.assert_frame_equal(one.drop(columns="instrument"), other.drop(columns="instrument"))
    printed = pd.DataFrame([json.loads(line) for line in out.splitlines()]).sort_values(["start", "label", "end"])
    final = one[one["final"]].sort_values(["start", "label", "end"])
    assert len(printed) == len(final) > 5
    assert pd.to_datetime(printed["start"]).tolist() == final["start"].tolist()
    assert pd.to_datetime(printed["known_at"]).tolist() == final["known_at"].tolist()
    np.testing.assert_allclose(printed["score"], final["score"], atol=1e-5)
    assert "Ended: no line came for 0 s. 700 bars" in err
    same = ("detect/hits", "detect/windows", "detect/bars", "detect/threshold")
    assert {name: run.data.metrics[name] for name in same} == {name: scanned.data.metrics[name] for name in same}
    assert run.data.metrics["detect/slowest_bar_ms"] > 0
    assert len(run.inputs.dataset_inputs) == 1
    assert store.artifact(run, "detections.html").is_file()


def test_standard_input_is_followed_to_its_end(
    store: Store, follow: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    header, *rows = lines(300)
    objects = [json.dumps(dict(zip(header.split(","), row.split(","), strict=True))) for row in rows]
    path = store.folder / "objects.jsonl"
    path.write_text("\n".join([*objects, objects[7], "{"]))
    with path.open() as stream:
        monkeypatch.setattr("sys.stdin", stream)
        code, out, err = follow(bars="-", follow="true")
    assert code == 0, err
    assert "score" in out
    assert "Ended: the lines ended. 300 bars" in out
    assert "a later bar has been read" in err
    assert "is not JSON" in err
    assert store.runs()[0].data.metrics["detect/lines_skipped"] == 2


def test_fewer_bars_than_a_window_end_with_a_note(store: Store, follow: Callable[..., Ran]) -> None:
    (store.folder / "few.csv").write_text("\n".join(lines(50)) + "\n")
    code, _, err = follow(bars="few.csv", follow="true", **{"detect.idle_s": "0"})
    assert code == 0, err
    assert "50 bars came. An event detector needs 105" in note_of(store.runs()[0])


def test_a_span_detector_is_refused_and_so_is_a_file_that_is_not_there(follow: Callable[..., Ran]) -> None:
    code, _, err = follow(detector="spans", follow="true", **{"detect.min_score": ""})
    assert (code, "detect.follow needs an event detector" in err) == (2, True)
    code, _, err = follow(bars="nothing.csv", follow="true")
    assert (code, "bars='nothing.csv' cannot be read" in err) == (2, True)


def _read_until(process: subprocess.Popen[str], wanted: Callable[[str], bool]) -> list[str]:
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if wanted(line):
            return said
    raise AssertionError("".join(said))


@pytest.fixture
def growing(store: Store, tmp_path: Path) -> tuple[subprocess.Popen[str], Path]:
    """A command that follows a file with a first part of its bars, and has printed an event of it."""
    path = tmp_path / "live.csv"
    path.write_text("\n".join(lines()[:400]) + "\n")
    given = {"bars": str(path), "detector": "events", "detect.min_score": "0.0", "follow": "true"}
    process = store.start("detect", given)
    _read_until(process, lambda line: "known at" in line)
    return process, path


def test_events_come_as_the_file_grows_and_ctrl_c_finishes_the_run(
    store: Store, growing: tuple[subprocess.Popen[str], Path]
) -> None:
    process, path = growing
    with path.open("a") as f:
        f.write("\n".join(lines()[400:]) + "\n")
    _read_until(process, lambda line: "known at" in line and line.split(" to ")[0].split()[-1] > lines()[480][:20])
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "Ended: SIGINT asked it to stop. 700 bars" in said
    assert store.runs()[0].info.status == "FINISHED"


def test_a_file_that_is_rotated_ends_the_run_with_a_reason_and_keeps_what_was_found(
    store: Store, growing: tuple[subprocess.Popen[str], Path]
) -> None:
    process, path = growing
    path.rename(path.with_suffix(".old"))
    path.write_text(lines()[0] + "\n")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 2, said
    assert "was replaced by another file while it was followed" in said
    run = store.runs()[0]
    assert run.info.status == "FAILED"
    assert store.artifact(run, "detections.parquet").is_file()
