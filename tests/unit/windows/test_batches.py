"""Batches of windows: the same whether each epoch computes its own or the device holds them all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from moola_mlflow.bars.reader import read_bars
from moola_mlflow.core import BarsConfig
from moola_mlflow.features.zigzag import Hybrid
from moola_mlflow.windows.batches import CHUNK, BatchSource
from moola_mlflow.windows.windows import make_windows


@pytest.fixture(scope="module")
def computed() -> BatchSource:
    windows = make_windows(read_bars(BarsConfig(sample_bars=6_000)), stride=2)
    assert CHUNK < len(windows) < 2 * CHUNK
    return BatchSource(windows, "relativity11", Hybrid(), 20, torch.device("cpu"))


@pytest.mark.parametrize(("size", "first"), [(64, 0), (64, 7), (4096, 0)])
def test_batches_that_stay_on_the_device_are_those_that_are_computed_anew(
    computed: BatchSource, size: int, first: int
) -> None:
    order = np.random.default_rng(0).permutation(len(computed.windows))[:-100]
    pairs = zip(
        computed.batches(order, size, first), replace(computed, resident=True).batches(order, size, first), strict=True
    )
    seen = 0
    for own, held in pairs:
        assert torch.equal(own.x_BTF, held.x_BTF)
        assert torch.equal(own.prices_BT4, held.prices_BT4)
        assert np.array_equal(own.index, held.index)
        seen += len(own.index)
    assert seen == len(order) - first * size


def test_what_stays_on_the_device_is_computed_once(computed: BatchSource, monkeypatch: pytest.MonkeyPatch) -> None:
    held = replace(computed, resident=True)
    order = np.arange(200)
    (batch,) = held.batches(order, 200)
    monkeypatch.setattr("moola_mlflow.windows.batches.compute_inputs", None)
    (again,) = held.batches(order, 200)
    assert torch.equal(batch.x_BTF, again.x_BTF)
    with pytest.raises(TypeError):
        next(computed.batches(order, 200))
