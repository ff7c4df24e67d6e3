"""Any value that a command logs, as JSON that every reader takes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moola_mlflow.tracking.plain_json import to_json, without_nan

SCALARS = st.none() | st.booleans() | st.integers() | st.text() | st.floats()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)


@given(VALUES)
def test_a_value_comes_back_with_null_for_what_is_not_finite(value: object) -> None:
    text = to_json(value)
    strict = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert strict == json.loads(json.dumps(without_nan(value)))


def test_numpys_numbers_and_arrays_are_plain_ones() -> None:
    value = {
        "a": np.float32(0.5),
        "b": np.int64(3),
        "c": np.array([[1.0, 2.0]]),
        "d": (np.float64("nan"), float("inf")),
    }
    assert json.loads(to_json(value)) == {"a": 0.5, "b": 3, "c": [[1.0, 2.0]], "d": [None, None]}


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(TypeError, match="PosixPath is not JSON"):
        to_json({"path": Path("a")})
