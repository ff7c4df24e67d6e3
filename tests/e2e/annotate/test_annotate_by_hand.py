"""The page of `annotate` under the hands of a person: keys, mouse, undo, the end; the file holds what was typed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from annotate_pages import Opened, Said, chromium, in_file, in_journal, made_up, opened, typed
from harness import Store
from playwright.sync_api import Browser, Route, expect
from small_sessions import Served, serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("by_hand"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def served(store: Store, tmp_path: Path) -> Iterator[Served]:
    """A session with a labels file of its own."""
    with serving(store, labels=str(tmp_path / "mine.parquet")) as served:
        yield served


@pytest.fixture
def tab(browser: Browser, served: Served) -> Iterator[Opened]:
    with opened(browser, served.client.link) as tab:
        yield tab


def end(tab: Opened, served: Served) -> None:
    """Finish in the page, and wait for the command's end."""
    tab.press(["q"])
    tab.page.locator("#finish").get_by_role("button", name="Finish").click()
    expect(tab.page.locator("#ended")).to_contain_text("finetune")
    served.end()
    assert served.process.returncode == 0


def test_forty_windows_by_keys_and_ten_by_mouse_are_in_the_file_as_they_were_said(
    tab: Opened, served: Served, tmp_path: Path
) -> None:
    expected: dict[str, Said] = {}
    for said in made_up(40, 1):
        window = served.client.window()["window_id"]
        tab.decide(typed(said))
        if not said.skipped:
            expected[window] = said
    for i, said in enumerate(made_up(10, 2)):
        window = served.client.window()["window_id"]
        for label, first, last in said.events:
            if i % 2:
                tab.click(first)
                tab.click(last)
            else:
                tab.drag(last, first)
            tab.page.locator("#classes").get_by_role("button", name=label).click()
        if said.grade:
            tab.page.get_by_role("button", name=f"Grade {said.grade}").click()
        if said.notes:
            tab.page.get_by_label("Note").fill(said.notes)
        number = tab.number
        way = "Skip" if said.skipped else "Save" if said.events else "Nothing here"
        tab.page.get_by_role("group", name="Decide").get_by_role("button", name=way).click()
        tab.settled(number + 1)
        if not said.skipped:
            expected[window] = said
    expect(tab.page.locator("#figures")).to_contain_text("Looked at")
    end(tab, served)
    assert in_file(tmp_path / "mine.parquet") == expected


def test_marks_are_moved_classed_removed_and_undone_by_keys(tab: Opened) -> None:
    tab.press(["ArrowRight", "Space", "ArrowRight", "ArrowRight", "Space"])
    assert len(tab.events()) == 1
    first = tab.events()[0]
    tab.press(["ArrowRight"])
    assert tab.events()[0] != first
    tab.press(["ArrowLeft"])
    assert tab.events()[0] == first
    tab.press(["e", "ArrowRight", "ArrowRight", "ArrowRight"])  # the first bar stays before the last one
    assert tab.events()[0].split("–")[1] == first.split("–")[1]
    tab.press(["u", "2"])
    assert tab.events()[0] == first.replace("consolidation", "retracement")
    tab.press(["Delete"])
    assert tab.events() == []
    tab.press(["u", "u"])
    assert tab.events()[0] == first
    tab.press(["Escape", "Home", "Space", "ArrowRight", "Space"])
    assert len(tab.events()) == 2
    tab.press(["ArrowDown", "ArrowDown", "Backspace"])
    assert len(tab.events()) == 1


def test_events_that_share_a_bar_or_have_one_bar_are_refused_in_words(tab: Opened) -> None:
    status = tab.page.locator("#status")
    tab.press(["Space", "Space"])
    expect(status).to_have_text("An event has at least two bars.")
    tab.press(["Escape", "Space", "Shift+ArrowRight", "Space"])
    tab.press(["Escape", "ArrowLeft", "ArrowLeft", "Space", "Shift+ArrowLeft", "Space"])
    expect(status).to_have_text("Two events of one window cannot share a bar.")
    assert len(tab.events()) == 1


def test_an_edge_is_dragged_and_an_event_is_selected_by_a_click(tab: Opened) -> None:
    tab.drag(20, 30)
    before = tab.events()[0]
    mouse = tab.page.mouse
    mouse.move((tab.x(30) + tab.x(31)) / 2, tab.y())
    mouse.down()
    mouse.move(tab.x(33), tab.y())
    mouse.move(tab.x(35), tab.y())
    mouse.up()
    assert len(tab.events()) == 1
    assert tab.events()[0] != before
    tab.press(["Escape"])
    expect(tab.page.locator("#events .choose")).to_have_attribute("aria-pressed", "false")
    tab.click(25)
    expect(tab.page.locator("#events .choose")).to_have_attribute("aria-pressed", "true")
    tab.press(["u", "u"])
    assert tab.events() == []


def test_an_undone_decision_is_shown_as_it_was_and_decided_anew(tab: Opened, served: Served, tmp_path: Path) -> None:
    said = Said((("retracement", 10, 19), ("consolidation", 70, 75)), "B", "two legs")
    window = served.client.window()["window_id"]
    tab.decide(typed(said))
    tab.press(["u"])
    tab.settled(1)
    expect(tab.page.locator("#kind")).to_have_text("decided before")
    assert [text.split(" ")[0] for text in tab.events()] == ["retracement", "consolidation"]
    expect(tab.page.get_by_label("Note")).to_have_value("two legs")
    expect(tab.page.get_by_role("button", name="Grade B")).to_have_attribute("aria-pressed", "true")
    tab.press(["ArrowUp", "Delete"])
    tab.decide(["Enter"])
    end(tab, served)
    assert in_file(tmp_path / "mine.parquet") == {window: Said(said.events[:1], "B", "two legs")}


def test_bars_around_the_window_are_shown_on_request_and_recorded(tab: Opened, tmp_path: Path) -> None:
    expect(tab.page.locator(".outside")).to_have_count(0)
    tab.press([",", "."])
    expect(tab.page.locator(".outside")).not_to_have_count(0)
    tab.decide(["n"])
    expect(tab.page.locator(".outside")).to_have_count(0)
    tab.decide(["n"])
    assert [one["context_shown"] for one in in_journal(tmp_path / "mine.decisions.jsonl")] == [True, False]


def test_the_help_lists_the_keys_and_a_note_takes_letters_as_text(tab: Opened) -> None:
    tab.press(["?"])
    expect(tab.page.locator("#help")).to_be_visible()
    expect(tab.page.locator("#help")).to_contain_text("nothing here, next window")
    tab.press(["n"])  # decides nothing while the help is open
    tab.page.evaluate("document.activeElement.blur()")
    tab.press(["n"])  # nor where the focus has left the help
    tab.press(["Escape"])
    expect(tab.page.locator("#help")).to_be_hidden()
    tab.settled(1)
    tab.press(["t"])
    expect(tab.page.get_by_label("Note")).to_be_focused()
    tab.press([*"ns", "Escape"])
    expect(tab.page.get_by_label("Note")).to_have_value("ns")
    assert tab.number == 1


def test_a_look_for_other_tabs_holds_up_no_key(tab: Opened) -> None:
    asked: list[Route] = []
    tab.page.route("**/api/window", lambda route: asked.append(route))  # not answered yet
    tab.page.evaluate("dispatchEvent(new Event('focus'))")
    tab.press(["t", *"ns", "Escape"])
    expect(tab.page.get_by_label("Note")).to_have_value("ns")
    assert tab.number == 1
    assert len(asked) == 1
    tab.decide(["n"])
    asked[0].continue_()
    tab.settled(2)
