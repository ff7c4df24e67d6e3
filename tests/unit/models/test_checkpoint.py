"""Checkpoints: what is damaged is noticed, and there is always one to fall back on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_disks import small_disk

from moola_mlflow.core.errors import TrainingError, UserError
from moola_mlflow.models.files import checkpoint
from moola_mlflow.models.files.checkpoint import BEST_CHECKPOINT, LATEST_CHECKPOINT, PREVIOUS, TOP, Checkpointer
from moola_mlflow.models.files.manifest import MANIFEST_FILE, STATES


def state(epoch: int, huber: float = 1.0) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "model_state_dict": {"w": torch.full((50, 7), float(epoch)), "b": torch.tensor(0.5)},
        "metrics": {"val_huber": huber},
        "progress": {"history": [{"val/huber": huber}], "step": 0, "best_huber": float("inf")},
    }


@pytest.fixture
def folder(tmp_path: Path) -> Checkpointer:
    keeper = Checkpointer(tmp_path)
    for epoch, huber in enumerate((0.5, 0.3, 0.4, 0.6, 0.2)):
        keeper.save_epoch(state(epoch, huber), huber)
    return keeper


def gone_on(folder: Path) -> tuple[Checkpointer, dict[str, Any], list[str]]:
    """Go on from the newest checkpoint that can be read; return its state and the warnings too."""
    checkpointer = Checkpointer(folder)
    latest = checkpointer.load_latest()
    checkpointer.go_on(latest)
    return checkpointer, latest.state, latest.warnings


def flip(path: Path, position: float = 0.5) -> None:
    """Flip one bit of a tensor, under all names of the file."""
    data = bytearray(path.read_bytes())
    data[int(len(data) * position)] ^= 1
    path.write_bytes(data)


def test_what_is_loaded_is_what_was_saved_without_the_hash(tmp_path: Path) -> None:
    checkpoint.save_checkpoint(state(3), tmp_path / "x.pt")
    loaded = checkpoint.load_checkpoint(tmp_path / "x.pt")
    assert loaded.keys() == state(3).keys()
    assert torch.equal(loaded["model_state_dict"]["w"], state(3)["model_state_dict"]["w"])
    assert checkpoint.HASH in torch.load(tmp_path / "x.pt", weights_only=True)


def test_a_flipped_bit_of_a_weight_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    whole = {**state(3), "model_state_dict": {"w": torch.randn(200, 200)}}
    checkpoint.save_checkpoint(whole, path)
    plain = torch.load(path, weights_only=True)["model_state_dict"]["w"]
    flip(path)
    # torch itself says nothing, so the hash must.
    assert not torch.equal(torch.load(path, weights_only=True)["model_state_dict"]["w"], plain)
    with pytest.raises(UserError, match="damaged"):
        checkpoint.load_checkpoint(path)


def test_of_two_epochs_with_the_same_score_the_earlier_one_leads(tmp_path: Path) -> None:
    keeper = Checkpointer(tmp_path)
    for epoch, huber in enumerate((0.3, 0.2, 0.2, 0.3)):
        keeper.save_epoch(state(epoch, huber), huber)
    ranked = [checkpoint.load_checkpoint(tmp_path / TOP.format(place))["epoch"] for place in (1, 2, 3)]
    assert ranked == [1, 2, 0]
    assert checkpoint.load_checkpoint(tmp_path / BEST_CHECKPOINT)["epoch"] == 1


def test_the_hash_knows_the_type_and_the_shape_of_a_tensor() -> None:
    numbers = torch.arange(4, dtype=torch.float32)
    same_bytes = [numbers, numbers.reshape(2, 2), numbers.view(torch.int32)]
    assert len({checkpoint.digest({"w": tensor}) for tensor in same_bytes}) == 3


@pytest.mark.parametrize("size", [0, 10, 1000, -1])
def test_a_truncated_checkpoint_is_refused_and_the_one_before_is_taken(folder: Checkpointer, size: int) -> None:
    path = folder.folder / LATEST_CHECKPOINT
    path.write_bytes(path.read_bytes()[:size])  # under all its names: it is also the best
    with pytest.raises(UserError, match="not a readable checkpoint"):
        checkpoint.load_checkpoint(path)
    again, loaded, warnings = gone_on(folder.folder)
    assert loaded["epoch"] == 3
    assert torch.equal(loaded["model_state_dict"]["w"], state(3)["model_state_dict"]["w"])
    assert ["Falling back to the one before" in text for text in warnings] == [True]
    assert again.ranking == [0.3, 0.4, 0.6]
    assert checkpoint.load_checkpoint(folder.folder / BEST_CHECKPOINT)["epoch"] == 1


def test_loading_leaves_the_folder_as_it_is_and_going_on_reads_no_whole_latest_again(
    folder: Checkpointer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def files() -> dict[str, bytes]:
        return {str(path.relative_to(folder.folder)): path.read_bytes() for path in folder.folder.rglob("*.*")}

    before, latest = files(), folder.load_latest()
    assert (latest.is_latest, latest.state["epoch"]) == (True, 4)
    monkeypatch.setattr(checkpoint, "load_checkpoint", lambda path: pytest.fail(f"{path} was read again"))
    folder.go_on(latest)
    assert files() == before
    monkeypatch.undo()
    flip(folder.folder / LATEST_CHECKPOINT)
    before, latest = files(), folder.load_latest()
    assert (latest.is_latest, latest.state["epoch"]) == (False, 3)
    assert files() == before
    folder.go_on(latest)
    assert files() != before


def test_every_checkpoint_says_what_it_is_about(tmp_path: Path) -> None:
    checkpointer = Checkpointer(tmp_path, {"run_id": "r", "seed": 17})
    checkpointer.save_epoch(state(0), 1.0)
    for name in (LATEST_CHECKPOINT, BEST_CHECKPOINT):
        saved = checkpoint.load_checkpoint(tmp_path / name)
        assert (saved["run_id"], saved["seed"], saved["epoch"]) == ("r", 17, 0)


def test_the_latest_is_taken_and_ranks_go_on_from_it(folder: Checkpointer) -> None:
    again, loaded, warnings = gone_on(folder.folder)
    assert (loaded["epoch"], warnings) == (4, [])
    assert again.ranking == folder.ranking == [0.2, 0.3, 0.4]


def test_a_damaged_latest_falls_back_to_the_one_before_and_says_so(folder: Checkpointer) -> None:
    (folder.folder / LATEST_CHECKPOINT).write_bytes(b"cut short")
    again, loaded, warnings = gone_on(folder.folder)
    assert loaded["epoch"] == 3
    assert len(warnings) == 1
    assert LATEST_CHECKPOINT in warnings[0]
    # Epoch 4 was the best; it will be trained again, so it must not stand in the ranks twice.
    assert again.ranking == [0.3, 0.4, 0.6]
    assert checkpoint.load_checkpoint(folder.folder / BEST_CHECKPOINT)["epoch"] == 1
    assert checkpoint.load_checkpoint(folder.folder / TOP.format(3))["epoch"] == 3
    again.save_epoch(state(4, 0.2), 0.2)
    assert checkpoint.load_checkpoint(folder.folder / BEST_CHECKPOINT)["epoch"] == 4
    assert [checkpoint.load_checkpoint(folder.folder / TOP.format(i))["epoch"] for i in (1, 2, 3)] == [4, 1, 2]


def test_with_both_newest_damaged_the_best_that_is_left_is_taken(folder: Checkpointer) -> None:
    for name in (LATEST_CHECKPOINT, PREVIOUS):  # the latest is also the first of the top three
        flip(folder.folder / name, 0.1)
    _, loaded, warnings = gone_on(folder.folder)
    assert loaded["epoch"] == 1
    assert len(warnings) == 3


def test_a_lost_link_or_manifest_is_made_again_from_what_is_left(folder: Checkpointer) -> None:
    expected = {
        name: (folder.folder / name).read_bytes() for name in (LATEST_CHECKPOINT, BEST_CHECKPOINT, TOP.format(3))
    }
    for lost in (LATEST_CHECKPOINT, BEST_CHECKPOINT, TOP.format(3), MANIFEST_FILE):
        (folder.folder / lost).unlink()
        again, loaded, warnings = gone_on(folder.folder)
        assert (loaded["epoch"], warnings, again.ranking) == (4, [], [0.2, 0.3, 0.4])
        assert {name: (folder.folder / name).read_bytes() for name in expected} == expected
        assert (folder.folder / MANIFEST_FILE).is_file()


def test_a_folder_of_version_0_2_goes_on_whatever_a_kill_has_left_of_its_links(folder: Checkpointer) -> None:
    """Its latest counts itself among the top three, and a kill came before the links."""
    folder.finish()
    assert sorted(path.name for path in folder.folder.iterdir()) == sorted(
        [LATEST_CHECKPOINT, BEST_CHECKPOINT, *(TOP.format(i) for i in (1, 2, 3))]
    )
    (folder.folder / TOP.format(1)).unlink()
    (folder.folder / TOP.format(3)).rename(folder.folder / BEST_CHECKPOINT)
    again, loaded, warnings = gone_on(folder.folder)
    assert (loaded["epoch"], warnings, again.ranking) == (4, [], [0.2, 0.3])
    assert checkpoint.load_checkpoint(folder.folder / BEST_CHECKPOINT)["epoch"] == 4
    again.save_epoch(state(5, 0.25), 0.25)
    assert [checkpoint.load_checkpoint(folder.folder / TOP.format(i))["epoch"] for i in (1, 2, 3)] == [4, 5, 1]


def test_no_state_is_kept_that_the_manifest_does_not_name(folder: Checkpointer) -> None:
    inodes = {path.stat().st_ino for path in folder.folder.glob("*.pt")}
    assert {path.stat().st_ino for path in (folder.folder / STATES).iterdir()} == inodes
    assert len(inodes) == 4  # epochs 4 (latest and best), 3 (the one before), 1 and 2


def test_no_readable_checkpoint_is_an_error_that_lists_the_damage(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is none"):
        Checkpointer(tmp_path).load_latest()
    (tmp_path / LATEST_CHECKPOINT).write_bytes(b"")
    with pytest.raises(UserError, match=r"no readable checkpoint.*not a readable"):
        Checkpointer(tmp_path).load_latest()


def test_a_full_disk_keeps_the_checkpoint_before_and_says_how_much_is_needed(tmp_path: Path) -> None:
    def large(epoch: int) -> dict[str, Any]:
        return {**state(epoch, 1 / (epoch + 1)), "model_state_dict": {"w": torch.full((150_000,), float(epoch))}}

    with small_disk(tmp_path / "disk", kib=2048) as disk:
        keeper = Checkpointer(disk)
        for epoch in range(3):  # of 0.6 MB each, and all three are among the best
            keeper.save_epoch(large(epoch), 1 / (epoch + 1))
        with pytest.raises(TrainingError, match=r"about 0\.6 MB are needed and 0\.\d MB are free; free space"):
            keeper.save_epoch(large(3), 1 / 4)
        assert not list(disk.glob("*.tmp"))
        again, loaded, warnings = gone_on(disk)
        assert (loaded["epoch"], warnings) == (2, [])
        assert [checkpoint.load_checkpoint(disk / TOP.format(i))["epoch"] for i in (1, 2, 3)] == [2, 1, 0]
        for path in (disk / STATES).iterdir():  # somebody makes room
            if path.samefile(disk / TOP.format(3)):
                path.unlink()
        (disk / TOP.format(3)).unlink()
        again.save_epoch(large(3), 1 / 4)
        assert checkpoint.load_checkpoint(disk / BEST_CHECKPOINT)["epoch"] == 3
