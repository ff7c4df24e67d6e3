"""The baselines of an objective's skill: each equals its plain definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moola_mlflow.models.objectives.baselines import Ridge, interpolate, last_visible, neighbours, window_around


def scalar_baselines(z: np.ndarray, mask: np.ndarray, t: int) -> tuple[float, float]:
    """Last visible value and linear interpolation at one hidden step, written plainly."""
    before = [i for i in range(t) if not mask[i]]
    after = [i for i in range(t + 1, len(z)) if not mask[i]]
    last = z[before[-1]] if before else 0.0
    if before and after:
        i, j = before[-1], after[0]
        line = z[i] + (z[j] - z[i]) * (t - i) / (j - i)
    else:
        line = z[before[-1]] if before else z[after[0]] if after else np.nan
    return last, line


@given(seed=st.integers(0, 10_000), share=st.floats(0.05, 0.95))
def test_simple_baselines_equal_their_plain_definition(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    z, mask = rng.normal(size=30), rng.random(30) < share
    mask[rng.integers(30)] = False
    z_BTF, mask_BT = torch.from_numpy(z).reshape(1, 30, 1), torch.from_numpy(mask).reshape(1, 30)
    last, line = last_visible(z_BTF, mask_BT)[0, :, 0], interpolate(z_BTF, mask_BT)[0, :, 0]
    for t in np.flatnonzero(mask):
        expected = scalar_baselines(z, mask, t)
        assert (float(last[t]), float(line[t])) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@given(seed=st.integers(0, 10_000), share=st.floats(0.0, 1.0))
def test_neighbours_are_the_five_nearest_visible_steps_each_side(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    z, mask = rng.normal(size=(2, 25, 2)), rng.random((2, 25)) < share
    found = neighbours(torch.from_numpy(z), torch.from_numpy(mask)).numpy()
    expected = []
    for b, t in np.argwhere(mask):
        before = [i for i in range(t) if not mask[b, i]][-5:]
        after = [i for i in range(t + 1, 25) if not mask[b, i]][:5]
        left = [np.zeros(2)] * (5 - len(before)) + [z[b, i] for i in before]
        right = [z[b, i] for i in after] + [np.zeros(2)] * (5 - len(after))
        expected.append(np.concatenate([*left, *right]))
    np.testing.assert_allclose(found, np.reshape(expected, (len(expected), 20)))


def test_ridge_equals_least_squares_and_ignores_how_observations_arrive() -> None:
    rng = np.random.default_rng(0)
    x, weights = torch.from_numpy(rng.normal(size=(5000, 6))), torch.from_numpy(rng.normal(size=(6, 2)))
    y = x @ weights + 3.0
    one, many = Ridge(), Ridge()
    one.add(x, y)
    for part in torch.arange(5000).split(700):
        many.add(x[part], y[part])
    one.solve(), many.solve()
    torch.testing.assert_close(one.predict(x), y, atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(one.predict(x), many.predict(x))


def test_the_baselines_input_is_the_step_and_its_five_neighbours_each_side() -> None:
    z = torch.arange(1.0, 41.0).reshape(1, 20, 2)
    around = window_around(z).reshape(20, 2, 11)
    assert around[10].tolist() == z[0, 5:16].T.tolist()
    assert around[0, :, :5].abs().sum() == 0
    assert around[0, :, 5:].tolist() == z[0, 0:6].T.tolist()
