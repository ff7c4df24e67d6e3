"""What an encoder reads: features, the price path, or both side by side, with names in the same order."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import windows

from moola_mlflow.core import UserError
from moola_mlflow.features.inputs import compute_inputs, input_names
from moola_mlflow.features.price_path import price_path_features
from moola_mlflow.features.relativity import compute_features, feature_names
from moola_mlflow.features.zigzag import Hybrid


@pytest.mark.parametrize("inputs", ["features", "price_path", "both"])
def test_there_is_a_name_for_each_column(inputs: str) -> None:
    names, x_NTP = input_names("relativity11", inputs), compute_inputs(windows(), "relativity11", Hybrid(), inputs)
    assert x_NTP.shape == (5, 105, len(names))
    assert len(set(names)) == len(names)
    assert x_NTP.dtype == np.float32


def test_both_are_the_features_and_then_the_price_path() -> None:
    ohlc, hybrid = windows(), Hybrid(5, 0.5, True)
    features, path = compute_features(ohlc, "relativity10", hybrid), price_path_features(ohlc)
    both = compute_inputs(ohlc, "relativity10", hybrid, "both")
    np.testing.assert_array_equal(both, np.concatenate([features, path], -1))
    names = input_names("relativity10", "both")
    assert names[:10] == feature_names("relativity10")
    assert all(name.startswith("price_path_") for name in names[10:])


def test_the_price_path_alone_asks_for_no_feature_set() -> None:
    assert input_names("no such set", "price_path") == input_names("relativity11", "price_path")


@pytest.mark.parametrize(("name", "inputs"), [("relativity11", "path"), ("no such set", "features")])
def test_unknown_names_are_refused(name: str, inputs: str) -> None:
    with pytest.raises(UserError, match=r"allowed|no such set"):
        input_names(name, inputs)
