"""One step of training: the gradients of a batch, computed whole or in parts.

With one part a batch goes through the encoder in one pass. With several, its rows are split over threads and
processes. The loss is a function of errors summed over the batch. So every part runs its rows forward, and the sums of
all parts give the loss. Then every part takes the gradient by the sums backward. Gradients are summed in a fixed order:
the same number of parts gives the same bits on any machine, and another number differs only by the rounding of a sum.

If memory runs out, a part is cut into micro-batches. Their forward passes are computed again one by one on the way
back: the same step, in less memory and a third more time.

Shape legend: B windows, T steps, F features, D encoding size, K targets.
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

# A part with fewer windows than this loses more in small matrices than another core gives.
SMALLEST_PART = 16
T = TypeVar("T")


class Pretraining(nn.Module):
    """Encoder and objective as one module, so that a checkpoint's keys begin with ``encoder.`` or ``objective.``."""

    def __init__(self, encoder: Encoder, objective: Objective) -> None:
        super().__init__()
        self.encoder, self.objective = encoder, objective


@dataclass(frozen=True)
class Draw:
    """What is random about a step: the state of the generator before it, and the key of its dropout."""

    state: Tensor
    device: torch.device
    """Device of the generator."""
    key: int


@dataclass(frozen=True)
class StepResult:
    """Loss and errors of a batch, and the state of the generator after it."""

    loss: Tensor
    errors: Errors
    state: Tensor


def num_parts(wanted: int, batch_size: int, device: torch.device, tuned: bool) -> int:
    """Return into how many parts a process cuts its batches; 0 means one for each core, as long as that pays."""
    if wanted or not tuned or device.type != "cpu":
        return wanted or 1
    return max(1, min(allowed_cores() // torch.get_num_threads(), batch_size // SMALLEST_PART))


def cut(num_rows: int, parts: int) -> list[slice]:
    """Return consecutive rows in parts of nearly one size; some are empty if there are fewer rows than parts."""
    edges = [num_rows * i // parts for i in range(parts + 1)]
    return [slice(lo, hi) for lo, hi in pairwise(edges)]


class Engine:
    """Computes the errors of batches and their gradients.

    ``autocast`` gives the context of forward passes, ``scaler`` the scale of half-precision losses. Each time memory
    has run out, ``on_out_of_memory`` is called with the new size of a micro-batch.
    """

    def __init__(
        self,
        model: Pretraining,
        autocast: Callable[[], AbstractContextManager[Any]],
        device: torch.device,
        scaler: torch.amp.GradScaler,
        parts: int = 1,
        world: World | None = None,
        on_out_of_memory: Callable[[int], None] = lambda num_windows: None,
    ) -> None:
        self.model, self.autocast, self.device, self.scaler = model, autocast, device, scaler
        self.world, self.on_out_of_memory = world or World(), on_out_of_memory
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.micro: int | None = None
        """Most windows in one forward pass; None: as many as a part has."""
        self._used: list[bool] | None = None
        self.parts = 1
        self._threads: ThreadPoolExecutor | None = None
        self.use_parts(parts)

    def use_parts(self, parts: int) -> None:
        """Cut batches into so many parts from now on, or into one if the encoder draws its own random numbers."""
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

    def step(self, batch: Batch, draws: torch.Generator, key: int) -> StepResult:
        """Add the gradients of a batch to those of the parameters; ``draws`` and the weights stay as they are.

        Raises: PeerLost; TrainingError if not even one window fits into memory.
        """
        draw = Draw(draws.get_state(), draws.device, key)
        if self.parts == 1 and self.world.size == 1 and self.micro is None:
            try:
                return self._whole(batch, draw)
            except RuntimeError as e:  # torch.OutOfMemoryError is one
                reason = _out_of_memory(e)
            for parameter in self.parameters:
                parameter.grad = None
            self._halve(len(batch.index), reason)
        return self._in_parts(batch, draw)

    def _whole(self, batch: Batch, draw: Draw) -> StepResult:
        """Compute a batch in one pass."""
        errors, state = self._errors(batch, draw, None)
        loss = self.model.objective.loss(errors)
        self.scaler.scale(loss).backward()
        return StepResult(loss.detach(), errors.detach(), state)

    def _errors(self, batch: Batch, draw: Draw, rows: slice | None) -> tuple[Errors, Tensor]:
        """Return the errors of some rows, None for all, and the state of the generator afterwards.

        Every part draws for the whole batch, so that a window's random numbers do not depend on the parts.
        """
        objective, encoder = self.model.objective, self.model.encoder
        generator = torch.Generator(draw.device)
        generator.set_state(draw.state)
        with self.autocast():
            drawn = objective.draw(batch, generator)
            z_BTF = objective.encoder_input(encoder, batch, drawn, generator)
            places = [slice(0, len(z_BTF))]
            if rows is not None:
                z_BTF, places = part_of(z_BTF, len(batch.index), rows)
                batch, drawn = batch.rows(rows), drawn[rows]
            with stream(draw.key, places):
                h_BTD = encoder.encode(z_BTF)
            return objective.errors(encoder, h_BTD, batch, drawn), generator.get_state()

    def _in_parts(self, batch: Batch, draw: Draw) -> StepResult:
        """Compute a batch in parts: forward, the gradient of the loss by the summed errors, and backward."""
        rows = self.rows(len(batch.index))
        # The last batch may have fewer windows than there are processes: those without one draw but add nothing.
        idle = not rows
        rows = rows or [slice(0, 1)]
        largest = max(part.stop - part.start for part in rows)
        forward = self._within_memory(
            lambda: self._parallel(lambda part: self._forward(batch, draw, part), rows), largest
        )
        total = self.sum([errors.detach() for errors, _, _ in forward], idle)
        leaf_K = total.huber_K.requires_grad_()
        errors = Errors(leaf_K, total.absolute_K, total.count_K)
        loss = self.model.objective.loss(errors)
        self.scaler.scale(loss).backward()  # parameters of the loss itself have their gradients now
        assert leaf_K.grad is not None, "a loss follows from the errors"
        gradient_K, graphs, state = leaf_K.grad * (not idle), [graph for _, graph, _ in forward], forward[0][2]

        def backward(i: int) -> list[Tensor | None]:
            graph, graphs[i] = graphs[i], None  # if memory runs out, the second try computes its own
            return self._backward(batch, draw, rows[i], graph, gradient_K)

        del forward
        parts = self._within_memory(lambda: self._parallel(backward, list(range(len(rows)))), largest)
        for parameter, gradient in zip(self.parameters, self._summed(parts), strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        return StepResult(loss.detach(), errors.detach(), state)

    def rows(self, num_rows: int) -> list[slice]:
        """Return the rows of a batch that this process computes, a slice for each part that has any."""
        first = self.world.rank * self.parts
        mine = cut(num_rows, self.world.size * self.parts)[first : first + self.parts]
        return [rows for rows in mine if rows.stop > rows.start]

    def _forward(self, batch: Batch, draw: Draw, rows: slice) -> tuple[Errors, Errors | None, Tensor]:
        """Return a part's errors, the same with their graph if one pass holds the part, and the generator's state."""
        pieces = self._pieces(rows)
        with torch.set_grad_enabled(len(pieces) == 1):
            found = [self._errors(batch, draw, piece) for piece in pieces]
        errors = [one for one, _ in found]
        return reduce(add, errors), errors[0] if len(pieces) == 1 else None, found[0][1]

    def _backward(
        self, batch: Batch, draw: Draw, rows: slice, graph: Errors | None, gradient_K: Tensor
    ) -> list[Tensor | None]:
        total: list[Tensor | None] = [None] * len(self.parameters)
        for piece in self._pieces(rows):
            errors = graph if graph is not None else self._errors(batch, draw, piece)[0]
            graph = None
            # The gradient of one number: for a vector of errors torch would import its symbolic shapes.
            reached = (errors.huber_K * gradient_K).sum()
            own = torch.autograd.grad(reached, self.parameters, allow_unused=True)
            del errors, reached
            total = _added(total, own)
        return total

    def evaluate(self, batch: Batch, draws: torch.Generator, baselines: bool) -> tuple[Errors, dict[str, Errors]]:
        """Return the errors of a whole batch: the model's and, if wanted, those of every baseline."""
        objective, encoder = self.model.objective, self.model.encoder
        with torch.no_grad(), self.autocast():
            drawn = objective.draw(batch, draws)
            z_BTF = objective.encoder_input(encoder, batch, drawn, draws)

        def score(rows: slice) -> tuple[Errors, dict[str, Errors]]:
            part, own = batch.rows(rows), drawn[rows]
            with torch.no_grad():
                with self.autocast():
                    h_BTD = encoder.encode(part_of(z_BTF, len(batch.index), rows)[0])
                    errors = objective.errors(encoder, h_BTD, part, own)
                return errors, objective.baseline_errors(encoder, part, own) if baselines else {}

        rows = self.rows(len(batch.index))
        found = self._parallel(score, rows or [slice(0, 1)])
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
        """Return gradients summed over parts and processes."""
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
        """Return the micro-batches of a part."""
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

    def _within_memory(self, work: Callable[[], T], largest: int) -> T:
        """Do the work; if memory runs out, do it again in micro-batches of half the size."""
        while True:
            try:
                return work()
            except RuntimeError as e:
                reason = _out_of_memory(e)
            self._halve(largest, reason)  # outside of the except block: the traceback's tensors are free now

    def _halve(self, largest: int, reason: str) -> None:
        """Halve the micro-batches, of ``largest`` windows so far. Raises: TrainingError if they hold one window."""
        largest = self.micro or largest
        if largest <= 1:
            raise TrainingError(f"not even one window fits into the memory of {self.device}: {reason}")
        self.micro = -(-largest // 2)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.on_out_of_memory(self.micro)


def part_of(z_BTF: Tensor, num_windows: int, rows: slice) -> tuple[Tensor, list[slice]]:
    """Return some windows of an encoder's input, and their places in it: a sum of objectives has several passes."""
    passes = len(z_BTF) // num_windows
    chosen = z_BTF.unflatten(0, (passes, num_windows))[:, rows].flatten(0, 1)
    return chosen, [slice(i * num_windows + rows.start, i * num_windows + rows.stop) for i in range(passes)]


def _added(total: Any, own: Any) -> list[Tensor | None]:
    # Not in place: autograd may give two parameters the same tensor (both biases of an LSTM have equal gradients).
    return [b if a is None else a if b is None else a + b for a, b in zip(total, own, strict=True)]


def _apart(gradients: list[Tensor | None]) -> list[Tensor | None]:
    """Return gradients that share no memory: autograd may let them, and clipping scales them in place."""
    seen: set[int] = set()
    out: list[Tensor | None] = []
    for gradient in gradients:
        if gradient is not None and gradient.data_ptr() in seen:
            gradient = gradient.clone()
        seen |= {gradient.data_ptr()} if gradient is not None else set()
        out.append(gradient)
    return out


def _out_of_memory(error: RuntimeError) -> str:
    """Return what an error says about missing memory. Raises: the error if it is about something else."""
    if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
        raise error
    return str(error).strip().splitlines()[0]
