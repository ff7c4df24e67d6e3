"""The page's help, its documents and its keys are one table; the commands of the documents label windows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import annotate_pictures
import pytest
from documented import ANNOTATE, clone, commands, environment, newest, reduced, run
from paths import ROOT
from small_sessions import Client
from warm_process import start_python

HOW_TO = ROOT / "docs" / "how-to" / "annotate.md"
KEYS = ROOT / "moola_mlflow" / "annotate" / "page" / "keys.js"
ROW = re.compile(r'^  \["(?:Mark|Decide|Show|Review)", "[\w ]+", "([^"]+)", "([^"]+)"\],$', re.MULTILINE)


def rows_of_help() -> list[str]:
    """The rows of the page's help, as the document writes them."""
    found = []
    for shown, text in ROW.findall(KEYS.read_text(encoding="utf-8")):
        keys = " ".join(part if part == "to" else f"`{part}`" for part in shown.split(" "))
        found.append(f"| {keys} | {text} |")
    return found


def test_the_document_lists_the_keys_of_the_help_in_its_order() -> None:
    told = [line for line in HOW_TO.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert len(rows_of_help()) > 20
    assert [row for row in told if row in rows_of_help()] == rows_of_help()


def test_every_key_of_the_table_is_bound() -> None:
    source = KEYS.read_text(encoding="utf-8")
    bound = source.partition("const NAMED")[2]
    for shown, _ in ROW.findall(source):
        for key in shown.split(" "):
            words = {
                "←": "ArrowLeft",
                "→": "ArrowRight",
                "↑": "ArrowUp",
                "↓": "ArrowDown",
                "Esc": "Escape",
                "Space": '" "',
            }
            if key not in ("to", "1", "9", "Shift", "A", "D"):
                assert words.get(key, key) in bound, key


@contextmanager
def session(line: str, folder: Path) -> Iterator[Client]:
    """Run a document's command that serves the page, on a free port, until the client has asked it to finish."""
    process = start_python([*reduced(line)[1:], "--port", "0"], folder, environment())
    try:
        assert process.stdout is not None
        said = []
        for text in process.stdout:
            said.append(text)
            if link := re.search(r"http://\S+/\?token=\S+", text):
                break
        else:
            raise AssertionError(f"{line} ended: {''.join(said)}")
        client = Client(link[0])
        yield client
        assert client.ask("/api/finish", {}).status == 200
        process.communicate(timeout=120)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("document", ANNOTATE)
def test_the_commands_of_the_pages_label_windows_and_learn_from_them(document: str, tmp_path: Path) -> None:
    folder = clone(tmp_path, document)
    for line, code in commands(document):
        if " annotate " not in line:
            done = run(reduced(line, code), folder)
            assert done.returncode == code, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
            continue
        with session(line, folder) as client:
            if "review" in line:
                assert client.window()["review"] is not None
                continue
            classes = set(client.ask("/api/session").body["classes"])
            for _ in range(40):
                window = client.window()
                if window.get("done"):
                    break
                events = [event for event in annotate_pictures.by_rule(window) if event["label"] in classes]
                said = {"ticket": window["ticket"], "action": "label", "events": events}
                assert client.ask("/api/decision", said).status == 200
            reached = client.ask("/api/progress").body
            assert reached["looked_at"] >= 40
            assert reached["kept"] > 5 or "flag" in classes
    assert {run.info.status for run in newest(folder)} == {"FINISHED"}
