"""How long a served detector takes: 1,000 requests against `mlflow models serve`, median and 99th percentile.

    python -m benchmarks.speed.serving [--detector FOLDER] [--requests 1000] [--out benchmarks/results/serving.json]

Without a folder, a detector of the default size with random weights is served: its speed does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import numpy as np

from benchmarks.speed.detect import full_size
from benchmarks.synthetic_months import machine
from moola_mlflow.bars.sample import generate_bars
from moola_mlflow.models.files.detector import read_detector_card, save_detector
from moola_mlflow.tracking.registry import models

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
NAME = "moola-detector"


def serve(folder: Path, detector: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Register a detector in a store of its own, serve it on a free loopback port and wait until it answers."""
    uri = f"sqlite:///{folder}/mlflow.db"
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("serving", f"{folder}/artifacts"))
    with mlflow.start_run():
        models.log_detector(NAME, detector, read_detector_card(detector / "detector.json"), {"gates": "passed"})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{NAME}/1", "--env-manager", "local",
         "--host", "127.0.0.1", "--port", str(port)],
        cwd=folder, env={**os.environ, "MLFLOW_TRACKING_URI": uri}, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    for _ in range(240):
        try:
            urllib.request.urlopen(f"{url}/ping", timeout=1)
            return process, url
        except OSError:
            time.sleep(0.5)
    raise SystemExit("the server did not start within two minutes")


def load(url: str, body: bytes, num: int, at_once: int) -> dict[str, float]:
    """Send a request a number of times; return failures, milliseconds and requests a second."""

    def one(_: int) -> float:
        started = time.perf_counter()
        request = urllib.request.Request(f"{url}/invocations", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                answer.read()
        except OSError:
            return float("nan")
        return 1000 * (time.perf_counter() - started)

    for i in range(3):
        one(i)
    started = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        took = np.array(list(pool.map(one, range(num))))
    seconds = time.perf_counter() - started
    good = took[np.isfinite(took)]
    p50, p99 = (round(float(np.percentile(good, q)), 2) for q in (50, 99)) if len(good) else (None, None)
    return {
        "requests": num, "at_once": at_once, "failed": int(num - len(good)), "p50_ms": p50, "p99_ms": p99,
        "requests_per_second": round(num / seconds, 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", type=Path)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=RESULTS / "serving.json")
    arguments = parser.parse_args()
    bars = generate_bars(105_000, 3)
    ohlc = bars[["open", "high", "low", "close"]].to_numpy(np.float64).reshape(1000, 105, 4)
    table = json.loads(bars.head(1000).reset_index().to_json(orient="split", date_format="iso"))
    bodies = {
        "1 window": ({"inputs": ohlc[:1].tolist()}, arguments.requests, 1),
        "1 window, 8 clients": ({"inputs": ohlc[:1].tolist()}, arguments.requests, 8),
        "1,000 windows": ({"inputs": ohlc.tolist()}, max(1, arguments.requests // 100), 1),
        "a table of 1,000 bars": ({"dataframe_split": table}, max(1, arguments.requests // 10), 1),
    }
    rows = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.detector or Path(scratch) / "detector"
        if arguments.detector is None:
            save_detector(full_size(), folder)
        process, url = serve(Path(scratch), folder)
        try:
            for name, (body, num, at_once) in bodies.items():
                rows[name] = load(url, json.dumps(body).encode(), num, at_once)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)
    print("| request | number | failed | p50 ms | p99 ms | requests/s |\n|---|---|---|---|---|---|")
    for name, row in rows.items():
        print(
            f"| {name} | {row['requests']} | {row['failed']} | {row['p50_ms']} | {row['p99_ms']} | "
            f"{row['requests_per_second']} |"
        )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
