"""A run's folder: which process holds it, and whether that process died."""

from __future__ import annotations

from pathlib import Path

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
