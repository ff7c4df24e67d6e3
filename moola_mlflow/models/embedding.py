"""From raw OHLC windows to embeddings: the code that pre-training, fine-tuning and serving share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moola_mlflow.core import UserError
from moola_mlflow.features import Hybrid, compute_inputs
from moola_mlflow.models.encoders.base import Encoder

POOLS = ("mean", "last", "none")
CHUNK = 1024


def check_windows(ohlc_NT4: np.ndarray, length: int) -> np.ndarray:
    """Return windows as float64 [N, length, 4].

    Raises: UserError that names the shape, or the first window and step that is not a bar.
    """
    try:
        ohlc = np.asarray(ohlc_NT4, dtype=np.float64)
    except (TypeError, ValueError) as e:
        raise UserError(f"windows must be numbers of shape [N, {length}, 4] (open, high, low, close): {e}") from None
    if ohlc.ndim != 3 or ohlc.shape[1:] != (length, 4):
        raise UserError(f"windows have shape {ohlc.shape}; allowed: [N, {length}, 4] (open, high, low, close)")
    o, h, l, c = np.moveaxis(ohlc, -1, 0)  # noqa: E741
    bad = ~np.isfinite(ohlc).all(-1) | (h < np.maximum(o, c)) | (l > np.minimum(o, c))
    if bad.any():
        window, step = (int(i) for i in np.argwhere(bad)[0])
        raise UserError(
            f"window {window}, step {step} is not a bar: open, high, low, close = {ohlc[window, step].tolist()}; "
            "prices must be finite, high at least and low at most open and close"
        )
    return ohlc


def encoder_inputs(card: Mapping[str, Any], ohlc_NT4: np.ndarray) -> np.ndarray:
    """Return what an encoder reads of raw windows, as its card says. Shapes: [N, T, 4] -> float32 [N, T, P]."""
    spec = card["features"]
    # Encoders of earlier versions do not say: they read the features.
    inputs = card["architecture"].get("inputs", "features")
    return compute_inputs(ohlc_NT4, spec["set"], Hybrid(**spec["hybrid"]), inputs)


@torch.no_grad()
def embed(encoder: Encoder, ohlc_NT4: np.ndarray, pool: str = "mean") -> Tensor:
    """Return the encoder's embedding of raw OHLC windows.

    Parameters
    ----------
    encoder
        An encoder with a card, such as ``load_encoder`` returns.
    ohlc_NT4
        Open, high, low and close of N windows of T bars. Shapes: float [N, T, 4].
    pool
        ``mean`` over the steps of a window, its ``last`` step, or ``none`` for all steps.

    Returns
    -------
    torch.Tensor
        Shapes: [N, D] for pool ``mean`` or ``last``, [N, T, D] for ``none``.

    Raises
    ------
    UserError
        For malformed windows or an unknown pool.

    Examples
    --------
    >>> from moola_mlflow import BarsConfig, make_windows, read_bars
    >>> from moola_mlflow.core import TrainingKeys
    >>> from moola_mlflow.models import build_encoder, describe_encoder
    >>> encoder = build_encoder("bilstm", num_features=11, hidden=4, layers=1, dropout=0.0)
    >>> encoder.card = describe_encoder(TrainingKeys(), encoder)
    >>> windows = make_windows(read_bars(BarsConfig(sample_bars=2000)))
    >>> embed(encoder, windows.gather([0, 1])).shape
    torch.Size([2, 8])
    """
    if pool not in POOLS:
        raise UserError(f"pool={pool!r}; allowed: {', '.join(POOLS)}")
    ohlc = check_windows(ohlc_NT4, encoder.card["window"]["length"])
    was_training, device = encoder.training, encoder.mean.device
    encoder.eval()
    parts = []
    for lo in range(0, len(ohlc), CHUNK):
        x_BTF = encoder_inputs(encoder.card, ohlc[lo : lo + CHUNK])
        h_BTD = encoder(torch.from_numpy(x_BTF).to(device)).float()
        parts.append(h_BTD.mean(1) if pool == "mean" else h_BTD[:, -1] if pool == "last" else h_BTD)
    encoder.train(was_training)
    empty = (0, encoder.output_size) if pool != "none" else (0, ohlc.shape[1], encoder.output_size)
    return torch.cat(parts) if parts else torch.zeros(empty)
