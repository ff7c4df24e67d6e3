"""Makes docs/images/*.png: pages of MLflow's UI over a store that real commands have filled, in headless Chromium.

python tools/screenshots.py            a store of its own, in a folder that is removed: some minutes
python tools/screenshots.py FOLDER     the store that is in FOLDER already: mlflow.db and mlruns/
"""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
from browser import BROWSERS, find_browser
from mlflow.entities import Run
from pictures import record
from PIL import Image
from playwright.sync_api import Locator, Page, ViewportSize, expect, sync_playwright

from moola_mlflow.tracking import ui

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
SIZE = ViewportSize(width=1400, height=860)
PATIENCE_MS = 60_000
SLIDE_MS = 1_500
"""In which an opened folder has slid open."""
COLOURS = 64
STORE_OF_ITS_OWN = (
    "features",
    "pretrain --config configs/rules.yaml --trainer.steps none --epochs 12",
    "finetune --encoder models:/moola-encoder@candidate --folds 3 --epochs 8",
    "sweep --base configs/smoke.yaml --n_trials 6 --trainer.epochs 2 --bars.sample_bars 20000",
    "promote --model moola-encoder",
)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve the store in a folder on this machine alone; yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
             "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
             "--default-artifact-root", str(folder / "mlruns")]  # fmt: skip
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with open(folder / "server.log", "ab") as log:
        server = subprocess.Popen(
            words, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )  # its workers are ended with it
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 180
        while not _answers(address):
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "server.log").read_text()[-3000:])
            time.sleep(0.2)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5):
            return True
    except OSError:
        return False


@contextmanager
def opened(address: str, browser: str) -> Iterator[Page]:
    """Open a browser's page that reaches this address and nothing else."""
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        try:
            page = chromium.new_page(viewport=SIZE)
            page.set_default_timeout(PATIENCE_MS)
            expect.set_options(timeout=PATIENCE_MS)
            page.route(lambda url: not url.startswith(address), lambda route: route.abort())
            settle(page, address)
            yield page
        finally:
            chromium.close()


def settle(page: Page, address: str) -> None:
    """Have the UI show model training, and close the assistant's panel, which opens by itself once; both are kept."""
    page.goto(f"{address}/#/experiments")
    page.get_by_role("button", name="Model training", exact=True).click()
    panel = page.get_by_role("button", name="Close", exact=True)
    expect(panel.or_(page.get_by_role("button", name="MLflow Assistant"))).to_be_visible()
    if panel.is_visible():
        panel.click()


def go(page: Page, address: str) -> None:
    """Open a page of the UI afresh: behind the #, an open page would go over to it, and a reload in between lost the
    columns of a saved view in 7 of 20 tries on a busy machine."""
    page.goto("about:blank")
    page.goto(address)


def preview(page: Page) -> Locator:
    """Return the picture that the artifacts' page shows."""
    return page.get_by_role("main").get_by_role("img", name=re.compile(r"\.png$"))


def save(page: Page, name: str) -> None:
    """Save what is seen, in few colours: a picture in a repository is small."""
    page.mouse.move(0, SIZE["height"] - 1)  # nothing hovered
    paths = [page.get_by_text(re.compile("^Path:"))]  # of this machine
    taken = page.screenshot(animations="disabled", mask=paths, mask_color="white")
    picture = Image.open(io.BytesIO(taken)).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(IMAGES / f"{name}.png", optimize=True)
    record(f"{name}.png")
    print(f"{name}.png: {(IMAGES / f'{name}.png').stat().st_size / 1000:.0f} kB", flush=True)


def newest(client: mlflow.MlflowClient, stage: str) -> Run:
    """Return the newest finished run of a stage."""
    experiments = [one.experiment_id for one in client.search_experiments()]
    wanted = f"tags.`moola.stage` = '{stage}' and attributes.status = 'FINISHED'"
    found = client.search_runs(experiments, wanted, max_results=1, order_by=["attributes.start_time DESC"])
    if not found:
        raise SystemExit(f"the store has no finished run of {stage}")
    return found[0]


def take_all(page: Page, address: str, client: mlflow.MlflowClient) -> None:
    """Take every picture of the documents."""
    trained = newest(client, "pretrain")
    ui.offer_views(client, client.get_experiment(trained.info.experiment_id))  # a store of an older version has none
    experiment = f"{address}/#/experiments/{trained.info.experiment_id}"
    run = f"{experiment}/runs/{trained.info.run_id}"

    go(page, f"{experiment}/runs?viewStateShareKey=moola-pretrain")
    expect(page.get_by_role("columnheader", name="test/skill").first).to_be_visible()
    save(page, "runs")

    go(page, run)
    expect(page.get_by_text("Test:", exact=True)).to_be_visible()
    page.get_by_role("button", name="Expand description").click()
    expect(page.get_by_text("—", exact=True).first).to_be_visible()  # the last to come: its prompts, none
    save(page, "run")

    go(page, f"{run}/artifacts")
    page.get_by_text("figures", exact=True).click()
    page.get_by_text("loss_curves.png", exact=True).click()
    expect(preview(page)).to_be_visible()
    page.wait_for_timeout(SLIDE_MS)
    save(page, "artifacts")

    go(page, f"{address}/#/models/moola-encoder")
    expect(page.get_by_role("link", name="Version 1", exact=True)).to_be_visible()
    page.get_by_text("Description", exact=True).first.click()
    save(page, "model")


def fill(folder: Path) -> None:
    """Run the commands whose traces the pictures show."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    for line in STORE_OF_ITS_OWN:
        print(f"moola {line}", flush=True)
        words = line.replace("configs/", f"{ROOT}/configs/").split()
        done = subprocess.run(
            [sys.executable, "-m", "moola_mlflow", *words], cwd=folder, env={**environment, "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"moola {line}: exit code {done.returncode}\n{done.stderr[-3000:]}")


def main(arguments: list[str]) -> None:
    """Make every picture."""
    browser = find_browser()
    if browser is None:
        raise SystemExit(f"no browser: none of {', '.join(BROWSERS)} is in the PATH (Debian: apt install chromium)")
    with tempfile.TemporaryDirectory(prefix="moola-screenshots-") as scratch:
        folder = Path(arguments[0]).resolve() if arguments else Path(scratch)
        if not arguments:
            fill(folder)
        with served(folder) as address, opened(address, browser) as page:
            take_all(page, address, mlflow.MlflowClient(address))


if __name__ == "__main__":
    main(sys.argv[1:])
