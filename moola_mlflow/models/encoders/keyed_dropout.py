"""Dropout whose random bits depend on a key and on a window's place in its batch, and on nothing else.

So threads and processes that split a batch draw the same bits as one thread, and a step that is computed again draws
the same bits again. There is no state to save: the key of a step follows from seed, epoch and step.

On the CPU each element takes 16 bits of a counter-based generator (Philox). That needs about a quarter of the time of
``torch.dropout``, which draws one Bernoulli variable for each element.

Shape legend: B windows, T steps, D encoding size, N = T * D elements of a window.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

LEVELS = 1 << 16
WORDS, PER_COUNT = 4, 16
"""64-bit words and 16-bit integers that one count of Philox gives."""


@dataclass
class Stream:
    """The source of random bits for the dropout layers of one forward pass."""

    key: int
    rows: tuple[slice, ...]
    """Places in the batch of the rows that go through the encoder, in their order."""
    layer: int = 0


_local = threading.local()


@contextmanager
def stream(key: int, rows: Sequence[slice]) -> Iterator[None]:
    """Draw all dropout of this thread from a key, for the given places in a batch."""
    before = getattr(_local, "stream", None)
    _local.stream = Stream(key, tuple(rows))
    try:
        yield
    finally:
        _local.stream = before


class Dropout(nn.Module):
    """Dropout from the open stream; without one, from a key that torch's default generator draws.

    The probability is rounded to 1/65536. The elements that are kept are scaled by the rounded probability.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p, self.cheap = p, True

    def forward(self, h_BTD: Tensor) -> Tensor:
        """Return the input with a share of its elements set to 0, in training mode only."""
        if not self.training or not self.p:
            return h_BTD
        if not self.cheap:
            return functional.dropout(h_BTD, self.p)
        at: Stream | None = getattr(_local, "stream", None)
        if at is None:
            at = Stream(int(torch.randint(1 << 62, ()).item()), (slice(0, len(h_BTD)),))
        dropped = min(round(self.p * LEVELS), LEVELS - 1)
        factor = torch.tensor(LEVELS / (LEVELS - dropped), dtype=h_BTD.dtype)
        draw = factors_on_cpu if h_BTD.device.type == "cpu" else factors_on_device
        factor_BN = draw(at, h_BTD.shape[1:].numel(), dropped - LEVELS // 2, factor, h_BTD.device)
        at.layer += 1
        return h_BTD * factor_BN.view(h_BTD.shape)


def factors_on_cpu(at: Stream, size: int, least: int, factor: Tensor, device: torch.device) -> Tensor:
    """Return 0 if an element's 16-bit integer is below ``least``, else ``factor``. Shapes: [B, N]."""
    counts = -(-size // PER_COUNT)
    kept = np.empty((sum(part.stop - part.start for part in at.rows), size), bool)
    done = 0
    for part in at.rows:
        source = np.random.Philox(key=[at.key, at.layer], counter=[part.start * counts, 0, 0, 0])
        num = part.stop - part.start
        bits = source.random_raw(num * counts * WORDS).view(np.int16).reshape(num, -1)[:, :size]
        np.greater_equal(bits, least, out=kept[done : done + num])
        done += num
    # 0 or 1 times the bit pattern of the factor is 0 or the factor: one pass over integers.
    pattern = factor.view(torch.int16 if factor.itemsize == 2 else torch.int32).numpy()
    return torch.from_numpy(np.multiply(kept.view(np.int8), pattern, dtype=pattern.dtype)).view(factor.dtype)


def factors_on_device(at: Stream, size: int, least: int, factor: Tensor, device: torch.device) -> Tensor:
    """Return the same from random bits of the device. A GPU draws a whole batch faster than its parts one by one."""
    generator = torch.Generator(device).manual_seed((at.key + at.layer) % (1 << 64))
    shape = (max(part.stop for part in at.rows), size)
    whole = torch.randint(-LEVELS // 2, LEVELS // 2, shape, dtype=torch.int16, device=device, generator=generator)
    bits_BN = torch.cat([whole[part] for part in at.rows])
    return (bits_BN >= least).to(factor.dtype) * factor.item()


def use_torch_dropout(model: nn.Module) -> None:
    """Let a model's dropout layers draw as plain PyTorch does."""
    for module in model.modules():
        if isinstance(module, Dropout):
            module.cheap = False


def can_be_shared(model: nn.Module) -> bool:
    """Return whether several threads can run a model and draw the same every time: all its dropout is keyed."""
    drawing = (nn.modules.dropout._DropoutNd, nn.AlphaDropout, nn.RReLU)
    own = any(isinstance(module, drawing) and getattr(module, "p", 1.0) for module in model.modules())
    inner = any(isinstance(module, nn.RNNBase) and module.dropout for module in model.modules())
    plain = any(isinstance(module, Dropout) and not module.cheap and module.p for module in model.modules())
    return not (own or inner or plain)
