"""MLflow's UI as users see it: a real server on this machine, real runs, headless Chromium."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import screenshots
from harness import QUICK, SMOKE, Store, browser_path
from mlflow.entities import Run
from playwright.sync_api import Locator, Page, expect

from moola_mlflow import load_encoder
from moola_mlflow.bars.sample import generate_bars

pytestmark = pytest.mark.slow
HOSTILE = "<img src=x onerror=alert(1)>"
SYMBOL = "<script>alert(2)</script>"
NOTE = "mlflow.note.content"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two pre-trainings, one of them with names that are HTML, and a fine-tuning with its folds."""
    store = Store(tmp_path_factory.mktemp("ui"))
    store.folder.joinpath(f"{HOSTILE}.yaml").write_text(Path(SMOKE).read_text())
    bars = generate_bars(12_000, 5)
    bars["symbol"] = SYMBOL
    bars.to_parquet(store.folder / f"{HOSTILE}.parquet")
    commands = [
        ("pretrain", {**QUICK, "config": SMOKE, "tracking.figures_every": "1", "trainer.epochs": "12"}),
        ("pretrain", {"config": f"{HOSTILE}.yaml", "bars": f"{HOSTILE}.parquet", "encoder.hidden": "4"}),
        ("finetune", {"labels.n": "60", "bars.sample_bars": "20000", "encoder": "models:/moola-encoder/1",
                      "epochs": "2", "folds": "3", "cv.workers": "1"}),
    ]  # fmt: skip
    for name, parameters in commands:
        done = store.run(name, parameters)
        assert done.returncode == 0, done.stderr[-3000:]
    return store


@pytest.fixture(scope="module")
def address(store: Store) -> Iterator[str]:
    with screenshots.served(store.folder) as address:
        yield address


@pytest.fixture(scope="module")
def browser(address: str) -> Iterator[Page]:
    with screenshots.opened(address, browser_path()) as page:
        yield page


@pytest.fixture
def page(browser: Page) -> Iterator[Page]:
    """The page, which must end a test with no script of a name's own run: neither a dialog nor an error of a page."""
    said: list[str] = []

    def told(kind: str, text: str) -> None:
        said.append(f"{kind}: {text}")

    browser.on("dialog", lambda dialog: (told("dialog", dialog.message), dialog.dismiss()))
    browser.on("pageerror", lambda error: told("page error", str(error)))
    browser.on("request", lambda request: told("request", request.url) if request.url.endswith("/x") else None)
    yield browser
    assert said == []


def of(store: Store, stage: str, hostile: bool = False) -> Run:
    return next(
        run
        for run in store.runs()
        if run.data.tags.get("moola.stage") == stage and (HOSTILE in run.info.run_name) == hostile
    )


def experiment(address: str, store: Store) -> str:
    return f"{address}/#/experiments/{store.runs()[0].info.experiment_id}"


def column(page: Page, name: str) -> Locator:
    return page.get_by_role("columnheader", name=name, exact=True).first


def test_the_table_of_runs_shows_names_data_and_models_and_folds_open_and_close(
    page: Page, address: str, store: Store
) -> None:
    screenshots.go(page, f"{experiment(address, store)}/runs")
    tuned, trained = of(store, "finetune"), of(store, "pretrain")
    for run in (tuned, trained):
        expect(page.get_by_role("link", name=run.info.run_name)).to_be_visible()
    expect(page.get_by_role("button", name=re.compile(r"^sample labels \([0-9a-f]{36}\)"))).to_be_visible()
    expect(page.get_by_role("link", name="moola-encoder").first).to_be_visible()
    expect(page.get_by_role("link", name="moola-detector")).to_be_visible()
    fold = page.get_by_role("link", name="seed 17 repeat 1 fold 2")
    expect(fold).to_have_count(0)
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name=tuned.info.run_name))
    row.get_by_role("button").first.click()
    expect(fold).to_be_visible()
    row.get_by_role("button").first.click()
    expect(fold).to_have_count(0)


def test_saved_views_show_scores_of_one_stage(page: Page, address: str, store: Store) -> None:
    screenshots.go(page, f"{experiment(address, store)}/runs")
    expect(page.get_by_role("link", name=of(store, "finetune").info.run_name)).to_be_visible()
    expect(column(page, "test/skill")).to_have_count(0)
    page.get_by_role("button", name="Views").click()
    page.get_by_text("Pre-training", exact=True).click()
    expect(column(page, "test/skill")).to_be_visible()
    expect(column(page, "probe/r2_gain")).to_be_visible()
    expect(page.get_by_role("link", name=of(store, "pretrain").info.run_name)).to_be_visible()
    expect(page.get_by_role("link", name=of(store, "finetune").info.run_name)).to_have_count(0)
    screenshots.go(page, f"{experiment(address, store)}/runs?viewStateShareKey=moola-finetune")
    expect(column(page, "cv/f1_macro")).to_be_visible()
    expect(page.get_by_role("link", name=of(store, "finetune").info.run_name)).to_be_visible()


def test_a_runs_page_says_the_result_first(page: Page, address: str, store: Store) -> None:
    run = of(store, "pretrain")
    screenshots.go(page, f"{experiment(address, store)}/runs/{run.info.run_id}")
    first = page.get_by_test_id("note-editor-preview-content").locator("p").first
    expect(first).to_contain_text("Test: loss ")
    expect(first).to_contain_text(f"skill {run.data.metrics['test/skill']:.3f}")
    page.get_by_role("button", name="Expand description").click()
    expect(page.get_by_text("Gates missed:", exact=True)).to_be_visible()
    expect(page.get_by_text("Finished", exact=True)).to_be_visible()
    page.get_by_role("textbox", name="Search metrics").fill("test/skill")
    skill = page.get_by_role("row").filter(has=page.get_by_role("link", name="test/skill", exact=True))
    expect(skill).to_contain_text(str(run.data.metrics["test/skill"])[:6])
    page.get_by_role("tab", name="Model metrics").click()
    page.get_by_placeholder("Search metric charts").fill("val/")
    for name in ("huber", "loss", "skill"):
        expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible()
    screenshots.go(page, f"{experiment(address, store)}/runs/{run.info.run_id}/system-metrics")
    expect(page.get_by_role("heading", name="cpu_utilization_percentage", exact=True)).to_be_visible()


def test_the_note_of_a_fine_tuning_has_its_table_of_baselines(page: Page, address: str, store: Store) -> None:
    screenshots.go(page, f"{experiment(address, store)}/runs/{of(store, 'finetune').info.run_id}")
    note = page.get_by_test_id("note-editor-preview-content")
    expect(note).to_contain_text("path features alone")
    assert note.get_by_role("row").count() > 5
    assert "\\" not in note.inner_text()


def test_a_runs_figures_are_seen_and_sort_by_epoch(page: Page, address: str, store: Store) -> None:
    run = of(store, "pretrain")
    screenshots.go(page, f"{experiment(address, store)}/runs/{run.info.run_id}/artifacts")
    page.get_by_text("figures", exact=True).click()
    expect(page.get_by_text("reconstruction_epoch_011.png")).to_be_visible()
    listed = page.get_by_text(re.compile(r"^reconstruction_epoch_\d+\.png$")).all_inner_texts()
    assert [text.strip() for text in listed] == [f"reconstruction_epoch_{i:03d}.png" for i in range(12)]
    page.get_by_text("loss_curves.png", exact=True).click()
    picture = screenshots.preview(page)
    expect(picture).to_be_visible()
    expect(picture).to_have_js_property("complete", True)
    assert picture.evaluate("picture => picture.naturalWidth") > 600


def test_an_alias_is_moved_in_the_page_and_what_it_names_is_loaded_with_a_warning(
    page: Page, address: str, store: Store
) -> None:
    screenshots.go(page, f"{address}/#/models/moola-encoder")
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name="Version 2", exact=True))
    expect(row.get_by_role("status", name="candidate")).to_be_visible()
    expect(row.get_by_role("status", name="champion")).to_have_count(0)
    expect(row).to_contain_text("Skill ")  # the version's description
    row.get_by_role("button").last.click()  # the pencil beside the aliases
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("combobox").fill("champion")
    dialog.get_by_role("combobox").press("Enter")
    expect(dialog.get_by_role("status", name="champion")).to_be_visible()
    with page.expect_response(lambda answer: answer.url.endswith("registered-models/alias")) as answer:
        dialog.get_by_role("button", name="Save aliases").click()
    assert answer.value.ok
    page.reload()
    expect(row.get_by_role("status", name="champion")).to_be_visible()

    # From the store itself: it keeps artifacts in a folder, which no server may name.
    mlflow.set_tracking_uri(store.uri)
    with pytest.warns(UserWarning, match="'champion' of moola-encoder was moved by hand to version 2, which has"):
        found = load_encoder("models:/moola-encoder@champion")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        expected = load_encoder("models:/moola-encoder/2")
    assert found.card["run_id"] == expected.card["run_id"] == of(store, "pretrain", hostile=True).info.run_id
    told = store.run("doctor", {}).stdout
    assert "alias 'champion' of moola-encoder was moved by hand to version 2" in told


def test_the_page_of_a_model_says_what_it_is_and_how_it_is_loaded(page: Page, address: str, store: Store) -> None:
    screenshots.go(page, f"{address}/#/models/moola-detector")
    version = store.client.get_model_version("moola-detector", "1")
    assert version.description.startswith(f"F1 macro {version.tags['f1_macro']}, Joint@3 ")
    expect(page.get_by_text("moola_mlflow.load_detector(").first).to_be_visible()
    page.get_by_role("link", name="Version 1", exact=True).click()
    expect(page.get_by_role("heading", name="Version 1")).to_be_visible()
    expect(page.get_by_text("F1 macro ").first).to_be_visible()
    expect(page.get_by_role("link", name=of(store, "finetune").info.run_name)).to_be_visible()


def test_names_that_are_html_stay_text_in_the_note_of_a_failed_run(page: Page, address: str, store: Store) -> None:
    bars = generate_bars(2_000, 5).drop(columns="instrument_id")
    named = [bars.assign(symbol=name) for name in (SYMBOL, f"![x](http://127.0.0.1:9/x) {HOSTILE}")]
    two = pd.concat(named).sort_index(kind="stable")
    two.to_parquet(store.folder / "two.parquet")
    assert store.run("data", {"bars": "two.parquet"}).returncode == 2
    (run, *_) = store.refused()  # the page of a run in the bin shows its note too
    screenshots.go(page, f"{experiment(address, store)}/runs/{run.info.run_id}")
    note = page.get_by_test_id("note-editor-preview-content")
    expect(note).to_contain_text(HOSTILE)
    expect(note).to_contain_text(SYMBOL)
    expect(note.locator("img, script")).to_have_count(0)


def test_names_that_are_html_stay_text(page: Page, address: str, store: Store) -> None:
    run = of(store, "pretrain", hostile=True)
    assert HOSTILE in run.info.run_name
    assert HOSTILE in run.data.tags[NOTE]
    screenshots.go(page, f"{experiment(address, store)}/runs")
    expect(page.get_by_role("link", name=run.info.run_name)).to_be_visible()
    screenshots.go(page, f"{experiment(address, store)}/runs/{run.info.run_id}")
    expect(page.get_by_role("heading", name=run.info.run_name)).to_be_visible()
    note = page.get_by_test_id("note-editor-preview-content")
    page.get_by_role("button", name="Expand description").click()
    expect(note).to_contain_text(f"Preset {HOSTILE}, objective masked, bars {HOSTILE}.parquet")
    expect(note.locator("img, script")).to_have_count(0)
    made = store.client.search_model_versions("name = 'moola-encoder'")
    version = next(version.version for version in made if version.run_id == run.info.run_id)
    screenshots.go(page, f"{address}/#/models/moola-encoder/versions/{version}")
    expect(page.get_by_text(HOSTILE).first).to_be_visible()
