"""Heads of the rules that an encoder was pre-trained on: what the prior reader starts from.

Shape legend: K rules, D encoding size.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

TASK_HEADS = "task_heads.safetensors"
NUM_CLASSES = 3
"""Classes of a rule's head. A rule with fewer classes does not use the rest."""
NUM_PARTS = 3
"""Averages of the encoding that a class is read from: over the span, the 20 bars before it and the 20 after it."""


@dataclass(frozen=True)
class TaskHeads:
    """The linear pointers and class layers of all rules, in the order of their names.

    Shapes: pointers float32 [K, 2, D] (start and end), classes float32 [K, 3, 3 * D].
    Raises: ValueError if the shapes do not fit each other.
    """

    names: tuple[str, ...]
    pointers: Tensor
    classes: Tensor

    def __post_init__(self) -> None:
        num, size = len(self.names), self.pointers.shape[-1]
        expected = ((num, 2, size), (num, NUM_CLASSES, NUM_PARTS * size))
        if num < 2 or (tuple(self.pointers.shape), tuple(self.classes.shape)) != expected:
            raise ValueError(
                f"task heads of {num} rules have shapes {tuple(self.pointers.shape)} and {tuple(self.classes.shape)}"
            )

    def save(self, folder: Path) -> None:
        """Write the heads into an encoder's folder."""
        tensors = {name: getattr(self, name).detach().cpu().contiguous() for name in ("pointers", "classes")}
        save_file(tensors, folder / TASK_HEADS, {"rules": json.dumps(self.names)})


def read_task_heads(folder: Path) -> TaskHeads | None:
    """Return the heads in an encoder's folder, or None if it has none.

    Raises: what safetensors, JSON or the shapes raise for a broken file.
    """
    if not (folder / TASK_HEADS).is_file():
        return None
    with safe_open(folder / TASK_HEADS, "pt") as file:
        names = tuple(str(name) for name in json.loads(file.metadata()["rules"]))
        heads = TaskHeads(names, file.get_tensor("pointers"), file.get_tensor("classes"))
    if not all(torch.isfinite(tensor).all() for tensor in (heads.pointers, heads.classes)):
        raise ValueError("task heads hold numbers that are not finite")
    return heads


def task_heads_of(state: dict[str, Tensor]) -> TaskHeads | None:
    """Return the heads among the tensors of a checkpoint, or None. It does not hold the names of the rules."""
    prefix = next((name.removesuffix("pointers") for name in state if name.endswith(".pointers")), None)
    if prefix is None or f"{prefix}classes" not in state:
        return None
    pointers, classes = state[f"{prefix}pointers"], state[f"{prefix}classes"]
    return TaskHeads(tuple(f"rule-{i}" for i in range(len(pointers))), pointers, classes)
