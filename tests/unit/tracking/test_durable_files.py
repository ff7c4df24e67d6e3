"""What must survive a power cut is waited for: each file's content, and then its name in its folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from small_labels import small_labels

from moola_mlflow.bars import read_bars, write_parquet
from moola_mlflow.core import BarsConfig, replacing
from moola_mlflow.labels import write_labels
from moola_mlflow.models.files.checkpoint import Checkpointer
from moola_mlflow.models.files.manifest import MANIFEST_FILE, STATES
from moola_mlflow.tracking.delivery import JOURNAL_FILE, SENT_FILE, Sent
from moola_mlflow.tracking.delivery.journal import Journal
from moola_mlflow.tracking.run import Run

Calls = list[tuple[str, str]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Every fsync with its file, and every replacement with its target, in order."""
    noted: Calls = []
    fsync, replace = os.fsync, os.replace

    def hear_fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        noted.append(("fsync", _plain(path)))
        fsync(descriptor)

    def hear_replace(source: Path, target: Path) -> None:
        noted.append(("replace", Path(target).name))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", hear_fsync)
    monkeypatch.setattr(os, "replace", hear_replace)
    return noted


def _plain(path: Path) -> str:
    """Return the name of the file that a temporary file becomes."""
    return path.name[1:].rsplit(".", 2)[0] if path.suffix == ".tmp" else path.name


def written(name: str, folder: Path) -> Calls:
    """What makes a replaced file survive: its content, its new name, the names in its folder."""
    return [("fsync", name), ("replace", name), ("fsync", folder.name)]


def test_a_replaced_file_is_on_disk_before_and_after_it_gets_its_name(tmp_path: Path, calls: Calls) -> None:
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert calls == written("a.txt", tmp_path)


def test_the_note_of_what_the_store_has_survives_a_power_cut(tmp_path: Path, calls: Calls) -> None:
    Sent(0, "a", "b").write(tmp_path)
    assert calls == written(SENT_FILE, tmp_path)


def test_labels_survive_a_power_cut(tmp_path: Path, calls: Calls) -> None:
    write_labels(small_labels(4), tmp_path / "labels.parquet")
    assert calls == written("labels.parquet", tmp_path)
    calls.clear()
    write_labels(small_labels(4), tmp_path / "labels.parquet")
    assert calls == [*written("labels.parquet.bak", tmp_path), *written("labels.parquet", tmp_path)]


def test_bars_survive_a_power_cut(tmp_path: Path, calls: Calls) -> None:
    with replacing(tmp_path / "bars.parquet") as temporary:
        write_parquet(read_bars(BarsConfig(sample_bars=2000)), temporary)
    assert calls == written("bars.parquet", tmp_path)


def test_a_checkpoint_is_on_disk_before_the_manifest_that_names_it(tmp_path: Path, calls: Calls) -> None:
    state = {"epoch": 0, "model_state_dict": {"w": torch.ones(3)}, "metrics": {"val_huber": 1.0}}
    Checkpointer(tmp_path).save_epoch(state, 1.0)
    (saved,) = (tmp_path / STATES).iterdir()
    first = [*written(saved.name, tmp_path / STATES), *written(MANIFEST_FILE, tmp_path)]
    assert calls[: len(first)] == first
    assert calls[-1] == ("fsync", tmp_path.name)  # the links


def test_a_journal_is_on_disk_at_each_heartbeat_and_at_the_end_of_its_run(workdir: Path, calls: Calls) -> None:
    Journal(workdir).close()
    assert calls == [("fsync", workdir.name)]  # its name
    with Run.start("label", "durable") as active:
        calls.clear()
        active.metrics({"a": 1.0}, 0)
        assert ("fsync", JOURNAL_FILE) not in calls
        active.beat()
        assert calls[-1] == ("fsync", JOURNAL_FILE)
        calls.clear()
    assert calls.index(("fsync", JOURNAL_FILE)) < calls.index(("replace", SENT_FILE))
