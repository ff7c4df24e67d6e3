"""How long a newcomer waits for the first picture: a fresh clone, the README's commands, a run's page in a browser.

    python -m benchmarks.speed.newcomer [--smoke] [--cache] [--picture FILE] [--out benchmarks/results/newcomer.json]

Clones this checkout as it was last committed into a temporary folder, builds its environment, types the README's first
command (`make pretrain`: 20 epochs on the sample; ``--smoke``: its "first look, in seconds" with configs/smoke.yaml
instead), starts `mlflow ui` with nothing exported and takes a picture of the run's page in headless Chromium. All of it
runs in the clone's own environment. ``--cache`` lets pip use what it has downloaded before; a newcomer's has nothing.
Needs git, make, chromium and a package index. `make pretrain` builds the environment too; to have that time apart,
`make setup` goes before.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.synthetic_months import machine

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
ACTIVE = ". .venv/bin/activate && "
FIRST_LOOK = ACTIVE + "mlflow run . -e pretrain -P config=configs/smoke.yaml"
LIMIT_S = 480.0
UI_S = 180.0
"""Seconds after which a UI that does not answer is given up."""

PICTURE = """
import sys

import mlflow

sys.path.insert(0, "tools")
import browser
import screenshots

address, path = sys.argv[1:]
with screenshots.opened(address, browser.find_browser()) as page:
    run = screenshots.newest(mlflow.MlflowClient(address), "pretrain").info
    screenshots.go(page, f"{address}/#/experiments/{run.experiment_id}/runs/{run.run_id}")
    screenshots.expect(page.get_by_text("Test:", exact=True)).to_be_visible()
    page.screenshot(path=path)
"""


def environment(cache: str) -> dict[str, str]:
    """Return what a newcomer's shell has: no active environment, no tracking store, and an empty cache or pip's own."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("MLFLOW_", "MAKE")) and key not in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")
    }
    own = str(Path(sys.prefix) / "bin")
    kept["PATH"] = os.pathsep.join(folder for folder in kept["PATH"].split(os.pathsep) if folder != own)
    return kept | ({"PIP_CACHE_DIR": cache} if cache else {})


@contextmanager
def ui(clone: Path, shell: Mapping[str, str]) -> Iterator[str]:
    """Start `mlflow ui` in the clone; yield its address once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with open(clone / "ui.log", "wb") as log:
        server = subprocess.Popen(
            ["bash", "-c", f"{ACTIVE} exec mlflow ui --port {port}"], cwd=clone, env=shell, stdout=log,
            stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + UI_S
        while not _answers(address):
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"mlflow ui does not answer\n{(clone / 'ui.log').read_text()[-3000:]}")
            time.sleep(0.2)
        yield address
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5):
            return True
    except OSError:
        return False


def typed(name: str, command: list[str], folder: Path, shell: Mapping[str, str]) -> None:
    """Run a command to its end. Raises: SystemExit with what it said where it fails."""
    done = subprocess.run(command, cwd=folder, env=shell, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(f"{name}: exit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="configs/smoke.yaml in place of `make pretrain`")
    parser.add_argument("--cache", action="store_true", help="let pip use its cache")
    parser.add_argument("--picture", type=Path, help="where to keep the picture")
    parser.add_argument("--out", type=Path, default=RESULTS / "newcomer.json")
    arguments = parser.parse_args()
    python = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        seconds[name] = time.perf_counter() - started
        print(f"{name}: {seconds[name]:.1f} s", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="moola-newcomer-") as scratch:
        clone, picture = Path(scratch) / "moola_mlflow", Path(scratch) / "run.png"
        shell = environment("" if arguments.cache else f"{scratch}/pip")
        steps = {
            "git clone": ["git", "clone", "--quiet", str(ROOT), str(clone)],
            "make setup": ["make", "setup", f"PYTHON={python}"],
        }
        if arguments.smoke:
            steps["mlflow run, configs/smoke.yaml"] = ["bash", "-c", FIRST_LOOK]
        else:
            steps["make pretrain"] = ["make", "pretrain", f"PYTHON={python}"]
        for name, command in steps.items():
            with timed(name):
                typed(name, command, clone if clone.exists() else Path(scratch), shell)
        with ExitStack() as stack, timed("mlflow ui, browser, picture"):
            address = stack.enter_context(ui(clone, shell))  # its end is not waited for
            typed("picture", [".venv/bin/python", "-c", PICTURE, address, str(picture)], clone, shell)
        size = picture.stat().st_size
        if arguments.picture:
            shutil.copy(picture, arguments.picture)
    total = sum(seconds.values())
    print("| step | seconds |\n|---|---|")
    for name, value in seconds.items():
        print(f"| {name} | {value:.1f} |")
    print(f"\nfresh clone to the first picture ({size / 1000:.0f} kB): {total:.0f} s; the line is {LIMIT_S:.0f} s")
    result = {
        "machine": machine(), "commit": commit.stdout.strip(), "smoke": arguments.smoke, "cache": arguments.cache,
        "seconds": seconds, "total": total, "line_s": LIMIT_S,
    }  # fmt: skip
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
