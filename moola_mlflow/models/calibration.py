"""Temperature scaling: one number that makes a detector's confidence mean what it says."""

from __future__ import annotations

import numpy as np

from moola_mlflow.core import TrainingError

# A detector outside of this range is broken, not miscalibrated.
LOWEST, HIGHEST = 0.05, 20.0


def temperature(logits_NC: np.ndarray, label_N: np.ndarray) -> float:
    """Return the temperature T > 0 whose softmax(logits / T) has the least negative log likelihood.

    The targets are smoothed as if each window had one pseudo-window of every class beside N of its own: (N + 1) /
    (N + C) and 1 / (N + C). So windows that are all classified right ask for a confidence of about 1 - 1 / N, not for
    certainty; the effect vanishes with N. The likelihood is convex in 1 / T, so its slope has one zero, which
    bisection in log T finds. Logits that say nothing give 1.

    Shapes: logits float [N, C], label int [N].
    Raises: TrainingError where a logit is not finite.
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
        # The slope of the loss in 1 / T: positive means too confident.
        too_confident = (_softmax(z_NC, np.exp(middle)) * z_NC).sum() > wanted
        low, high = (middle, high) if too_confident else (low, middle)
    return float(np.exp((low + high) / 2))


def apply_temperature(logits_NC: np.ndarray, temperature: float) -> np.ndarray:
    """Return softmax(logits / temperature): same order of the classes, other confidence.

    Shapes: float [N, C] -> float64 [N, C], rows sum to 1.
    Raises: TrainingError where a logit is not finite; ValueError for a temperature that is not above 0.
    """
    if not 0 < temperature < np.inf:
        raise ValueError(f"temperature={temperature}; allowed: a finite number above 0")
    return _softmax(_shifted(logits_NC), temperature)


def _shifted(logits_NC: np.ndarray) -> np.ndarray:
    """Return float64 logits whose largest in each row is 0: nothing can overflow. Shapes: [N, C]."""
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
