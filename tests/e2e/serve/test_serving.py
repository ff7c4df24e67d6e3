"""`mlflow models serve` as users start it: the numbers of `detect`, refusals with a reason, and many requests."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from documented import commands
from harness import ROOT, Store, absent, free_port
from small_models import small_detector, windows

from moola_mlflow import load_detector
from moola_mlflow import scan as detect
from moola_mlflow.bars.sample import generate_bars
from moola_mlflow.models.detector import PatternDetector
from moola_mlflow.models.files.detector import read_detector_card, save_detector
from moola_mlflow.tracking.registry import models

pytestmark = pytest.mark.slow

URI = "models:/moola-detector@champion"
PARAMS = {"min_probability": 0.5, "min_span_score": 0.05, "margin": 5}
Answer = tuple[int, Any]
ADDRESS = re.compile(r"(http://)?(localhost|127\.0\.0\.1):5000\b")
"""Where the documents' requests go."""


@dataclass
class Server:
    """A scoring server in a process of its own."""

    store: Store
    url: str
    process: subprocess.Popen[bytes]

    def ask(self, body: Any, kind: str = "application/json") -> Answer:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/invocations", data, {"Content-Type": kind})
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refusal:
            return refusal.code, json.load(refusal)

    @property
    def detector(self) -> PatternDetector:
        mlflow.set_tracking_uri(self.store.uri)
        return load_detector(URI)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("serving"))
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("made", f"{store.folder}/made"))
    save_detector(small_detector("both", 2), store.folder / "detector")
    with mlflow.start_run():
        card = read_detector_card(store.folder / "detector" / "detector.json")
        models.log_detector("moola-detector", store.folder / "detector", card, {"gates": "passed"})
    store.client.set_registered_model_alias("moola-detector", "champion", "1")
    return store


@pytest.fixture(scope="module")
def server(store: Store) -> Iterator[Server]:
    port = free_port()
    environment = {key: value for key, value in store.environment.items() if key != "PYTHONPATH"}
    log = store.folder / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "models", "serve", "-m", URI, "--env-manager", "local",
             "--host", "127.0.0.1", "--port", str(port)],
            cwd=store.folder, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{url}/ping", timeout=1)
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                time.sleep(0.2)
        else:
            pytest.fail(f"no answer in two minutes: {log.read_text()}")
        yield Server(store, url, process)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def table(num: int = 700) -> pd.DataFrame:
    """Bars with a gap, times as text."""
    frame = generate_bars(num, 21).reset_index()[["ts_event", "open", "high", "low", "close"]]
    frame = frame.rename(columns={"ts_event": "time"})
    late = frame.index >= 300
    frame["time"] = (frame["time"] + pd.to_timedelta(np.where(late, 90, 0), unit="min")).map(lambda t: t.isoformat())
    return frame


@pytest.mark.parametrize("num", [1, 1000])
def test_windows_get_the_librarys_numbers_one_or_a_thousand_at_a_time(server: Server, num: int) -> None:
    ohlc = np.tile(windows(20), (50, 1, 1))[:num]
    status, answer = server.ask({"inputs": ohlc.tolist()})
    assert status == 200, answer
    found, rows = server.detector.predict(ohlc), pd.DataFrame(answer["predictions"])
    assert len(rows) == num
    assert rows["label"].tolist() == found.label.tolist()
    np.testing.assert_allclose(rows[["p_consolidation", "p_retracement"]], found.probability, atol=1e-5)
    np.testing.assert_array_equal(rows[["expansion_start", "expansion_end"]], np.stack([found.start, found.end], 1))


FORMS: dict[str, Callable[[pd.DataFrame], tuple[Any, str]]] = {
    "records": lambda bars: ({"dataframe_records": bars.to_dict("records"), "params": PARAMS}, "application/json"),
    "split": lambda bars: ({"dataframe_split": bars.to_dict("split"), "params": PARAMS}, "application/json"),
    "columns": lambda bars: ({"inputs": bars.to_dict("list"), "params": PARAMS}, "application/json"),
    "instances": lambda bars: ({"instances": bars.to_dict("records"), "params": PARAMS}, "application/json"),
}


def same(rows: list[dict[str, Any]], expected: pd.DataFrame) -> None:
    frame = pd.DataFrame(rows)
    for name in ("start", "end", "window_start", "window_end"):
        frame[name] = pd.to_datetime(frame[name], utc=True).dt.as_unit("ns")
    pd.testing.assert_frame_equal(frame, expected, check_dtype=False, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_a_table_of_bars_gets_the_rows_of_detect(server: Server, form: str) -> None:
    status, answer = server.ask(*FORMS[form](table()))
    assert status == 200, answer
    expected = detect(table(), server.detector, **PARAMS)
    assert len(expected) > 3
    same(answer["predictions"], expected)
    assert answer["predictions"][0]["start"].endswith("Z")


def test_a_csv_file_gets_the_rows_of_detect_at_its_own_thresholds(server: Server) -> None:
    bars = table(5000)
    status, answer = server.ask(bars.to_csv(index=False), "text/csv")
    assert status == 200, answer
    expected = detect(bars, server.detector)
    assert len(answer["predictions"]) == len(expected)


def broken(row: int, **cells: Any) -> dict[str, Any]:
    records = table(200).to_dict("records")
    records[row] = {**records[row], **cells}
    return {"dataframe_records": records}


def window(cell: Any) -> dict[str, Any]:
    ohlc = windows(2).tolist()
    ohlc[1][4][0] = cell
    return {"inputs": ohlc}


BAD: dict[str, tuple[Any, str]] = {
    "104 bars a window": ({"inputs": windows(2)[:, 1:].tolist()}, "windows have shape (2, 104, 4); allowed: [N, 105"),
    "one window without its list": ({"inputs": windows(1)[0].tolist()}, "windows have shape (105, 4)"),
    "a NaN": (window(float("nan")), "window 1, step 4 is not a bar"),
    "a null": (window(None), "window 1, step 4: None is not a number"),
    "a text": (window("cheap"), "window 1, step 4: 'cheap' is not a number"),
    "numbers as text": ({"inputs": [[["1.5"] * 4] * 105]}, "window 0, step 0: '1.5' is not a number"),
    "no JSON": ("{", "valid JSON"),
    "a table of 104 bars": ({"dataframe_records": table(104).to_dict("records")}, "104 bars, fewer than the 105"),
    "a row whose high is low": (broken(6, high=0.0), "row 7: high 0 is below max(open, close)"),
    "a row with a text": (broken(6, close="cheap"), "row 7: close is not a finite number"),
    "a row with a null": (broken(6, close=None), "row 7: close is not a finite number"),
    "a time that is none": (broken(6, time="soon"), "row 7: time 'soon' does not parse"),
    "a time twice": (broken(6, time=table(200)["time"][5]), "row 7: time"),
    "no low": ({"dataframe_split": table(200).drop(columns="low").to_dict("split")}, "no column low"),
    "an impossible threshold": ({**broken(0), "params": {"min_probability": 2.0}}, "detect.min_probability=2.0"),
    "a threshold that is text": ({**broken(0), "params": {"min_probability": "high"}}, "min_probability"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_read_gets_400_with_the_reason_and_the_server_lives_on(server: Server, case: str) -> None:
    payload, reason = BAD[case]
    status, answer = server.ask(payload)
    assert status == 400
    assert reason in answer["message"]
    assert server.ask({"inputs": windows(1).tolist()})[0] == 200
    assert server.process.poll() is None


def test_fifty_clients_at_once_are_all_answered_alike(server: Server) -> None:
    payload = {"inputs": windows(3).tolist()}
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(server.ask, [payload] * 200))
    assert {status for status, _ in answers} == {200}
    first = pd.DataFrame(answers[0][1]["predictions"])
    for _, answer in answers:
        pd.testing.assert_frame_equal(pd.DataFrame(answer["predictions"]), first, atol=1e-6)


HUNDRED_MB = 100_000_000
HOSTILE: dict[str, Callable[[], tuple[str, set[int]]]] = {
    "100 MB around a window": lambda: (
        json.dumps({"inputs": windows(1).tolist()}) + " " * HUNDRED_MB, {200}
    ),
    "100 MB of text": lambda: (json.dumps({"inputs": "x" * HUNDRED_MB}), {400}),
    "100,000 lists in each other": lambda: ("[" * 100_000 + "]" * 100_000, {400, 500}),
    "100,000 lists in a window": lambda: ('{"inputs": ' + "[" * 100_000 + "]" * 100_000 + "}", {400, 500}),
    "900 lists in a window": lambda: ('{"inputs": ' + "[" * 900 + "1" + "]" * 900 + "}", {400}),
    "100,000 objects in each other": lambda: ('{"inputs": ' * 100_000 + "1" + "}" * 100_000, {400, 500}),
}  # fmt: skip
"""Bodies that are too large or too deep, and the codes that they may get."""


@pytest.mark.parametrize("case", HOSTILE)
def test_a_huge_or_deep_body_is_answered_and_the_server_lives_on(server: Server, case: str) -> None:
    body, codes = HOSTILE[case]()
    request = urllib.request.Request(f"{server.url}/invocations", body.encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            status, said = answer.status, answer.read()
    except urllib.error.HTTPError as refusal:
        status, said = refusal.code, refusal.read()
    assert status in codes, said[:1000]
    assert len(said) < 100_000
    assert server.ask({"inputs": windows(1).tolist()})[0] == 200
    assert server.process.poll() is None


def test_clients_that_send_slowly_or_nothing_stop_no_other(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    slow = []
    try:
        for number in range(300):
            slow.append(socket.create_connection((host, int(port)), timeout=30))
            start = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            slow[-1].sendall([b"", start, start + b"Content-Length: 100000\r\n\r\n[["][number % 3])
        for _ in range(3):
            assert server.ask({"inputs": windows(1).tolist()})[0] == 200
    finally:
        for one in slow:
            one.close()


def test_the_example_client_prints_the_hits_and_a_refusal(server: Server) -> None:
    folder = server.store.folder
    table(5000).to_csv(folder / "bars.csv", index=False)
    table(50).to_csv(folder / "few.csv", index=False)

    def client(name: str, *words: str) -> subprocess.CompletedProcess[str]:
        script = str(ROOT / "examples" / "serve_client.py")
        return subprocess.run(
            [sys.executable, script, name, "--url", server.url, *words], cwd=folder, capture_output=True, text=True
        )

    assert client("few.csv").stderr == "400: table: 50 bars, fewer than the 105 of a window; give more bars\n"
    hits = detect(table(5000), server.detector)
    done = client("bars.csv")
    assert len(done.stdout.splitlines()) == (len(hits) + 1 if len(hits) else 0)
    assert ("no hit above the thresholds" in done.stderr) == (len(hits) == 0)


@pytest.mark.parametrize("page", ["docs/how-to/detect.md", "docs/how-to/promote.md"])
def test_every_request_that_a_page_shows_is_answered(server: Server, page: str) -> None:
    asked = [line for line, _ in commands(page) if ADDRESS.search(line)]
    assert asked != []
    for line in asked:
        words = shlex.split(ADDRESS.sub(server.url, line))
        words[0] = sys.executable if words[0] == "python" else shutil.which(words[0]) or absent(words[0], "install it")
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
        if words[0] == sys.executable:
            assert done.returncode == 0 or done.stderr == "no hit above the thresholds\n", done.stderr
        else:
            assert "predictions" in json.loads(done.stdout), f"{line}\n{done.stdout}{done.stderr}"


def test_the_example_request_gets_a_row_for_each_of_its_windows(server: Server) -> None:
    request = json.loads((ROOT / "examples" / "request.json").read_text(encoding="utf-8"))
    status, answer = server.ask(request)
    assert status == 200, answer
    found = server.detector.predict(np.array(request["inputs"]))
    assert pd.DataFrame(answer["predictions"])["label"].tolist() == found.label.tolist()


def test_a_dockerfile_of_the_model_is_written_without_docker(store: Store) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mlflow", "models", "generate-dockerfile", "-m", URI, "-d", "image",
         "--env-manager", "local"],
        cwd=store.folder, env=store.environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    image = store.folder / "image"
    assert "model_dir" in (image / "Dockerfile").read_text()
    assert list(image.rglob("detector.json"))
    assert list(image.rglob("serving/detector.py"))
    assert "pyarrow==" in next(image.rglob("requirements.txt")).read_text()
    assert not list(image.rglob("*.pkl"))
