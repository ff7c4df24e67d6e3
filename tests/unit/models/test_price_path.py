"""The path objective: its targets against a plain definition, and what is missing at the window's ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moola_mlflow.core import ObjectiveConfig
from moola_mlflow.models.encoders import build_encoder
from moola_mlflow.models.objectives.base import leak
from moola_mlflow.models.objectives.masked import Masked
from moola_mlflow.models.objectives.price_path import TARGETS, PricePath, path_targets
from moola_mlflow.windows.batches import Batch


class NoDoubles(torch.Tensor):
    """A tensor as on Apple's MPS: whatever is made of it must not be float64 until it is on the CPU."""

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        out = super().__torch_function__(func, types, args, kwargs or {})
        if func is torch.Tensor.cpu:
            with torch._C.DisableTorchFunctionSubclass():
                return out.as_subclass(torch.Tensor)
        if isinstance(out, torch.Tensor) and out.dtype == torch.float64:
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
            )
        return out


def on_mps(batch: Batch) -> Batch:
    """Return a batch as it is there: prices are float32 too."""
    x_BTF, prices_BT4 = (x.float().as_subclass(NoDoubles) for x in (batch.x_BTF, batch.prices_BT4))
    return Batch(x_BTF, prices_BT4, batch.index, batch.warmup)


def random_window(seed: int, num_steps: int = 60, tick: float = 0.25) -> np.ndarray:
    rng = np.random.default_rng(seed)
    close = 100 + tick * np.cumsum(rng.integers(-3, 4, num_steps))
    open_ = np.concatenate([close[:1], close[:-1]])
    high = np.maximum(open_, close) + tick * rng.integers(0, 3, num_steps)
    low = np.minimum(open_, close) - tick * rng.integers(0, 3, num_steps)
    return np.stack([open_, high, low, close], axis=1)


def plain_targets(window: np.ndarray, t: int) -> list[float]:
    """The ten targets at one step, or NaN, straight from their definition."""
    _, high, low, close = window.T
    r = float(np.median(high - low)) or float(np.mean(high - low)) or math.nan
    last = len(close) - 1
    out = [(close[t] - close[t - k]) / (r * math.sqrt(k)) if t >= k else math.nan for k in (5, 10, 20)]
    out += [(close[t + k] - close[t]) / (r * math.sqrt(k)) if t + k <= last else math.nan for k in (5, 10, 20)]
    past, following = slice(t - 19, t + 1), slice(t + 1, t + 21)
    for part, there in ((past, t >= 19), (following, t + 20 <= last)):
        out += [(high[part].max() - close[t]) / (4.5 * r) if there else math.nan]
        out += [(low[part].min() - close[t]) / (4.5 * r) if there else math.nan]
    return out


@given(seed=st.integers(0, 10_000), num_steps=st.sampled_from([1, 5, 20, 21, 60, 105]))
def test_targets_equal_their_plain_definition(seed: int, num_steps: int) -> None:
    window = random_window(seed, num_steps)
    found = path_targets(torch.from_numpy(window)[None])[0].numpy()
    expected = np.array([plain_targets(window, t) for t in range(num_steps)])
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@given(seed=st.integers(0, 10_000), factor=st.floats(1e-4, 1e4), shift=st.floats(-1e3, 1e3))
def test_targets_do_not_depend_on_the_price_scale_or_level(seed: int, factor: float, shift: float) -> None:
    window = torch.from_numpy(random_window(seed))[None]
    torch.testing.assert_close(
        path_targets(window * factor + shift), path_targets(window), rtol=1e-6, atol=1e-6, equal_nan=True
    )


def test_mirrored_prices_mirror_the_targets() -> None:
    window = random_window(3)
    mirrored = -window[:, [0, 2, 1, 3]]
    plain, other = (path_targets(torch.from_numpy(w)[None])[0] for w in (window, mirrored))
    swapped = list(range(len(TARGETS)))
    for side, opposite in (("high", "low"), ("low", "high")):
        for when in ("past", "next"):
            swapped[TARGETS.index(f"{side}_{when}_20")] = TARGETS.index(f"{opposite}_{when}_20")
    torch.testing.assert_close(other[:, swapped], -plain, equal_nan=True)


def test_a_window_without_any_range_has_no_targets_and_a_median_of_zero_falls_back_on_the_mean() -> None:
    flat = np.full((40, 4), 7.0)
    assert path_targets(torch.from_numpy(flat)[None]).isnan().all()
    flat[3, 1] = 9.0  # one bar with a range: the median is 0, the mean is 2 / 40
    found = path_targets(torch.from_numpy(flat)[None])[0, 19]
    assert float(found[TARGETS.index("high_past_20")]) == pytest.approx(2 / (4.5 * 2 / 40))


def test_targets_are_scored_on_the_training_scale_and_clipped() -> None:
    objective = PricePath(4)
    prices = torch.from_numpy(np.stack([random_window(seed, 105) for seed in range(50)]))
    batch = Batch(torch.zeros(50, 105, 3), prices, np.arange(50), 20)
    objective.fit_targets([batch])
    z_BTK, there_BTK = objective._targets(batch)
    for k in range(len(TARGETS)):
        z = z_BTK[..., k][there_BTK[..., k]]
        assert float(z.mean()) == pytest.approx(0, abs=0.02)
        assert float(z.std()) == pytest.approx(1, abs=0.02)
    assert not there_BTK[:, :20].any()
    objective.std.fill_(1e-3)
    assert float(objective._targets(batch)[0].abs().max()) == 6.0


def test_a_device_without_doubles_fits_targets_and_looks_for_leaks() -> None:
    prices = torch.from_numpy(np.stack([random_window(seed, 105) for seed in range(8)]))
    batch = Batch(torch.randn(8, 105, 3), prices, np.arange(8), 20)
    there = on_mps(batch)
    with pytest.raises(TypeError, match="float64"):
        there.prices_BT4.double()
    objective, other = PricePath(4), PricePath(4)
    objective.fit_targets([there])
    other.fit_targets([batch])
    torch.testing.assert_close(objective.mean, other.mean, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(objective.std, other.std, rtol=1e-3, atol=1e-3)
    encoder = build_encoder("bilstm", 3, 2, 1, 0.0)
    for hide, leaks in ((True, False), (False, True)):
        masked = Masked(("a", "b", "c"), encoder.output_size, ObjectiveConfig(hide_masked=hide))
        assert (leak(masked, encoder, there, lambda: torch.Generator().manual_seed(0)) > 0) == leaks
