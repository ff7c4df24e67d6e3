"""One step of training, in parts: rows of a batch on threads and processes, their gradients summed in a fixed order.

The loss is a function of errors summed over the whole batch. So each part runs its windows forward; the sums go into
the loss, whose slope by the summed errors each part then takes backward. Any number of parts gives the same step, up
to the rounding of a sum of as many terms as parts; the same number gives the same bits whoever computes them.

Where memory runs out, a part is cut into micro-batches, whose forward passes are made again one by one on the way
back: the same step in less memory and a third more time.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import add
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from moola_mlflow.core import TrainingError, allowed_cores
from moola_mlflow.models import Encoder, Errors, Objective, can_be_shared, stream
from moola_mlflow.training.distributed import World
from moola_mlflow.windows import Batch

# A part with fewer windows than this costs more in small matrices than another core gives.
SMALLEST_PART = 16
T = TypeVar("T")


class Pretraining(nn.Module):
    """Encoder and objective as one module, so that a checkpoint's keys begin with ``encoder.`` or ``objective.``."""

    def __init__(self, encoder: Encoder, objective: Objective) -> None:
        super().__init__()
        self.encoder, self.objective = encoder, objective


@dataclass(frozen=True)
class BatchPart:
    """What all parts of a step share: the batch, the state of the generator before it, and the key of its dropout."""

    batch: Batch
    device: torch.device
    """Where the generator draws."""
    state: Tensor
    key: int


@dataclass(frozen=True)
class Gradients:
    """What a step gives: one gradient a parameter (None where the loss does not reach it) and the generator after."""

    by_parameter: list[Tensor | None]
    state: Tensor


def num_parts(wanted: int, batch_size: int, device: torch.device, tuned: bool) -> int:
    """Return into how many parts a process cuts its batches; 0 = as many as cores, as long as that pays."""
    if wanted or not tuned or device.type != "cpu":
        return wanted or 1
    return max(1, min(allowed_cores() // torch.get_num_threads(), batch_size // SMALLEST_PART))


def cut(num_rows: int, parts: int) -> list[slice]:
    """Return consecutive rows as evenly as they go; some are empty where there are fewer rows than parts."""
    edges = [num_rows * i // parts for i in range(parts + 1)]
    return [slice(lo, hi) for lo, hi in pairwise(edges)]


class Engine:
    """Computes errors and gradients of batches, part by part.

    ``told`` hears the new size of a micro-batch whenever memory has run out.
    """

    def __init__(
        self,
        model: Pretraining,
        autocast: Callable[[], AbstractContextManager[Any]],
        device: torch.device,
        parts: int = 1,
        world: World | None = None,
        told: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self.model, self.autocast, self.device, self.told = model, autocast, device, told
        self.world = world or World()
        self.micro: int | None = None
        """Most rows of a forward pass; None: as many as a part has."""
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self._used: list[bool] | None = None
        self._largest = 1
        self._after = torch.empty(0)
        self.parts = 1
        self._threads: ThreadPoolExecutor | None = None
        self.use_parts(parts)

    def use_parts(self, parts: int) -> None:
        """Cut batches into so many parts from now on; into one where the encoder draws in a way of its own."""
        self.close()
        self.parts = parts if can_be_shared(self.model) else 1
        if self.parts > 1:
            threads = torch.get_num_threads()
            self._threads = ThreadPoolExecutor(self.parts - 1, "part", lambda: torch.set_num_threads(threads))

    def close(self) -> None:
        """End the threads."""
        if self._threads:
            self._threads.shutdown()
            self._threads = None

    def rows(self, num_rows: int) -> list[slice]:
        """Return the rows of a batch that are this process's, a slice a part; none where there are too few."""
        first = self.world.rank * self.parts
        mine = cut(num_rows, self.world.size * self.parts)[first : first + self.parts]
        return [rows for rows in mine if rows.stop > rows.start]

    def step(self, batch: Batch, draws: torch.Generator, key: int, slope: Callable[[Errors], Tensor]) -> Gradients:
        """Return the gradients of a batch over all parts and processes; ``draws`` stays as it is.

        ``slope`` takes the summed errors, whose huber_K wants a gradient, and goes backward from the loss.

        Raises: PeerLost; TrainingError where not even one window fits into memory.
        """
        job, rows = BatchPart(batch, draws.device, draws.get_state(), key), self.rows(len(batch.index))
        idle = not rows  # fewer windows than processes, in the last batch: draw all the same, add nothing
        rows = rows or [slice(0, 1)]
        self._largest = max(part.stop - part.start for part in rows)
        forward = self._guarded(lambda: self._parallel(lambda part: self._forward(job, part), rows))
        total = self.sum([errors.detach() for errors, _ in forward], idle)
        leaf_K = total.huber_K.requires_grad_()
        slope(Errors(leaf_K, total.absolute_K, total.count_K))
        assert leaf_K.grad is not None, "a loss follows from the errors"
        slope_K, graphs = leaf_K.grad * (not idle), [graph for _, graph in forward]

        def backward(i: int) -> list[Tensor | None]:
            graph, graphs[i] = graphs[i], None  # taken: a second try, after memory has run out, makes its own
            return self._backward(job, rows[i], graph, slope_K)

        del forward
        parts = self._guarded(lambda: self._parallel(backward, list(range(len(rows)))))
        return Gradients(self._summed(parts), self._after)

    def _forward(self, job: BatchPart, rows: slice) -> tuple[Errors, Errors | None]:
        """Return a part's errors, and the same with their graph where one pass holds the part."""
        pieces = self._pieces(rows)
        with torch.set_grad_enabled(len(pieces) == 1):
            errors = [self._errors(job, piece) for piece in pieces]
        return reduce(add, errors), errors[0] if len(pieces) == 1 else None

    def _backward(self, job: BatchPart, rows: slice, graph: Errors | None, slope_K: Tensor) -> list[Tensor | None]:
        total: list[Tensor | None] = [None] * len(self.parameters)
        for piece in self._pieces(rows):
            errors = graph if graph is not None else self._errors(job, piece)
            graph = None
            # A number's gradient: with one for each error torch would import what it compares symbolic shapes with.
            reached = (errors.huber_K * slope_K).sum()
            own = torch.autograd.grad(reached, self.parameters, allow_unused=True)
            del errors, reached
            total = _added(total, own)
        return total

    def _errors(self, job: BatchPart, rows: slice) -> Errors:
        """Return the errors of some rows. Everything random is drawn for the whole batch, by each part alike."""
        objective, encoder, batch = self.model.objective, self.model.encoder, job.batch
        generator = torch.Generator(job.device)
        generator.set_state(job.state)
        with self.autocast():
            drawn = objective.draw(batch, generator)
            x_BTF = objective.encoder_input(encoder, batch, drawn, generator)
            self._after = generator.get_state()  # every part sets the same
            x_BTF, places = part_of(x_BTF, len(batch.index), rows)
            with stream(job.key, places):
                h_BTD = encoder.encode(x_BTF)
            return objective.errors(encoder, h_BTD, batch.rows(rows), drawn[rows])

    def evaluate(self, batch: Batch, draws: torch.Generator, baselines: bool) -> tuple[Errors, dict[str, Errors]]:
        """Return the errors of a whole batch: the model's and, where wanted, every baseline's."""
        objective, encoder = self.model.objective, self.model.encoder
        with torch.no_grad(), self.autocast():
            drawn = objective.draw(batch, draws)
            x_BTF = objective.encoder_input(encoder, batch, drawn, draws)

        def of(rows: slice) -> tuple[Errors, dict[str, Errors]]:
            seen, own = batch.rows(rows), drawn[rows]
            with torch.no_grad():
                with self.autocast():
                    h_BTD = encoder.encode(part_of(x_BTF, len(batch.index), rows)[0])
                    errors = objective.errors(encoder, h_BTD, seen, own)
                return errors, objective.baseline_errors(encoder, seen, own) if baselines else {}

        rows = self.rows(len(batch.index))
        found = self._parallel(of, rows or [slice(0, 1)])
        by_baseline = {name: self.sum([others[name] for _, others in found], not rows) for name in found[0][1]}
        return self.sum([errors for errors, _ in found], not rows), by_baseline

    def sum(self, errors: list[Errors], idle: bool = False) -> Errors:
        """Return errors summed over parts, in their order, and over processes. Raises: PeerLost."""
        total = reduce(add, errors)
        if self.world.size == 1:
            return total
        packed = torch.stack([total.huber_K, total.absolute_K, total.count_K]).float() * (not idle)
        return Errors(*self.world.sum(packed).unbind())

    def _summed(self, parts: list[list[Tensor | None]]) -> list[Tensor | None]:
        total = reduce(_added, parts)
        if self.world.size == 1:
            return _apart(total)
        if self._used is None:
            reached = torch.tensor([float(gradient is not None) for gradient in total], device=self.device)
            self._used = [bool(value) for value in self.world.sum(reached).tolist()]
        filled = [torch.zeros_like(p) if g is None else g for p, g in zip(self.parameters, total, strict=True)]
        flat = self.world.sum(torch.cat([gradient.flatten() for gradient in filled]))
        each = flat.split([p.numel() for p in self.parameters])
        rows = zip(each, self.parameters, self._used, strict=True)
        return [gradient.view_as(p) if used else None for gradient, p, used in rows]

    def _pieces(self, rows: slice) -> list[slice]:
        num = rows.stop - rows.start
        pieces = cut(num, max(1, -(-num // (self.micro or max(1, num)))))
        return [slice(rows.start + piece.start, rows.start + piece.stop) for piece in pieces]

    def _parallel(self, work: Callable[[Any], T], items: list[Any]) -> list[T]:
        """Do the first item here and the others on threads; all have ended when this returns or raises."""
        if self._threads is None:
            return [work(item) for item in items]
        others = [self._threads.submit(work, item) for item in items[1:]]
        try:
            first = work(items[0])
        finally:
            failed = [error for future in others if (error := future.exception())]
        if failed:
            raise failed[0]
        return [first, *(future.result() for future in others)]

    def _guarded(self, work: Callable[[], T]) -> T:
        """Do the work; where memory runs out, again in micro-batches of half the size."""
        while True:
            try:
                return work()
            except RuntimeError as e:  # torch.OutOfMemoryError is one
                if not _out_of_memory(e):
                    raise
                said = str(e).strip().splitlines()[0]
            self._halve(said)  # outside: what the error's traceback holds is free now

    def _halve(self, said: str) -> None:
        largest = self.micro or self._largest
        if largest <= 1:
            raise TrainingError(f"not even one window fits into the memory of {self.device}: {said}")
        self.micro = -(-largest // 2)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.told(self.micro)


def part_of(x_BTF: Tensor, num_windows: int, rows: slice) -> tuple[Tensor, list[slice]]:
    """Return some windows of an encoder's input, and their places in it: a sum of objectives has several passes."""
    passes = len(x_BTF) // num_windows
    chosen = x_BTF.unflatten(0, (passes, num_windows))[:, rows].flatten(0, 1)
    return chosen, [slice(i * num_windows + rows.start, i * num_windows + rows.stop) for i in range(passes)]


def _added(total: Any, own: Any) -> list[Tensor | None]:
    # Not in place: autograd may give two parameters the same tensor (both biases of an LSTM have equal gradients).
    return [b if a is None else a if b is None else a + b for a, b in zip(total, own, strict=True)]


def _apart(gradients: list[Tensor | None]) -> list[Tensor | None]:
    """Return gradients of which no two share memory, as autograd may leave them: clipping scales them in place."""
    seen: set[int] = set()
    out: list[Tensor | None] = []
    for gradient in gradients:
        if gradient is not None and gradient.data_ptr() in seen:
            gradient = gradient.clone()
        seen |= {gradient.data_ptr()} if gradient is not None else set()
        out.append(gradient)
    return out


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
