"""Answer input that a served model cannot read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from mlflow.exceptions import MlflowException

from moola_mlflow.core import UserError

LONGEST = 10_000
"""Characters of an answer above which it is cut in the middle."""


class Refusal(MlflowException):
    """The reason why input is refused. MLflow's server puts all of the input before it: a large one is cut."""

    @property
    def message(self) -> str:
        """The reason, in at most about ``LONGEST`` characters."""
        return self._message

    @message.setter
    def message(self, text: str) -> None:
        self._message = text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


@contextmanager
def bad_request() -> Iterator[None]:
    """Answer 400 with the reason of a UserError. The scoring server hides the reason of any other exception."""
    try:
        yield
    except UserError as e:
        raise Refusal.invalid_parameter_value(str(e)) from e


def as_numbers(ohlc: Any, length: int) -> np.ndarray:
    """Return windows as an array of numbers.

    Raises: UserError that names the first cell that is not a number. Text is refused even if it reads as one.
    """
    wanted = f"windows must be numbers of shape [N, {length}, 4] (open, high, low, close)"
    try:
        array = np.asarray(ohlc)
    except ValueError as e:  # rows of different lengths
        raise UserError(f"{wanted}: {e}") from None
    if array.dtype.kind in "iuf":
        return array
    # numpy turns numbers next to one text into text. So look for the cell that does not read as a number.
    cells: list[tuple[Any, Any]] = [*np.ndenumerate(array), ((), None)]
    place, cell = next((pair for pair in cells[:-1] if not _reads_as_number(pair[1])), cells[0])
    where = f"window {place[0]}, step {place[1]}: " if len(place) == 3 else ""
    bare = cell.item() if isinstance(cell, np.generic) else cell
    shown = repr(bare[:80] if isinstance(bare, str) else bare)[:80]
    raise UserError(f"{where}{shown} is not a number; {wanted}")


def _reads_as_number(cell: Any) -> bool:
    if cell is None or isinstance(cell, bool | np.bool_) or (isinstance(cell, str) and len(cell) > LONGEST):
        return False
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return True
