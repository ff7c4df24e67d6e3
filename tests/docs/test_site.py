"""The documentation as a site: its made pages, its menu, a strict build, and a browser without a network."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import site_pages
from harness import absent, browser_path
from packaging.requirements import Requirement
from paths import ROOT

MKDOCS = ROOT / ".venv-docs" / "bin" / "mkdocs"
MENU = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]


def test_every_page_of_the_docs_is_in_the_menu_once() -> None:
    listed = re.findall(r"([\w/-]+\.md)", MENU)
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert sorted(listed) == sorted(pages | site_pages.PAGES.keys())


def test_the_page_of_python_has_every_exported_name_and_every_result() -> None:
    import moola_mlflow

    page = site_pages.api_page()
    named = re.findall(r"^::: moola_mlflow\.(\w+)$", page, re.M)
    assert set(named) == set(moola_mlflow.__all__) - {"features", "windows"}
    assert "::: moola_mlflow.reports.FinetuneResult" in page


def test_the_notebook_becomes_a_page_with_all_of_its_cells() -> None:
    cells = json.loads((ROOT / "examples" / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]
    page = site_pages.notebook_page()
    assert page.startswith("# ")
    assert page.count("```python") == sum(cell["cell_type"] == "code" for cell in cells)
    assert all("".join(cell["source"]).strip() in page for cell in cells)


def test_links_that_leave_the_docs_lead_to_their_place_in_the_site() -> None:
    text = "[a](../../examples/notebook.ipynb) [b](../../configs/rules.yaml) [c](../index.md)"
    led = "[a](../tutorials/notebook.md) [b](../configs/rules.yaml) [c](../index.md)"
    assert site_pages.on_page_markdown(text) == led
    assert "](docs/" not in site_pages.changelog_page()


def test_the_lock_of_the_site_lies_in_the_ranges_of_the_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    lock = (ROOT / "requirements-docs.lock").read_text(encoding="utf-8")
    locked = dict(line.split("==") for line in lock.splitlines() if not line.startswith("#"))
    wanted = [Requirement(line) for line in extras["docs"]]
    assert [str(one) for one in wanted if locked[one.name] not in one.specifier] == []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly. `make docs` makes the environment; CI runs it before the tests."""
    if not MKDOCS.exists():
        absent(".venv-docs", "run make docs")
    folder = tmp_path_factory.mktemp("site")
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [str(MKDOCS), "build", "--quiet", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return folder


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_holds_what_pages_show(site: Path) -> None:
    page = (site / "reference" / "api" / "index.html").read_text(encoding="utf-8")
    assert 'id="moola_mlflow.pretrain"' in page
    assert "Name of a preset, such as" in page
    assert (site / "configs" / "rules.yaml").is_file()
    assert "trained" in (site / "tutorials" / "notebook" / "index.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_pages_open_in_a_browser_without_an_error_and_ask_no_other_server(site: Path, address: str) -> None:
    browser = browser_path()
    from playwright.sync_api import sync_playwright

    pages = sorted(path.parent.relative_to(site).as_posix() for path in site.rglob("index.html"))
    said: list[str] = []
    with sync_playwright() as playwright:
        page = playwright.chromium.launch(executable_path=shutil.which(browser), args=["--no-sandbox"]).new_page()
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda asked: None if asked.url.startswith((address, "data:")) else said.append(asked.url))
        for name in pages:
            page.goto(f"{address}{name}/")
            page.wait_for_load_state("load")
            assert said == [], name
        page.keyboard.press("f")
        page.keyboard.type("embargo")
        page.wait_for_selector(".md-search-result__item")
        assert said == []
    assert len(pages) > 25
