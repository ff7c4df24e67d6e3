"""Heads of the rules that an encoder was pre-trained on, in memory, on disk and in a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from moola_mlflow.models.task_heads import TASK_HEADS, TaskHeads, read_task_heads, task_heads_of


def heads(num: int = 3, size: int = 4) -> TaskHeads:
    return TaskHeads(tuple(f"r{i}" for i in range(num)), torch.rand(num, 2, size), torch.rand(num, 3, 3 * size))


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    made = heads()
    made.save(tmp_path)
    found = read_task_heads(tmp_path)
    assert found is not None
    assert found.names == made.names
    assert torch.equal(found.pointers, made.pointers)
    assert torch.equal(found.classes, made.classes)


def test_a_folder_without_heads_has_none(tmp_path: Path) -> None:
    assert read_task_heads(tmp_path) is None


@pytest.mark.parametrize(
    ("names", "pointers", "classes"),
    [
        (("a",), torch.rand(1, 2, 4), torch.rand(1, 3, 12)),
        (("a", "b"), torch.rand(3, 2, 4), torch.rand(3, 3, 12)),
        (("a", "b"), torch.rand(2, 3, 4), torch.rand(2, 3, 12)),
        (("a", "b"), torch.rand(2, 2, 4), torch.rand(2, 3, 8)),
    ],
    ids=["one rule", "a rule without a name", "three pointers", "classes of other parts"],
)
def test_shapes_that_do_not_fit_each_other_are_refused(
    names: tuple[str, ...], pointers: torch.Tensor, classes: torch.Tensor
) -> None:
    with pytest.raises(ValueError, match=f"task heads of {len(names)} rules have shapes"):
        TaskHeads(names, pointers, classes)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    made = heads()
    made.pointers[0, 0, 0] = torch.nan
    made.save(tmp_path)
    with pytest.raises(ValueError, match="not finite"):
        read_task_heads(tmp_path)
    (tmp_path / TASK_HEADS).write_bytes(b"{")
    with pytest.raises(Exception, match=r"(?i)header|invalid|deserializ"):
        read_task_heads(tmp_path)


def test_a_checkpoint_has_heads_without_names() -> None:
    made = heads(2)
    state = {"objective.pointers": made.pointers, "objective.classes": made.classes, "encoder.mean": torch.zeros(3)}
    found = task_heads_of(state)
    assert found is not None
    assert found.names == ("rule-0", "rule-1")
    assert torch.equal(found.classes, made.classes)


@pytest.mark.parametrize("missing", ["objective.pointers", "objective.classes"])
def test_a_checkpoint_of_another_objective_has_none(missing: str) -> None:
    state = {"objective.pointers": torch.rand(2, 2, 4), "objective.classes": torch.rand(2, 3, 12)}
    del state[missing]
    assert task_heads_of(state) is None
