"""The study of objectives: its second labeller, what it hides, and its command from end to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from paths import ROOT

sys.path.insert(0, str(ROOT))

from benchmarks.science.objectives.hidden_path import HiddenPath, path_channel
from benchmarks.science.objectives.rows import READERS, control
from benchmarks.science.objectives.second_labeller import apply_second_rule, second_labels
from benchmarks.science.objectives.summary import threshold
from benchmarks.science.objectives.variants import VARIANTS
from moola_mlflow.bars.reader import read_bars
from moola_mlflow.core import BarsConfig
from moola_mlflow.labels.surge_rule import CONSOLIDATION, NO_LABEL, NO_SURGE, RETRACEMENT, apply_rule
from moola_mlflow.models.encoders import build_encoder
from moola_mlflow.models.objectives.base import leak
from moola_mlflow.windows.batches import Batch


def ticks(seed: int, tick: float = 0.25) -> np.ndarray:
    """Windows of random prices on a tick grid, with a surge in all but three. Shapes: float64 [20, 105, 4]."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(-2, 3, (20, 105))
    at = rng.integers(15, 60, 20)
    for n, first in enumerate(at):
        steps[n, first : first + rng.integers(8, 15)] += 3 * rng.choice([-1, 1])
    steps[-3:] = np.arange(105) % 2 * 2 - 1  # up and down: no surge
    close = tick * (4000 / tick + np.cumsum(steps, axis=1))
    open_ = np.concatenate([close[:, :1], close[:, :-1]], axis=1)
    high = np.maximum(open_, close) + tick * rng.integers(0, 3, close.shape)
    low = np.minimum(open_, close) - tick * rng.integers(0, 3, close.shape)
    return np.stack([open_, high, low, close], axis=-1)


def same(first: tuple[np.ndarray, ...], second: tuple[np.ndarray, ...]) -> bool:
    there = first[0] != NO_SURGE
    return np.array_equal(first[0], second[0]) and all(
        np.array_equal(a[there], b[there]) for a, b in zip(first[1:], second[1:], strict=True)
    )


@given(seed=st.integers(0, 10_000), exponent=st.floats(-7, 7))
def test_the_scale_of_prices_changes_nothing_for_the_second_labeller(seed: int, exponent: float) -> None:
    assert same(apply_second_rule(ticks(seed)), apply_second_rule(ticks(seed) * 10.0**exponent))


@given(seed=st.integers(0, 10_000), axis=st.integers(3000, 5000))
def test_mirrored_prices_get_the_same_second_label_and_span(seed: int, axis: int) -> None:
    upside_down = 2.0 * axis - ticks(seed)[..., [0, 2, 1, 3]]
    assert same(apply_second_rule(ticks(seed)), apply_second_rule(upside_down))


def test_the_random_windows_show_every_second_outcome_and_spans_of_the_stated_lengths() -> None:
    outcome, start, end = apply_second_rule(np.concatenate([ticks(seed) for seed in range(20)]))
    assert set(outcome.tolist()) == {CONSOLIDATION, RETRACEMENT, NO_LABEL, NO_SURGE}
    there = outcome != NO_SURGE
    length = (end - start + 1)[there]
    assert (length.min(), length.max() <= 20, start[there].min() >= 15, end[there].max() <= 74) == (8, True, True, True)


def window(closes: list[float]) -> np.ndarray:
    close = np.array(closes)
    return np.stack([close] * 4, axis=-1)[None]


@pytest.mark.parametrize(("after", "expected"), [(15.9, RETRACEMENT), (30.1, NO_LABEL), (20.0, CONSOLIDATION)])
def test_the_close_that_comes_first_decides(after: float, expected: int) -> None:
    quiet = [0.1 * (i % 2) for i in range(40)]
    closes = [*quiet, *np.linspace(2, 20, 10), *[20.0 + 0.1 * (i % 2) for i in range(10)], after]
    closes += [20.0 + 0.1 * (i % 2) for i in range(105 - len(closes))]
    scale = [c if c != after else (20 - (20 - after) * 2.5 if expected != NO_LABEL else after) for c in closes]
    outcome, start, end = apply_second_rule(window(scale))
    assert (int(outcome[0]), int(start[0]), int(end[0])) == (expected, 40, 49)


def test_the_second_labeller_is_another_one_and_says_so() -> None:
    bars = read_bars(BarsConfig(sample_bars=20_000, sample_seed=101))
    labels = second_labels(bars, 40, seed=3)
    assert (labels.rule, labels.weak, len(labels)) == ("surge-2", True, 40)
    outcome, start, end = apply_rule(labels.ohlc)
    agrees = (outcome == labels.label) & (np.abs(start + end - labels.start - labels.end) <= 6)
    assert 0.1 < agrees.mean() < 0.9


@pytest.mark.parametrize("num_hidden", [3, 14])
def test_what_the_study_hides_stays_hidden(sample_prices: np.ndarray, num_hidden: int) -> None:
    prices = torch.from_numpy(sample_prices[:16])
    batch = Batch(torch.cat([torch.rand(16, 105, 11), path_channel(prices)], -1), prices, np.arange(16), 20)
    torch.manual_seed(0)
    encoder, objective = build_encoder("bilstm", 14, 4, 1, 0.0), HiddenPath(8, 14, num_hidden, (10, 20), 0.6)
    drawn = objective.draw(batch, torch.Generator().manual_seed(1))
    seen = objective.encoder_input(encoder, batch, drawn, torch.Generator().manual_seed(1))
    assert (seen[drawn][:, -num_hidden:] == objective.mask_token).all()
    assert drawn.sum() == 16 * round(0.6 * 85)
    changed = batch.x_BTF.clone()
    changed[..., -num_hidden:][drawn] += 1.0
    other = Batch(changed, prices, batch.index, 20)
    assert torch.equal(objective.encoder_input(encoder, other, drawn, torch.Generator().manual_seed(1)), seen)
    assert leak(objective, encoder, batch, lambda: torch.Generator().manual_seed(1)) == 0
    h = torch.randn(16, 105, 8, requires_grad=True)
    objective.errors(encoder, h, batch, drawn).huber().backward()
    assert h.grad is not None
    assert h.grad[~drawn].abs().sum() == 0


def test_the_threshold_lies_between_those_that_help_and_those_that_do_not() -> None:
    def row(name: str, gain: float, low: float) -> dict[str, object]:
        return {"reader": name, "labels": 174, "probe_gain": [gain], "joint against random": {"all": [low, low, 1.0]}}

    found = threshold([row("a", -0.05, -0.1), row("b", 0.02, -0.01), row("c", 0.1, 0.02), row("d", 0.2, 0.1)])
    assert (found["threshold"], found["margin"], found["wrong"]) == (pytest.approx(0.06), pytest.approx(0.04), [])
    found = threshold([row("a", 0.3, -0.1), row("b", 0.02, -0.01), row("c", 0.1, 0.02), row("d", 0.2, 0.1)])
    assert found["wrong"] == ["a"]


@pytest.mark.slow
def test_the_command_runs_and_its_results_hold_every_row(tmp_path: Path) -> None:
    out = tmp_path / "objectives.json"
    small = "--seeds 13 --label-seeds 101 --bars 11000 --hidden 2 --epochs 1 --head-epochs 1 --workers 2"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.science.objectives", *small.split(), "--out", str(out)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(out.read_text())
    assert {(row["reader"], row["labels"]) for row in report["rows"]} == {
        (r.name, n) for r in READERS for n in r.counts
    }
    assert {one["variant"] for one in report["encoders"]} == set(VARIANTS) >= {control(name) for name in VARIANTS}
    for row in report["rows"]:
        assert all(len(row["scores"][f"labeller {k}"]["joint_success_at_3"]) == 1 for k in (1, 2))
        assert f"| {row['reader']} |" in done.stdout
    assert set(report["machine"]) >= {"cores", "commit", "torch", "precision"}
