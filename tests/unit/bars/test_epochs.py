"""Numbers become the times that they count, in the unit of each row; epochs of other origins are named."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moola_mlflow.bars.epochs import EPOCHS, OLD_BARS_NS, UNITS, latest_now, read_numbers
from moola_mlflow.core import UserError

AT = pd.Timestamp("2021-03-16 15:00").value


def read(values: object, epoch: str = "auto") -> tuple[list[int], list[bool]]:
    array = np.asarray(values)
    found = read_numbers(array, np.zeros(len(array), bool), epoch, "a.csv")
    return found.ns.tolist(), found.bad.tolist()


@given(st.integers(OLD_BARS_NS // 10**9 + 1, latest_now() // 10**9 - 1), st.permutations(list(UNITS.values())))
def test_each_row_tells_its_own_unit(seconds: int, units: list[int]) -> None:
    ns, bad = read([seconds * 10**9 // unit for unit in units])
    assert (ns, bad) == ([seconds * 10**9] * 4, [False] * 4)


@pytest.mark.parametrize("name", EPOCHS)
def test_a_named_epoch_is_read(name: str) -> None:
    epoch = EPOCHS[name]
    value = AT / epoch.unit_ns + epoch.at_1970 if epoch.unit_ns > 10**10 else AT // epoch.unit_ns + epoch.at_1970
    assert read([value], name) == ([AT], [False])


@pytest.mark.parametrize("name", ["sierra", "stata", "cocoa", "dotnet", "filetime"])
def test_an_epoch_that_is_not_named_is_refused_with_its_name(name: str) -> None:
    epoch = EPOCHS[name]
    with pytest.raises(UserError, match=rf"set --bars\.epoch to one of: .*{name} \(2021-03-16 15:00\)"):
        read([AT // epoch.unit_ns + epoch.at_1970])


def test_a_number_that_fits_no_epoch_names_the_unit_that_was_assumed() -> None:
    with pytest.raises(UserError, match=r"read as s since 1970 \(Unix\), is 2096-"):
        read([4_000_000_000] * 3)


def test_fractions_of_a_second_are_kept() -> None:
    assert read([1615906800.25]) == ([AT + 250_000_000], [False])
