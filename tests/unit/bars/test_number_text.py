"""Numbers that are text are read where they mean one number, and are NaN where they may mean two."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from moola_mlflow.bars.number_text import numbers_of


def numbers(cells: list[str | None], small: bool = True, decimal_comma: bool = False) -> list[float]:
    column = pa.chunked_array([pa.array(cells, pa.string())])
    return numbers_of(column, small, decimal_comma)[0].tolist()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12), ("1e3", 1000), (" 7 ", 7), ("1.2K", 1200), ("3M", 3e6), ("1.5 b", 1.5e9), ("1,200", 1200),
        ("1,234,567", 1234567), ("1 200", 1200), ("1'200", 1200), ("-5", -5), ("1,234.5", 1234.5),
    ],
)  # fmt: skip
def test_a_volume_is_read(text: str, value: float) -> None:
    assert numbers([text], small=False) == [value]


@pytest.mark.parametrize("text", ["many", "1,2,3", "12 lots", "1.2.3", "0x10", "1K2", "K", "1,23,456"])
def test_what_is_no_number_is_nan(text: str) -> None:
    assert np.isnan(numbers([text], small=False)).all()


@pytest.mark.parametrize("text", ["", " ", "-", "--", "N/A", "null", "NaN", None])
def test_an_empty_cell_is_not_an_unreadable_one(text: str | None) -> None:
    column = pa.chunked_array([pa.array(["1", text, "many"], pa.string())])
    values, empty = numbers_of(column)
    assert np.isnan(values).tolist() == [False, True, True]
    assert empty.tolist() == [False, True, False]


def test_a_price_with_a_comma_needs_another_cell_that_tells_what_it_means() -> None:
    assert np.isnan(numbers(["1,125"])).all()
    assert numbers(["1,125", "1,125.5"]) == [1125, 1125.5]
    assert numbers(["50,25", "50,125"]) == [50.25, 50.125]
    assert numbers(["1.050,25", "50,5"]) == [1050.25, 50.5]


def test_with_a_decimal_comma_points_are_thousands() -> None:
    assert numbers(["1.234", "1.234,5", "7"], decimal_comma=True) == [1234, 1234.5, 7]
