"""How long does `annotate` let a person wait? 1.8 million bars are opened, and 10,000 decisions are sent by API.

Lines: the bars open in under 3 s; the 99th percentile of a decision is under 200 ms while refits go on; memory of the
server grows by less than 100 MB after the first 2,000 decisions.

A decision is what the page waits for: it is appended and on disk, and the next window is answered. A rule answers, so
decisions come hundreds of times faster than from a person, and a refit is running at almost any moment.

python -m benchmarks.speed.annotate_server [--smoke] [--out FILE]
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import psutil

from benchmarks.synthetic_months import machine
from moola_mlflow.annotate import AnnotateSession
from moola_mlflow.bars import read_bars, write_parquet, write_store
from moola_mlflow.core import AnnotateKeys, BarsConfig

RESULTS = Path(__file__).resolve().parents[1] / "results" / "annotate_server.json"
NUM_BARS, NUM_DECISIONS, EVERY = 1_800_000, 10_000, 1_000
OPEN_LINE_S, P99_LINE_MS, GROWTH_LINE_MB = 3.0, 200.0, 100.0


def seconds_to_open(path: Path, folder: Path) -> float:
    """Return how long bars take to be read, cut, and shown as a first window."""
    config = AnnotateKeys.model_validate(
        {"bars": {"path": str(path)}, "labels": {"path": str(folder / "open.parquet")}}
    )
    started = time.perf_counter()
    session = AnnotateSession.open(config, read_bars(config.bars))
    session.desk.window()
    taken = time.perf_counter() - started
    session.desk.journal.close()
    (folder / "open.decisions.jsonl").unlink()
    return taken


class Page:
    """Asks a running server over one connection, as a browser does."""

    def __init__(self, link: str) -> None:
        base, _, self.token = link.removeprefix("http://").partition("/?token=")
        self.connection = http.client.HTTPConnection(base, timeout=120)
        self.connection.connect()
        # It sends head and body in two packets, and would wait 40 ms between them. A browser sends one.
        self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"}
        self.connection.request("GET" if body is None else "POST", path, body and json.dumps(body), headers)
        answer = self.connection.getresponse()
        text = answer.read()
        assert answer.status == 200, text[:300]
        return json.loads(text)


def decide(page: Page, num: int, process: psutil.Process) -> dict[str, Any]:
    """Send decisions, most of them with an event, and return how long each took and the memory on the way."""
    taken, memory, refits, window = np.zeros(num), [], set(), page.ask("/api/window")
    rng = np.random.default_rng(17)
    for i in range(num):
        start = int(rng.integers(20, 70))
        label = ("consolidation", "retracement")[int(rng.integers(2))]
        events = [{"label": label, "start": start, "end": start + 8}] if rng.random() < 0.4 else []
        body = {"ticket": window["ticket"], "action": "label", "events": events, "seconds": 1.0}
        began = time.perf_counter()
        window = page.ask("/api/decision", body)
        taken[i] = time.perf_counter() - began
        refits.add(window["progress"]["refit"]["at"])
        if (i + 1) % max(1, min(EVERY, num // 5)) == 0:
            memory.append([i + 1, process.memory_info().rss / 1e6])
    percentiles = {f"p{p}_ms": float(np.percentile(taken, p) * 1e3) for p in (50, 95, 99, 99.9)}
    return {**percentiles, "max_ms": float(taken.max() * 1e3), "memory_mb": memory, "refits": len(refits - {None})}


def served(path: Path, num: int, folder: Path) -> dict[str, Any]:
    """Start `moola annotate` on bars and send decisions."""
    words = [
        sys.executable,
        "-m",
        "moola_mlflow",
        "annotate",
        "--bars",
        str(path),
        "--port",
        "0",
        "--labels",
        "l.parquet",
    ]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "PYTHONPATH": os.getcwd()}
    process = subprocess.Popen(words, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    link = next(word for line in process.stdout for word in line.split() if "/?token=" in word)
    page = Page(link)
    result = decide(page, num, psutil.Process(process.pid))
    page.ask("/api/finish", {})
    process.communicate(timeout=300)
    return {**result, "exit_code": process.returncode}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", default=str(RESULTS))
    given = parser.parse_args()
    num_bars, num = (30_000, 200) if given.smoke else (NUM_BARS, NUM_DECISIONS)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bars = read_bars(BarsConfig(sample_bars=num_bars, sample_seed=3))
        paths = {"parquet": folder / "bars.parquet", "store": folder / "bars.moolabars"}
        write_parquet(bars, paths["parquet"], "front")
        write_store(bars, paths["store"], 5, "front")
        del bars
        opened = {name: seconds_to_open(path, folder) for name, path in paths.items()}
        print(json.dumps(opened), flush=True)
        decisions = served(paths["store"], num, folder)
    late = [mb for count, mb in decisions["memory_mb"] if count >= 0.2 * num]
    result = {
        "machine": machine(), "load": os.getloadavg()[0], "bars": num_bars, "decisions": num, "open_s": opened,
        **decisions, "growth_mb": late[-1] - late[0],
        "lines": {
            "open": max(opened.values()) < OPEN_LINE_S, "p99": decisions["p99_ms"] < P99_LINE_MS,
            "memory": late[-1] - late[0] < GROWTH_LINE_MB,
        },
    }  # fmt: skip
    print(json.dumps({name: value for name, value in result.items() if name != "machine"}, indent=1))
    Path(given.out).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
