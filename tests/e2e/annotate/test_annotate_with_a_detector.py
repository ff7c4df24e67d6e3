"""The page with a detector behind it: suggestions are shown, hidden and taken; review accepts, corrects and rejects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import annotate_pictures
import pytest
from annotate_pages import Opened, chromium, faults_by_axe, in_file, in_journal, opened
from harness import Store
from playwright.sync_api import Browser, expect
from small_sessions import serving

pytestmark = pytest.mark.slow
NUM_LABELLED = 40
SETTINGS = {"annotate__first_random": "30", "annotate__refit_every": "20", "bars__sample_bars": "30000"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("with_a_detector"))


@pytest.fixture(scope="module")
def labels(store: Store) -> Path:
    """The file of both tests: the first one fills it, the second one reviews it."""
    return store.folder / "mine.parquet"


def events_of(window: dict[str, object]) -> int:
    suggested = window["suggestion"]
    return len(suggested) if isinstance(suggested, list) else 0


def test_a_suggestion_is_shown_hidden_taken_and_recorded_and_a_blind_window_has_none(
    browser: Browser, store: Store, labels: Path
) -> None:
    with serving(store, **SETTINGS) as served, opened(browser, served.client.link) as tab:
        annotate_pictures.label(served.client.link, NUM_LABELLED)
        seen = {"blind": False, "suggested": False}
        for _ in range(60):
            window = served.client.window()
            if all(seen.values()):
                break
            if window["blind"] and not seen["blind"]:
                seen["blind"] = True
                reload(tab)
                expect(tab.page.locator("#kind")).to_have_text("blind")
                expect(tab.page.locator(".ghost")).to_have_count(0)
                tab.press(["a"])
                expect(tab.page.locator("#status")).to_have_text("This window is blind: it has no suggestion.")
            elif events_of(window) and not seen["suggested"]:
                seen["suggested"] = True
                reload(tab)
                frames = tab.page.locator(".ghost")
                expect(frames).to_have_count(events_of(window))
                tab.press(["h"])
                expect(frames).to_have_count(0)
                tab.press(["h", "a"])
                assert tab.events()
                tab.decide(["Enter"])
                taken = in_journal(store.folder / "mine.decisions.jsonl")[-1]
                assert taken["suggested"]
                best = max(window["suggestion"], key=lambda event: event["score"])
                best.pop("score")
                assert best in taken["events"]
                continue
            served.client.decide(window)
        assert all(seen.values()), seen
        assert served.client.ask("/api/finish", {}).status == 200
        served.end()


def reload(tab: Opened) -> None:
    tab.page.reload()
    tab.settled()


def test_review_accepts_corrects_and_rejects_and_each_becomes_a_label(
    browser: Browser, store: Store, labels: Path
) -> None:
    before = in_file(labels)
    with (
        serving(store, annotate__review="true", **SETTINGS) as served,
        opened(browser, served.client.link) as tab,
    ):
        expected, done = dict(before), {"accept": 0, "correct": 0, "reject": 0}
        for _ in range(20):
            window = served.client.window()
            review, name = window["review"], window["window_id"]
            expect(tab.page.locator("#review-text")).to_have_text(review["text"])
            expect(tab.page.locator(".given")).to_have_count(len(review["given"]))
            expect(tab.page.locator("#overlay .ghost")).to_have_count(len(review["predicted"]))
            if review["kind"] in ("label", "miss") and review["given"] and done["correct"] < 2:
                done["correct"] += 1
                tab.press(["c"])
                assert tab.events()
                tab.press(["Shift+B"])
                tab.decide(["Enter"])
            elif review["kind"] == "miss":
                done["reject"] += 1
                tab.decide(["r"])
            else:
                done["accept"] += 1
                tab.decide(["a"])
            said = in_journal(store.folder / "mine.decisions.jsonl")[-1]
            assert (said["window_id"], said["source"]) == (name, "corrected")
            if review["kind"] == "miss" and not said["grade"]:
                assert said["events"] == []
            events = tuple((one["label"], one["start"], one["end"]) for one in said["events"])
            expected[name] = type(before[name])(events, said["grade"] or None, said["notes"] or None)
        assert done["accept"] > 0
        assert done["correct"] == 2
        assert served.client.ask("/api/finish", {}).status == 200
        served.end()
    assert in_file(labels) == expected


def test_axe_finds_nothing_on_a_page_of_review(browser: Browser, store: Store, labels: Path) -> None:
    with serving(store, annotate__review="true", **SETTINGS) as served, opened(browser, served.client.link) as tab:
        assert faults_by_axe(tab) == []
