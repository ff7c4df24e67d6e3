"""Turn masses of a map into probabilities that an event is right, and choose the threshold for a precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CLIP = 1e-6
STEPS = 50
LEAST_STEP = 1e-8
FEWEST = 10
"""Least number of events that a precision is counted from."""


@dataclass(frozen=True)
class ScoreCalibration:
    """Platt scaling: probability = sigmoid(slope * logit(mass) + offset).

    Raises: ValueError for a slope that is not above 0: it would reverse the order of events.
    """

    slope: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        if not (0 < self.slope < np.inf and np.isfinite(self.offset)):
            raise ValueError(f"calibration slope={self.slope}, offset={self.offset}; allowed: finite, slope above 0")

    @classmethod
    def of(cls, mass: np.ndarray, right: np.ndarray) -> ScoreCalibration:
        """Return the calibration of events, fitted by Newton steps. Targets are smoothed as Platt does.

        A weak penalty keeps the slope near 1. So few events, or events that are all right, give finite numbers. Without
        events, or if the fitted slope is not above 0, the calibration changes nothing.

        Shapes: mass float [E], 0 to 1; right bool [E].
        Source: J. Platt, Probabilistic Outputs for Support Vector Machines, 1999.
        """
        num_right, num = int(np.sum(right)), len(right)
        if num == 0:
            return cls()
        design = np.stack([_logit(mass), np.ones(num)], 1)
        target = np.where(right, (num_right + 1) / (num_right + 2), 1 / (num - num_right + 2))
        prior = ridge = np.array([1.0, 0.0])

        def loss(parameters: np.ndarray) -> float:
            z = design @ parameters
            return float(np.sum(np.logaddexp(0, z) - target * z) + ridge @ (parameters - prior) ** 2 / 2)

        found, now = prior.copy(), loss(prior)
        for _ in range(STEPS):
            p = _sigmoid(design @ found)
            weight = np.maximum(p * (1 - p), CLIP)
            gradient = design.T @ (target - p) - ridge * (found - prior)
            step = np.linalg.solve((design * weight[:, None]).T @ design + np.diag(ridge + 1e-9), gradient)
            # From scores that are far too sure, a whole Newton step leads further away.
            while (then := loss(found + step)) > now and np.abs(step).max() >= LEAST_STEP:
                step /= 2
            if np.abs(step).max() < LEAST_STEP:
                break
            found, now = found + step, then
        return cls(float(found[0]), float(found[1])) if found[0] > 0 else cls()

    def apply(self, mass: np.ndarray) -> np.ndarray:
        """Return the probability that each event is right. The order of events does not change."""
        return _sigmoid(self.slope * _logit(mass) + self.offset)


def threshold_for(probability: np.ndarray, right: np.ndarray, precision: float) -> float:
    """Return the lowest threshold at which the share of right events is ``precision`` or more.

    The share is the mean of two: the counted share, which is noisy with few events, and the mean probability. A
    threshold needs 10 or more events at or above it. If there is none, the threshold is ``precision`` itself.

    Shapes: calibrated probabilities float [E], right bool [E].
    """
    order = np.argsort(-probability, kind="stable")
    share = np.cumsum((right + probability)[order] / 2) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(share[FEWEST - 1 :] >= precision) + FEWEST - 1
    return float(probability[order][enough[-1]]) if len(enough) else precision


def _logit(mass: np.ndarray) -> np.ndarray:
    p = np.clip(np.asarray(mass, np.float64), CLIP, 1 - CLIP)
    return np.log(p / (1 - p))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
