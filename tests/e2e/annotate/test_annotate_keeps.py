"""No decision is lost and none is made twice: reload, a second tab, the back button, a kill and a restart."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from annotate_pages import Said, chromium, faults_by_axe, in_file, in_journal, opened, typed, watched
from harness import Store, free_port
from playwright.sync_api import Browser, expect
from small_sessions import serving

pytestmark = pytest.mark.slow
ONE = Said((("retracement", 40, 47),))
LAST = ["Space", "Shift+ArrowRight", "2"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("keeps"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def test_a_reload_keeps_the_window_its_marks_and_its_note(browser: Browser, store: Store, tmp_path: Path) -> None:
    with (
        serving(store, labels=str(tmp_path / "mine.parquet")) as served,
        opened(browser, served.client.link) as tab,
    ):
        tab.decide(typed(ONE))
        tab.press([*LAST, "t", "x", "Enter", "Shift+C"])
        marked = tab.events()
        tab.page.reload()
        tab.settled(2)
        assert tab.events() == marked
        expect(tab.page.get_by_label("Note")).to_have_value("x")
        tab.decide(["Enter"])
        tab.page.goto("about:blank")
        tab.page.go_back()
        tab.settled(3)
        assert tab.events() == []
        said = in_journal(tmp_path / "mine.decisions.jsonl")
        assert [(one["grade"], one["notes"], len(one["events"])) for one in said] == [("", "", 1), ("C", "x", 1)]


def test_a_window_that_another_tab_has_decided_is_not_decided_twice(
    browser: Browser, store: Store, tmp_path: Path
) -> None:
    with (
        serving(store, labels=str(tmp_path / "mine.parquet")) as served,
        opened(browser, served.client.link) as tab,
    ):
        other = watched(tab.page.context.new_page())
        other.go(served.client.base)
        other.decide(typed(ONE))
        tab.press(["n"])  # about window 1, which this tab still shows
        tab.settled(2)
        expect(tab.page.locator("#status")).to_contain_text("decided already")
        said = in_journal(tmp_path / "mine.decisions.jsonl")
        assert [len(one["events"]) for one in said] == [1]
        other.wrong.clear()
        tab.decide(["n"])
        tab.wrong = [text for text in tab.wrong if "409" not in text]


def test_a_killed_session_goes_on_in_the_same_tab_where_it_was(browser: Browser, store: Store, tmp_path: Path) -> None:
    labels, port, expected = tmp_path / "mine.parquet", str(free_port()), {}
    with serving(store, labels=str(labels), port=port) as served, opened(browser, served.client.link) as tab:
        for _ in range(3):
            window = served.client.window()["window_id"]
            tab.decide(typed(ONE))
            expected[window] = ONE
        window = served.client.window()["window_id"]
        tab.press(LAST)
        marked = tab.events()
        served.process.send_signal(signal.SIGKILL)
        served.process.wait()
        tab.press(["Enter"])
        expect(tab.page.locator("#trouble")).to_contain_text("The server does not answer")
        assert tab.events() == marked
        with serving(store, labels=str(labels), port=port) as again:
            assert again.client.window()["window_id"] == window
            tab.press(["Enter"])
            expect(tab.page.locator("#trouble")).to_contain_text("Open the link that annotate printed last")
            tab.go(again.client.link)
            tab.settled(4)
            assert tab.events() == marked
            tab.decide(["Enter"])
            tab.press(["q"])
            tab.page.locator("#finish").get_by_role("button", name="Finish").click()
            expect(tab.page.locator("#ended")).to_be_visible()
            again.end()
        tab.wrong = [text for text in tab.wrong if "ERR_CONNECTION_REFUSED" not in text and "401" not in text]
    expected[window] = Said((("retracement", 52, 57),))
    assert in_file(labels) == expected


def test_the_last_window_is_followed_by_words_and_undo_goes_back_to_it(
    browser: Browser, store: Store, tmp_path: Path
) -> None:
    labels, names = tmp_path / "mine.parquet", tmp_path / "names.txt"
    with serving(store, labels=str(labels)) as served:
        names.write_text(served.client.window()["window_id"])
    listed = {"annotate__order": "list", "annotate__list": str(names)}
    with serving(store, labels=str(labels), **listed) as served, opened(browser, served.client.link) as tab:
        tab.press(["n"])
        expect(tab.page.locator("#done")).to_contain_text("No window is left")
        tab.press(["n", "s", "Space"])  # nothing to decide
        assert faults_by_axe(tab) == []
        tab.press(["u"])
        tab.settled(1)
        tab.press([*LAST, "Enter"])
        expect(tab.page.locator("#done")).to_be_visible()
        tab.page.reload()
        expect(tab.page.locator("#done")).to_be_visible()
        said = in_journal(tmp_path / "mine.decisions.jsonl")
        assert [len(one["events"]) for one in said] == [0, 1]


def test_the_stopwatch_leaves_out_the_time_for_which_the_tab_was_hidden(
    browser: Browser, store: Store, tmp_path: Path
) -> None:
    with serving(store, labels=str(tmp_path / "mine.parquet")) as served, opened(browser, served.client.link) as tab:
        seconds = tab.page.evaluate("""async () => {
            const { Stopwatch } = await import("/page/stopwatch.js");
            let now = 0;
            performance.now = () => now;
            const watch = new Stopwatch();
            watch.start();
            now = 2000; watch.pause(true);
            now = 60000; watch.pause(false);
            now = 61500;
            return watch.seconds();
        }""")
        assert seconds == 3.5
