"""What a served model answers to input it cannot read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.exceptions import MlflowException

from moola_mlflow.errors import UserError


@contextmanager
def bad_request() -> Iterator[None]:
    """Turn a UserError into an answer 400 that gives its reason; the scoring server hides any other exception's."""
    try:
        yield
    except UserError as e:
        raise MlflowException.invalid_parameter_value(str(e)) from e
