"""How long a newcomer waits for the first picture: a fresh clone, the README's commands, a run's page in a browser.

    python -m benchmarks.newcomer [--pretrain] [--cache] [--picture FILE] [--out benchmarks/results/newcomer.json]

Clones this checkout as it was last committed into a temporary folder, builds its environment, trains on the sample with
configs/smoke.yaml (``--pretrain``: with `make pretrain`, the README's first command, as well), serves the store and
takes a picture of the run's page in headless Chromium. Everything runs in the clone's own environment. ``--cache``
lets pip use what it has downloaded before; a newcomer's has nothing. Needs git, make, chromium and a package index.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.synthetic_months import machine

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
ACTIVE = ". .venv/bin/activate && "
FIRST_RUN = ACTIVE + "mlflow run . -e pretrain -P config=configs/smoke.yaml"
LIMIT_S = 480.0

PICTURE = """
import sys
from pathlib import Path

import mlflow

sys.path.insert(0, "tools")
import screenshots

with screenshots.served(Path.cwd()) as address, screenshots.opened(address, screenshots.find_browser()) as page:
    run = screenshots.newest(mlflow.MlflowClient(address), "pretrain").info
    screenshots.go(page, f"{address}/#/experiments/{run.experiment_id}/runs/{run.run_id}")
    screenshots.expect(page.get_by_text("Test:", exact=True)).to_be_visible()
    page.screenshot(path=sys.argv[1])
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrain", action="store_true", help="`make pretrain` too, before the picture")
    parser.add_argument("--cache", action="store_true", help="let pip use its cache")
    parser.add_argument("--picture", type=Path, help="where to keep the picture")
    parser.add_argument("--out", type=Path, default=RESULTS / "newcomer.json")
    arguments = parser.parse_args()
    python = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="moola-newcomer-") as scratch:
        clone, picture = Path(scratch) / "moola_mlflow", Path(scratch) / "run.png"
        shell = environment("" if arguments.cache else f"{scratch}/pip")
        steps = {
            "git clone": ["git", "clone", "--quiet", str(ROOT), str(clone)],
            "make setup": ["make", "setup", f"PYTHON={python}"],
            "mlflow run, configs/smoke.yaml": ["bash", "-c", FIRST_RUN],
            **({"make pretrain": ["make", "pretrain", f"PYTHON={python}"]} if arguments.pretrain else {}),
            "server, browser, picture": [".venv/bin/python", "-c", PICTURE, str(picture)],
        }
        for name, command in steps.items():
            started = time.perf_counter()
            done = subprocess.run(
                command, cwd=clone if clone.exists() else scratch, env=shell, capture_output=True, text=True,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
            seconds[name] = time.perf_counter() - started
            print(f"{name}: {seconds[name]:.1f} s", file=sys.stderr, flush=True)
            if done.returncode:
                raise SystemExit(f"{name}: exit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}")
        size = picture.stat().st_size
        if arguments.picture:
            shutil.copy(picture, arguments.picture)
    total = sum(seconds.values())
    print("| step | seconds |\n|---|---|")
    for name, value in seconds.items():
        print(f"| {name} | {value:.1f} |")
    print(f"\nfresh clone to the first picture ({size / 1000:.0f} kB): {total:.0f} s; the line is {LIMIT_S:.0f} s")
    result = {"machine": machine(), "cache": arguments.cache, "seconds": seconds, "total": total}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
