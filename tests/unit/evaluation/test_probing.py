"""The label-free probe: its targets against a plain definition, and its word on encoders we know everything about."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from moola_mlflow.bars.reader import read_bars
from moola_mlflow.core import BarsConfig, SplitConfig
from moola_mlflow.evaluation.probing import GROUPS, IS_PATH, NAMES, frozen_copy, probe, probe_targets
from moola_mlflow.features.zigzag import Hybrid
from moola_mlflow.models.encoders import build_encoder
from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.windows.batches import BatchSource
from moola_mlflow.windows.splits import split_by_time
from moola_mlflow.windows.windows import make_windows
from tests.unit.models.test_price_path import on_mps


def plain_targets(window: np.ndarray, t: int) -> dict[str, float]:
    """Every probed quantity at one step, or NaN, straight from its definition."""
    _, high, low, close = window.T
    r = float(np.median(high - low)) or float(np.mean(high - low)) or math.nan
    out = {}
    for k in (8, 16):
        for when, bars in (("past", range(t - k + 1, t + 1)), ("next", range(t + 1, t + k + 1))):
            inside = bars[0] >= 0 and bars[-1] < len(close)
            steps = inside and bars[0] >= 1
            h, lo = (high[list(bars)], low[list(bars)]) if inside else (np.full(k, math.nan),) * 2
            moves = [abs(close[i] - close[i - 1]) for i in bars] if steps else [math.nan]
            out[f"volatility_{when}_{k}"] = float(np.mean(moves)) / r
            out[f"place_high_{when}_{k}"] = int(np.argmax(h)) / (k - 1) + 0 * r if inside else math.nan
            out[f"place_low_{when}_{k}"] = int(np.argmin(lo)) / (k - 1) + 0 * r if inside else math.nan
            net = close[t] - close[t - k] if when == "past" and t >= k else math.nan
            net = close[t + k] - close[t] if when == "next" and inside else net
            out[f"net_{when}_{k}"] = net / (r * math.sqrt(k))
            out[f"high_{when}_{k}"] = (h.max() - close[t]) / r
            out[f"low_{when}_{k}"] = (lo.min() - close[t]) / r
    return out


@given(seed=st.integers(0, 10_000))
def test_targets_equal_their_plain_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    close = 100 + 0.25 * np.cumsum(rng.integers(-2, 3, 45))
    open_ = np.concatenate([close[:1], close[:-1]])
    high, low = np.maximum(open_, close) + 0.25 * rng.integers(0, 2, 45), np.minimum(open_, close)
    window = np.stack([open_, high, low, close], 1)
    found = probe_targets(torch.from_numpy(window)[None])[0].numpy()
    expected = [[plain_targets(window, t)[name] for name in NAMES] for t in range(45)]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_a_window_that_never_moves_has_no_targets() -> None:
    assert probe_targets(torch.full((1, 40, 4), 5.0, dtype=torch.float64)).isnan().all()


def test_every_target_stands_in_one_group_and_half_of_them_are_path() -> None:
    assert sorted(torch.cat(list(GROUPS.values())).tolist()) == list(range(len(NAMES)))
    assert int(IS_PATH.sum()) == len(NAMES) // 2 == 12


@pytest.fixture(scope="module")
def source() -> BatchSource:
    windows = make_windows(read_bars(BarsConfig(sample_bars=16_000)))
    return BatchSource(windows, "relativity11", Hybrid(), 20, torch.device("cpu"))


class Oracle(Encoder):
    """Returns the probed quantities themselves, found by the window's features."""

    output_size = len(NAMES)

    def __init__(self, source: BatchSource) -> None:
        super().__init__(11)
        order = np.arange(len(source.windows))
        prices = torch.from_numpy(source.windows.gather(order))
        answers = probe_targets(prices).nan_to_num().float()
        self.answers = {
            x.numpy().tobytes(): y for x, y in zip(torch.from_numpy(source.features(order)), answers, strict=True)
        }

    def encode(self, z_BTF: Tensor) -> Tensor:
        return torch.stack([self.answers[x.numpy().tobytes()] for x in z_BTF])


class Noise(Encoder):
    """Returns numbers that have nothing to do with the input."""

    output_size = 8

    def encode(self, z_BTF: Tensor) -> Tensor:
        return torch.randn(*z_BTF.shape[:2], 8, generator=torch.Generator().manual_seed(len(z_BTF)))


def test_an_encoder_that_knows_everything_scores_one_and_one_that_knows_nothing_zero(source: BatchSource) -> None:
    scores = probe(Oracle(source), Noise(11), source, split_by_time(source.windows, SplitConfig()))
    assert scores.r2 == pytest.approx(1, abs=0.02)
    assert scores.r2_path == pytest.approx(1, abs=0.02)
    assert scores.r2_random == pytest.approx(0, abs=0.02)
    assert 0 < scores.r2_inputs < 1
    assert scores.gain == scores.r2 - scores.r2_random


def test_a_network_compared_with_itself_gains_nothing(source: BatchSource) -> None:
    torch.manual_seed(0)
    encoder = build_encoder("bilstm", 11, 8, 2, 0.5).train()
    scores = probe(encoder, frozen_copy(encoder), source, split_by_time(source.windows, SplitConfig()))
    assert scores.gain == 0


def test_a_device_without_doubles_is_probed_to_the_same_scores(
    source: BatchSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    encoder, split = build_encoder("bilstm", 11, 4, 1, 0.0), split_by_time(source.windows, SplitConfig())
    expected = probe(encoder, frozen_copy(encoder), source, split)
    batches = BatchSource.batches
    monkeypatch.setattr(BatchSource, "batches", lambda self, *args: map(on_mps, batches(self, *args)))
    found = probe(encoder, frozen_copy(encoder), source, split)
    assert list(found.metrics().values()) == pytest.approx(list(expected.metrics().values()), abs=1e-3)
