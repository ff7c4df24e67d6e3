"""Windows that nobody looked at, drawn from bars, for an event detector to learn from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moola_mlflow.bars import Bars
from moola_mlflow.core import FinetuneKeys, UserError, mixed_seed
from moola_mlflow.labels import EventLabels, shares_bars
from moola_mlflow.models import Unlabelled
from moola_mlflow.windows import Windows, make_windows

DRAW = 61
FEWEST = 50
SELF_TRAINING, POSITIVES = "self-training", "positive-unlabelled"


@dataclass(frozen=True)
class UnlabelledWindows:
    """Windows without labels, and the step that they serve."""

    windows: Unlabelled
    bars_path: str
    bars_sha256: str

    @property
    def step(self) -> str:
        """``positive-unlabelled`` if the labels hold no window without an event, otherwise ``self-training``."""
        return SELF_TRAINING if self.windows.base_rate is None else POSITIVES

    def said(self) -> str:
        """Return in one sentence which windows are used, for what, and which base rate is assumed."""
        num = f"{len(self.windows.ohlc):,} windows of {self.bars_path} that nobody looked at"
        if self.windows.base_rate is None:
            return f"{num} serve for self-training; the labels say which windows hold no event."
        return (
            f"{num} serve for positive-unlabelled learning, because no window is labelled none. Assumed: "
            f"{self.windows.base_rate:.0%} of windows hold an event (finetune.base_rate). Scores and threshold depend "
            "on it, and labels do not calibrate them."
        )

    def described(self) -> dict[str, object]:
        """Return what the detector's card says of them."""
        return {
            "step": self.step,
            "num": len(self.windows.ohlc),
            "base_rate": self.windows.base_rate,
            "bars": self.bars_path,
            "bars_sha256": self.bars_sha256,
        }


def draw_unlabelled(bars: Bars, labels: EventLabels, config: FinetuneKeys) -> UnlabelledWindows:
    """Draw windows that share no bar with each other, nor a minute with a labelled window.

    If labels have no times, windows that share a run of 10 bars with one are left out.

    Raises: UserError if there are fewer than 50, or if labels of a file would get sample bars.
    """
    if config.bars.path == "sample" and labels.path != "sample":
        raise UserError(
            "finetune.unlabelled=bars needs bars of the market of the labelled windows, and bars is not set; give "
            "--bars FILE"
        )
    length = labels.ohlc.shape[1]
    windows = make_windows(bars, length, length, config.bars.max_gap_minutes)
    free = np.flatnonzero(~_overlaps(windows, labels))
    if len(free) < FEWEST:
        raise UserError(
            f"bars='{config.bars.path}' hold {len(free)} windows of {length} bars that share no minute with labels; "
            f"finetune.unlabelled=bars needs {FEWEST} or more: give more bars"
        )
    rng = np.random.default_rng(mixed_seed(config.trainer.seed, DRAW))
    drawn = np.sort(rng.permutation(free)[: config.finetune.unlabelled_windows])
    rate = config.finetune.base_rate if (labels.events_per_window() > 0).all() else None
    return UnlabelledWindows(Unlabelled(windows.gather(drawn), rate), config.bars.path, bars.sha256)


def _overlaps(windows: Windows, labels: EventLabels) -> np.ndarray:
    """Return whether a window shares a minute with a labelled one, or bars if no times are known. Shapes: bool [N].

    Two sample series share no bar, although their times are the same.
    """
    sample = "sample" in (labels.path, str(windows.bars.files[0].path))
    other_series = sample and bool(labels.bars_sha256) and labels.bars_sha256 != windows.bars.sha256
    if other_series:
        return np.zeros(len(windows), bool)
    if labels.start_ns is None or labels.end_ns is None:
        return shares_bars(windows.gather(np.arange(len(windows))), labels.ohlc)
    order = np.argsort(labels.start_ns, kind="stable")
    start, end = labels.start_ns[order], np.maximum.accumulate(labels.end_ns[order])
    # The labelled windows that begin before a window ends: does any of them end after it begins?
    before = np.searchsorted(start, windows.end_ns, side="right")
    return (before > 0) & (end[np.maximum(before - 1, 0)] >= windows.start_ns)
