"""How a run ends where its store, or the disk, fails at the very end."""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

import pytest
from harness import Store

from moola_mlflow.tracking.run import Run


def test_a_run_whose_journal_cannot_be_written_at_its_end_is_failed_not_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def fail_with_a_full_disk() -> None:
        with Run.start("pretrain", "one") as active:
            monkeypatch.setattr(active.delivery, "write", full)
            raise RuntimeError("boom")

    with contextlib.chdir(tmp_path):
        with pytest.raises(RuntimeError, match="boom"):
            fail_with_a_full_disk()
        (run,) = store.runs()
        assert run.info.status == "FAILED"
        assert "boom" in run.data.tags["mlflow.note.content"]
        with Run.start("pretrain", "two"):
            pass  # the first one let go of everything
    assert [run.info.status for run in store.runs()] == ["FINISHED", "FAILED"]
