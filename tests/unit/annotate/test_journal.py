"""The journal keeps every line that was answered, whatever happens to the last one."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moola_mlflow.annotate.journal import DecisionJournal, journal_path, read_journal
from moola_mlflow.core import UserError


def written(folder: Path, num: int = 3) -> Path:
    labels = folder / "mine.parquet"
    with DecisionJournal(labels) as journal:
        for i in range(num):
            journal.append("decision", {"i": i, "notes": "a \u2028 line – and more\n"})
    return labels


def test_lines_are_read_back_in_order(tmp_path: Path) -> None:
    with DecisionJournal(written(tmp_path)) as journal:
        assert [line["i"] for line in journal.lines] == [0, 1, 2]
        assert journal.lines[0]["notes"] == "a \u2028 line – and more\n"
        assert journal.path.name == "mine.decisions.jsonl"


@given(cut=st.integers(1, 60))
def test_a_torn_last_line_is_left_out_and_the_next_one_is_whole(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    labels = written(tmp_path_factory.mktemp("torn"))
    path = journal_path(labels)
    path.write_bytes(path.read_bytes()[:-cut])
    with DecisionJournal(labels) as journal:
        assert [line["i"] for line in journal.lines] == [0, 1]
        journal.append("decision", {"i": 9})
    with DecisionJournal(labels) as journal:
        assert [line["i"] for line in journal.lines] == [0, 1, 9]


def test_a_changed_line_before_the_last_is_refused_with_its_number(tmp_path: Path) -> None:
    labels = written(tmp_path)
    path = journal_path(labels)
    path.write_text(path.read_text().replace('"i":1', '"i":7'))
    with pytest.raises(UserError, match="line 2 is damaged"):
        DecisionJournal(labels)
    assert [line["i"] for line in read_journal(path)] == [0, 2]


def test_a_damaged_last_line_that_was_written_whole_is_refused_and_stays_in_the_file(tmp_path: Path) -> None:
    labels = written(tmp_path)
    path = journal_path(labels)
    path.write_text(path.read_text().replace('"i":2', '"i":7'))
    before = path.read_bytes()
    with pytest.raises(UserError, match="line 3 is damaged"):
        DecisionJournal(labels)
    assert path.read_bytes() == before


def test_a_second_journal_of_the_same_file_is_refused_until_the_first_is_closed(tmp_path: Path) -> None:
    labels = written(tmp_path)
    with DecisionJournal(labels), pytest.raises(UserError, match="another moola annotate adds to this file"):
        DecisionJournal(labels)
    DecisionJournal(labels).close()


def _append_and_die(labels: Path) -> None:
    import os
    import signal

    journal = DecisionJournal(labels)
    journal.append("decision", {"i": 5})
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_line_that_was_answered_survives_a_kill_and_the_lock_does_not(tmp_path: Path) -> None:
    labels = written(tmp_path)
    process = multiprocessing.get_context("fork").Process(target=_append_and_die, args=(labels,))
    process.start()
    process.join()
    with DecisionJournal(labels) as journal:
        assert [line["i"] for line in journal.lines] == [0, 1, 2, 5]


@contextmanager
def at_most(num_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    labels = written(tmp_path)
    before = journal_path(labels).read_bytes()
    with DecisionJournal(labels) as journal:
        with at_most(len(before) + 10), pytest.raises(OSError, match="too large"):
            journal.append("decision", {"i": 6})
        assert journal_path(labels).read_bytes() == before
        journal.append("decision", {"i": 7})
        with pytest.raises(UserError, match="another moola annotate"):
            DecisionJournal(labels)
    assert [line["i"] for line in read_journal(journal_path(labels))] == [0, 1, 2, 7]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("mine")
    journal_path(tmp_path / "mine.parquet").symlink_to(tmp_path / "other")
    with pytest.raises(UserError, match="cannot be written"):
        DecisionJournal(tmp_path / "mine.parquet")
    assert (tmp_path / "other").read_text() == "mine"
