"""Feature statistics that stream over all windows equal those of holding all windows in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moola_mlflow.bars.reader import read_bars
from moola_mlflow.core import BarsConfig
from moola_mlflow.features.quality import quality_report
from moola_mlflow.features.zigzag import Hybrid
from moola_mlflow.windows import feature_stats as surveys
from moola_mlflow.windows.batches import BatchSource, fit_scaling
from moola_mlflow.windows.feature_stats import feature_statistics
from moola_mlflow.windows.windows import make_windows


def source_of(num_bars: int = 30_000) -> BatchSource:
    windows = make_windows(read_bars(BarsConfig(sample_bars=num_bars)))
    return BatchSource(windows, "relativity11", Hybrid(0, 0.5, False), 20, torch.device("cpu"))


def test_statistics_of_few_windows_equal_those_of_holding_them_bit_for_bit() -> None:
    source = source_of()
    order = np.arange(len(source.windows))
    features = source.features(order)
    seen = feature_statistics(source, order)
    assert seen.report(0.1) == quality_report(features, source.names, 20, 0.1)
    for one, other in zip(seen.scaling(), fit_scaling(features, 20), strict=True):
        assert torch.equal(one, other)


def test_statistics_of_many_windows_stream_to_the_same_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(150_000)
    order = np.arange(len(source.windows))
    whole = quality_report(source.features(order), source.names, 20, 0.1)
    monkeypatch.setattr(surveys, "SAMPLE", 1000)
    seen = feature_statistics(source, order)
    assert seen.features.shape[0] == 1000
    streamed = seen.report(0.1, whole)
    for name in ("num_windows", "num_steps", "num_valid_steps", "valid_share"):
        assert streamed[name] == whole[name]
    for one, other in zip(streamed["features"], whole["features"], strict=True):
        for name in ("nan", "nonzero", "at_lower", "at_upper", "min", "max"):
            assert one[name] == other[name], name
        for name in ("mean", "std"):
            assert one[name] == pytest.approx(other[name], rel=1e-6, abs=1e-9)
        for name in ("q05", "q50", "q95"):
            assert one[name] == pytest.approx(other[name], abs=0.1 * (other["upper"] - other["lower"]))
        assert one["psi"] < 0.05
    for one, other in zip(seen.scaling(), fit_scaling(source.features(order), 20), strict=True):
        assert torch.allclose(one, other, rtol=1e-5)


def test_statistics_of_many_windows_see_one_bad_value_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of()
    monkeypatch.setattr(surveys, "SAMPLE", 50)
    source.windows.bars.ohlc[17_500] = np.nan
    report = feature_statistics(source, np.arange(len(source.windows))).report(0.1)
    assert all(row["nan"] > 0 for row in report["features"][:6])
