"""Temperature scaling: one number that brings a detector's confidence in line with its accuracy."""

from __future__ import annotations

import numpy as np

from moola_mlflow.core import TrainingError

# A detector that needs a temperature outside of this range is broken, not miscalibrated.
LOWEST, HIGHEST = 0.05, 20.0


def temperature(logits_NC: np.ndarray, label_N: np.ndarray) -> float:
    """Return the temperature T > 0 whose softmax(logits / T) has the least negative log-likelihood.

    The targets are smoothed: (N + 1) / (N + C) for the true class and 1 / (N + C) for the others. So windows that are
    all classified right lead to a confidence of about 1 - 1 / N and not to certainty; the effect vanishes as N grows.
    The likelihood is convex in 1 / T, so its slope has one zero, which bisection in log T finds. Equal logits give 1.

    Shapes: logits float [N, C], label int [N].
    Raises: TrainingError if a logit is not finite.
    Source: C. Guo et al., On Calibration of Modern Neural Networks, 2017; the smoothing: J. Platt, Probabilistic
    Outputs for Support Vector Machines, 1999.
    """
    z_NC = _shifted(logits_NC)
    num, num_classes = z_NC.shape
    if num == 0 or not z_NC.any():
        return 1.0
    target_NC = np.full(z_NC.shape, 1 / (num + num_classes))
    target_NC[np.arange(num), label_N] = (num + 1) / (num + num_classes)
    wanted = (target_NC * z_NC).sum()
    low, high = np.log(LOWEST), np.log(HIGHEST)
    for _ in range(60):
        middle = (low + high) / 2
        # A positive slope of the loss in 1 / T means too confident.
        too_confident = (_softmax(z_NC, np.exp(middle)) * z_NC).sum() > wanted
        low, high = (middle, high) if too_confident else (low, middle)
    return float(np.exp((low + high) / 2))


def apply_temperature(logits_NC: np.ndarray, temperature: float) -> np.ndarray:
    """Return softmax(logits / temperature): the classes keep their order, their probabilities change.

    Shapes: float [N, C] -> float64 [N, C], rows sum to 1.
    Raises: TrainingError if a logit is not finite; ValueError for a temperature that is not above 0.
    """
    if not 0 < temperature < np.inf:
        raise ValueError(f"temperature={temperature}; allowed: a finite number above 0")
    return _softmax(_shifted(logits_NC), temperature)


def _shifted(logits_NC: np.ndarray) -> np.ndarray:
    """Return float64 logits with a largest value of 0 in each row, so that nothing overflows. Shapes: [N, C]."""
    z_NC = np.asarray(logits_NC, np.float64)
    bad = int((~np.isfinite(z_NC)).any(1).sum())
    if bad:
        raise TrainingError(
            f"{bad} of {len(z_NC)} windows have class logits that are not finite; lower optimizer.lr or "
            "trainer.clip_norm"
        )
    return z_NC - z_NC.max(1, keepdims=True)


def _softmax(z_NC: np.ndarray, temperature: float) -> np.ndarray:
    odds_NC = np.exp(z_NC / temperature)
    return odds_NC / odds_NC.sum(1, keepdims=True)
