"""A run's folder: which process holds it, and whether that process died."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

import pytest

from moola_mlflow.core import UserError
from moola_mlflow.tracking import run_folder
from moola_mlflow.tracking.delivery import JOURNAL_FILE, append_status, read_history


def test_a_folder_is_stale_if_no_process_holds_it_and_its_journal_has_no_end(tmp_path: Path) -> None:
    def journal(name: str, *lines: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / JOURNAL_FILE).write_text("".join(f"{line}\n" for line in lines))
        return folder

    begin, end = '{"kind": "begin"}', '{"kind": "status", "status": "FINISHED"}'
    journal("ended", begin, end)
    journal("again", begin, end, begin)
    journal("cut", begin, '{"kind": "metri')
    journal("long", begin, *['{"kind": "metrics", "metrics": {"a": 1}}'] * 2000, end)
    held = run_folder.hold_run_folder(journal("held", begin))
    assert run_folder.stale_folders(tmp_path) == ["again", "cut"]
    held.close()
    assert run_folder.stale_folders(tmp_path) == ["again", "cut", "held"]
    append_status(tmp_path / "cut", "KILLED", run_folder.DIED)
    assert run_folder.stale_folders(tmp_path) == ["again", "held"]
    assert read_history(tmp_path / "cut").status == "KILLED"


@pytest.mark.parametrize("break_it", ["journal is a folder", "lock is a folder", "link", "pipe"])
def test_a_folder_that_cannot_be_read_is_left_out_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], break_it: str
) -> None:
    sound, broken = tmp_path / "a", tmp_path / "b"
    for folder in (sound, broken):
        folder.mkdir()
        (folder / JOURNAL_FILE).write_text('{"kind": "begin"}\n')
    if break_it == "journal is a folder":
        (broken / JOURNAL_FILE).unlink()
        (broken / JOURNAL_FILE).mkdir()
    elif break_it == "lock is a folder":
        (broken / run_folder.LOCK).mkdir()
    elif break_it == "link":
        (broken / run_folder.HEARTBEAT).symlink_to(sound / JOURNAL_FILE)
    else:
        (broken / JOURNAL_FILE).unlink()
        os.mkfifo(broken / JOURNAL_FILE)
    assert run_folder.stale_folders(tmp_path) == ["a"]
    assert list(run_folder.unreadable_folders(tmp_path)) == [broken]
    assert list(run_folder.run_folders(tmp_path)) == [sound]
    assert capsys.readouterr().err.count(f"Warning: the run folder {broken} is left out") == 1


def beat_of(folder: Path, host: str, age_s: float) -> None:
    beat = {"pid": 7, "host": host, "beat_at": time.time() - age_s}
    (folder / run_folder.HEARTBEAT).write_text(json.dumps(beat))


def test_a_heartbeat_says_which_process_lives(tmp_path: Path) -> None:
    assert run_folder.read_beat(tmp_path) == {}
    run_folder.write_beat(tmp_path, 12.5)
    beat = run_folder.read_beat(tmp_path)
    assert (beat["pid"], beat["host"], beat["started_at"]) == (os.getpid(), socket.gethostname(), 12.5)
    assert abs(time.time() - beat["beat_at"]) < 60


@pytest.mark.parametrize(
    ("host", "age_s", "ended", "free"),
    [
        ("elsewhere", 60, False, False),
        ("elsewhere", 60, True, True),
        ("elsewhere", 2 * run_folder.FRESH_S, False, True),
        ("elsewhere", -2 * run_folder.FRESH_S, False, True),
        (socket.gethostname(), 60, False, True),
    ],
    ids=["fresh", "fresh but ended", "old", "from the future", "of this machine"],
)
def test_a_fresh_heartbeat_of_another_machine_keeps_a_run_that_has_not_ended(
    tmp_path: Path, host: str, age_s: float, ended: bool, free: bool
) -> None:
    lines = [{"kind": "begin"}, *([{"kind": "status", "status": "FINISHED"}] if ended else [])]
    (tmp_path / JOURNAL_FILE).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    beat_of(tmp_path, host, age_s)
    if free:
        run_folder.check_run_folder_free(tmp_path)
    else:
        with pytest.raises(UserError, match=r"by process 7 on elsewhere; wait .*its last heartbeat is 6\d s old"):
            run_folder.check_run_folder_free(tmp_path)
    assert run_folder.is_stale(tmp_path) == (free and not ended)


def test_a_folder_without_a_journal_is_not_stale(tmp_path: Path) -> None:
    beat_of(tmp_path, "elsewhere", 60)
    assert not run_folder.is_stale(tmp_path)


def test_the_lock_of_a_folder_ends_with_the_file_that_holds_it(tmp_path: Path) -> None:
    run_folder.check_run_folder_free(tmp_path)  # nobody has ever held it
    lock = run_folder.hold_run_folder(tmp_path)
    with pytest.raises(UserError, match="is being trained by"):
        run_folder.check_run_folder_free(tmp_path)
    lock.close()
    run_folder.check_run_folder_free(tmp_path)
