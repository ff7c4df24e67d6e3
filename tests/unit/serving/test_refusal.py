"""A request that cannot be read is answered with its reason; numbers pass as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mlflow.exceptions import MlflowException

from moola_mlflow.core import UserError
from moola_mlflow.serving.refusal import as_numbers, bad_request

WINDOW = [[1.0, 2.0, 0.5, 1.5], [1.5, 2.0, 1.0, 1.0]]


def changed(cell: object) -> list[Any]:
    """Two windows of two bars, with one cell of the second replaced."""
    other = [list(row) for row in WINDOW]
    other[1][2] = cell  # type: ignore[call-overload]
    return [WINDOW, other]


def test_numbers_pass_as_they_are() -> None:
    for kind in (np.float32, np.int64):
        given = np.ones((1, 2, 4), kind)
        assert as_numbers(given, 2) is given
    np.testing.assert_array_equal(as_numbers([WINDOW], 2), np.array([WINDOW]))


@pytest.mark.parametrize(("cell", "shown"), [("cheap", "'cheap'"), (None, "None"), (True, "True"), ([], "[]")])
def test_the_first_cell_that_is_not_a_number_is_named(cell: object, shown: str) -> None:
    with pytest.raises(UserError) as refused:
        as_numbers(changed(cell) if cell != [] and cell is not True else np.array(changed(cell), dtype=object), 2)
    wanted = "windows must be numbers of shape [N, 2, 4] (open, high, low, close)"
    assert str(refused.value) == f"window 1, step 1: {shown} is not a number; {wanted}"


def test_text_is_refused_even_if_it_reads_as_a_number() -> None:
    with pytest.raises(UserError, match=r"window 0, step 0: '1\.5' is not a number"):
        as_numbers([[["1.5"] * 4] * 2], 2)


def test_a_long_text_is_cut_in_the_answer() -> None:
    with pytest.raises(UserError) as refused:
        as_numbers(changed("x" * 10_000), 2)
    assert len(str(refused.value)) < 250


def test_windows_of_unlike_lengths_are_refused_with_their_shape() -> None:
    with pytest.raises(UserError, match=r"must be numbers of shape \[N, 2, 4\].*inhomogeneous"):
        as_numbers([WINDOW, WINDOW[:1]], 2)


def test_a_users_mistake_is_a_bad_request_and_another_error_is_not() -> None:
    with pytest.raises(MlflowException) as refused, bad_request():
        raise UserError("no column low")
    assert refused.value.get_http_status_code() == 400
    assert refused.value.message == "no column low"
    with pytest.raises(KeyError), bad_request():
        raise KeyError("ours")


def test_what_the_server_puts_before_a_reason_is_cut_and_the_reason_stays() -> None:
    with pytest.raises(MlflowException) as refused, bad_request():
        raise UserError("no column low")
    refused.value.message = f"Failed to predict data '{'x' * 1_000_000}'. \nError: {refused.value.message}"
    answer = refused.value.serialize_as_json()
    assert len(answer) < 11_000
    assert "Failed to predict data" in answer
    assert "Error: no column low" in answer
