"""Processes that train one model together. ``torchrun`` starts them, and each computes its rows of every batch.

During training they exchange only sums. Only rank 0 tracks the run and writes files.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from moola_mlflow.core import TrainingError, UserError, num_processes, process_rank

# A peer may be busy for long: rank 0 writes checkpoints and pictures. A dead peer is noticed at once.
TIMEOUT = dt.timedelta(minutes=30)
T = TypeVar("T")


class PeerLost(TrainingError):
    """Another process of the training has ended."""


@dataclass
class World:
    """The processes of a training; by default this process alone."""

    rank: int = 0
    size: int = 1
    control: Any = None
    """Process group for decisions of the host. The host would have to wait for answers of the GPU's group."""
    run_id: str = ""
    """The run that rank 0 tracks. If rank 0 dies, the others set the run to FAILED."""

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over all processes, the same bits on each; in place. Raises: PeerLost."""
        if self.size > 1:
            _talk(lambda: dist.all_reduce(tensor))
        return tensor

    def agree(self, reason: str | None) -> str | None:
        """Return a reason to stop if any process has one. Raises: PeerLost."""
        if self.size == 1:
            return reason
        asked = torch.tensor([float(reason is not None)])
        _talk(lambda: dist.all_reduce(asked, group=self.control))
        return (reason or "another process was asked to stop") if asked.item() else None

    def compare(self, mine: Mapping[str, object]) -> None:
        """Check that the items are equal in all processes; every process raises the same error if not.

        Raises: UserError with every item that differs and its values; PeerLost.
        """
        if self.size == 1:
            return
        text = json.dumps({name: str(value) for name, value in mine.items()}).encode()
        size = torch.tensor([len(text)])
        _talk(lambda: dist.all_reduce(size, op=dist.ReduceOp.MAX, group=self.control))
        padded = torch.frombuffer(bytearray(text.ljust(int(size.item()))), dtype=torch.uint8)
        found = [torch.empty_like(padded) for _ in range(self.size)]
        _talk(lambda: dist.all_gather(found, padded, group=self.control))
        if differing := differences([json.loads(content.numpy().tobytes()) for content in found]):
            raise UserError(
                f"the {self.size} processes of this training differ: {'; '.join(differing)}; these must be equal. "
                "Start every process with the same command on the same bars; if the machines differ, set "
                "runtime.precision and runtime.shards"
            )

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes rank 0's values, in place. Raises: PeerLost."""
        if self.size > 1:
            for tensor in tensors:
                _talk(lambda tensor=tensor: dist.broadcast(tensor, 0))  # type: ignore[misc]

    def share_state(self, state: dict[str, Any] | None) -> dict[str, Any] | None:
        """Return rank 0's state, or None if it has none. Reading it executes nothing."""
        if self.size == 1:
            return state
        written = io.BytesIO()
        if state is not None and self.rank == 0:
            torch.save(state, written)
        size = torch.tensor([len(written.getvalue())])
        _talk(lambda: dist.broadcast(size, 0, group=self.control))
        if not size.item():
            return None
        content = torch.empty(int(size.item()), dtype=torch.uint8)
        if self.rank == 0:
            content = torch.frombuffer(bytearray(written.getvalue()), dtype=torch.uint8)
        _talk(lambda: dist.broadcast(content, 0, group=self.control))
        return state if self.rank == 0 else torch.load(io.BytesIO(content.numpy().tobytes()), weights_only=True)

    def leave(self) -> None:
        """Leave the other processes; rank 0 does alone what follows the training."""
        if self.size > 1:
            dist.destroy_process_group()
        self.rank, self.size, self.control = 0, 1, None


def join_world(device: torch.device, run_id: str = "") -> World:
    """Return the processes that ``torchrun`` started, or this one alone; rank 0 passes on the run that it tracks.

    Raises: PeerLost if they do not come.
    """
    size = num_processes()
    if size == 1:
        return World(run_id=run_id)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about process groups without a device id
        backend = "nccl" if device.type == "cuda" else "gloo"
        _talk(lambda: dist.init_process_group(backend, timeout=TIMEOUT))
        control = _talk(lambda: dist.new_group(backend="gloo", timeout=TIMEOUT))
    world = World(process_rank(), size, control)
    world.run_id = (world.share_state({"run_id": run_id}) or {})["run_id"]
    return world


def differences(items_by_rank: Sequence[Mapping[str, str]]) -> list[str]:
    """Return every item that differs between processes, with each value and the ranks that have it.

    >>> differences([{"seed": "17"}, {"seed": "17"}, {"seed": "23"}])
    ['seed is 17 in process 0, 1 and 23 in process 2']
    """
    found = []
    for name in dict.fromkeys(name for items in items_by_rank for name in items):
        ranks: dict[str, list[str]] = {}
        for rank, items in enumerate(items_by_rank):
            ranks.setdefault(items.get(name, "not there"), []).append(str(rank))
        if len(ranks) > 1:
            each = (f"{value} in process {', '.join(numbers)}" for value, numbers in ranks.items())
            found.append(f"{name} is {' and '.join(each)}")
    return found


def describe_processes(processes: object, parts: object, threads: object) -> str:
    """Return how a batch is split, such as ``2 parts of one thread``."""
    each = f"{_counted(parts, 'part')} of {_counted(threads, 'thread')}"
    return each if str(processes) == "1" else f"{processes} processes, each with {each}"


def _counted(number: object, what: str) -> str:
    return f"one {what}" if str(number) == "1" else f"{number} {what}s"


def _talk(exchange: Callable[[], T]) -> T:
    try:
        return exchange()
    except RuntimeError as e:
        raise PeerLost(
            f"another process of this training is gone ({str(e).strip().splitlines()[0][:200]}); start again with "
            "resume=auto, which goes on from the last state that was saved"
        ) from e
