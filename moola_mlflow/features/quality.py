"""Feature quality: report what the features of a run look like, and refuse features that no model can learn from.

A **valid** step lies after the warm-up and is finite in every feature. Shapes: N windows, T bars, F features,
P steps after the warm-up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moola_mlflow.core import Metrics, UserError
from moola_mlflow.features.relativity import feature_bounds

MIN_NONZERO = 0.05
"""A feature that is 0 nearly everywhere is a constant for the encoder, or the bars are broken."""
MAX_FLIP_RATE = 0.34
"""A zigzag that flips more often than every third bar only repeats the last bar's direction."""
MAX_PSI = 0.25
"""A population stability index above this is commonly read as another population."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
PSI_BINS = 10
PSI_FLOOR = 1e-4
"""Smallest share of a bin: an empty bin then gives a large figure, not an infinite one."""


def quality_report(
    features_NTF: NDArray[np.float32],
    names: Sequence[str],
    warmup: int,
    swing_flip_rate: float,
    reference: Mapping[str, Any] | None = None,
    tally: Tally | None = None,
) -> dict[str, Any]:
    """Return the quality report: figures of each feature over the valid steps, as plain JSON types.

    - ``nan`` is a share of the steps after the warm-up, ``valid_share`` a share of all steps. Every other share is of
      the finite steps after the warm-up.
    - ``reference`` is the report of the data that an encoder was trained on. Features in both reports get ``psi``,
      see :func:`psi`.
    - With ``tally``, the features are a sample of the windows that the tally has seen. Quantiles, histogram and drift
      then come from the sample, all other figures from the tally.

    Shapes: features [N, T, F], with F names.
    Units: raw feature units, shares in 0..1.
    Raises: UserError if no step is left after the warm-up.
    """
    if len(names) != features_NTF.shape[2]:
        raise UserError(f"quality: {len(names)} feature names for {features_NTF.shape[2]} features")
    steps_PF = features_NTF[:, warmup:].reshape(-1, len(names))
    if len(steps_PF) == 0:
        raise UserError(
            f"quality: no step is left: {features_NTF.shape[0]} windows of {features_NTF.shape[1]} bars with a warm-up "
            f"of {warmup}. Give more bars or lower windows.warmup"
        )
    earlier = {row["name"]: row for row in reference["features"]} if reference else {}
    rows = [
        _row(name, steps_PF[:, f], bounds, earlier.get(name))
        for f, (name, bounds) in enumerate(zip(names, feature_bounds(names).tolist(), strict=True))
    ]
    num_valid = int(np.isfinite(steps_PF).all(axis=1).sum())
    report = {
        "num_windows": int(features_NTF.shape[0]),
        "num_steps": int(features_NTF.shape[0] * features_NTF.shape[1]),
        "num_valid_steps": num_valid,
        "valid_share": num_valid / (features_NTF.shape[0] * features_NTF.shape[1]),
        "warmup": int(warmup),
        "swing_flip_rate": float(swing_flip_rate),
        "features": rows,
    }
    if tally is not None:
        tally.correct(report)
    report["warnings"] = _warnings(report)
    return report


class Tally:
    """Running figures of features that arrive part by part. Shapes: every array [F]."""

    def __init__(self, names: Sequence[str], warmup: int) -> None:
        self.warmup, self.num_windows, self.num_steps, self.num_valid = warmup, 0, 0, 0
        self.lower, self.upper = feature_bounds(names).T
        self.num_past, shape = 0, len(names)
        self.count, self.nonzero, self.at_lower, self.at_upper = (np.zeros(shape, np.int64) for _ in range(4))
        self.mean, self.square = np.zeros(shape), np.zeros(shape)
        self.min, self.max = np.full(shape, np.inf), np.full(shape, -np.inf)

    def add(self, features_NTF: NDArray[np.float32]) -> None:
        """Add some windows to the figures. Shapes: [N, T, F]."""
        steps_PF = features_NTF[:, self.warmup :].reshape(-1, features_NTF.shape[2]).astype(np.float64)
        there_PF = np.isfinite(steps_PF)
        self.num_windows += features_NTF.shape[0]
        self.num_steps += features_NTF.shape[0] * features_NTF.shape[1]
        self.num_valid += int(there_PF.all(axis=1).sum())
        self.num_past += len(steps_PF)
        count = there_PF.sum(axis=0)
        values_PF = steps_PF if there_PF.all() else np.where(there_PF, steps_PF, 0.0)
        self.nonzero += np.count_nonzero(values_PF, axis=0)
        self.at_lower += (there_PF & (values_PF <= self.lower)).sum(axis=0)
        self.at_upper += (there_PF & (values_PF >= self.upper)).sum(axis=0)
        self.min = np.minimum(self.min, np.where(there_PF, steps_PF, np.inf).min(axis=0, initial=np.inf))
        self.max = np.maximum(self.max, np.where(there_PF, steps_PF, -np.inf).max(axis=0, initial=-np.inf))
        # Joined as Chan, Golub and LeVeque do: plain sums of squares would lose digits.
        mean = values_PF.sum(axis=0) / np.maximum(count, 1)
        square = np.where(there_PF, np.square(steps_PF - mean), 0.0).sum(axis=0)
        total = np.maximum(self.count + count, 1)
        step = mean - self.mean
        self.square += square + step**2 * self.count * count / total
        self.mean += step * count / total
        self.count += count

    def mean_and_std(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return mean and standard deviation of each feature. Shapes: [F], [F]."""
        return self.mean.copy(), np.sqrt(self.square / np.maximum(self.count, 1))

    def correct(self, report: dict[str, Any]) -> None:
        """Replace a sample's figures in a report by these."""
        mean, std = self.mean_and_std()
        report.update(
            num_windows=self.num_windows,
            num_steps=self.num_steps,
            num_valid_steps=self.num_valid,
            valid_share=self.num_valid / self.num_steps,
            quantiles_from_windows=report["num_windows"],
        )
        for f, row in enumerate(report["features"]):
            row["nan"] = float(1 - self.count[f] / self.num_past)
            if self.count[f]:
                shares = {
                    name: float(getattr(self, name)[f] / self.count[f]) for name in ("nonzero", "at_lower", "at_upper")
                }
                row.update(
                    shares, mean=float(mean[f]), std=float(std[f]), min=float(self.min[f]), max=float(self.max[f])
                )


def _row(name: str, steps_P: NDArray[np.float32], bounds: list[float], earlier: Any) -> dict[str, Any]:
    lower, upper = bounds
    # Sorting float32 takes half the time of sorting float64. Adding 0.0 turns -0.0 into 0.0.
    values_P = np.sort(steps_P[np.isfinite(steps_P)]).astype(np.float64) + 0.0
    row: dict[str, Any] = {
        "name": name,
        "lower": lower,
        "upper": upper,
        "nan": 1 - len(values_P) / len(steps_P),
        "nonzero": 0.0,
        "at_lower": 0.0,
        "at_upper": 0.0,
        **dict.fromkeys(["mean", "std", "min", "max", *(f"q{100 * q:02.0f}" for q in QUANTILES)]),
    }
    if len(values_P) == 0:
        return row
    row["nonzero"] = float(np.count_nonzero(values_P) / len(values_P))
    row["at_lower"] = float(np.mean(values_P <= lower))
    row["at_upper"] = float(np.mean(values_P >= upper))
    row.update(mean=float(values_P.mean()), std=float(values_P.std()), min=float(values_P[0]), max=float(values_P[-1]))
    row.update({f"q{100 * q:02.0f}": float(_quantile(values_P, np.array(q))) for q in QUANTILES})
    edges = np.unique(_quantile(values_P, np.arange(1, PSI_BINS) / PSI_BINS))
    row["histogram"] = {"edges": edges.tolist(), "shares": _shares(values_P, edges).tolist()}
    if earlier and "histogram" in earlier:
        edges = np.array(earlier["histogram"]["edges"])
        row["psi"] = psi(np.array(earlier["histogram"]["shares"]), _shares(values_P, edges))
    return row


def _quantile(sorted_P: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return quantiles with linear interpolation. numpy.quantile gives the same and would sort again."""
    place = q * (len(sorted_P) - 1)
    below = place.astype(np.int64)
    above = np.minimum(below + 1, len(sorted_P) - 1)
    return sorted_P[below] + (sorted_P[above] - sorted_P[below]) * (place - below)


def _shares(sorted_P: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    below = np.searchsorted(sorted_P, edges, side="right")
    return np.diff(below, prepend=0, append=len(sorted_P)) / len(sorted_P)


def psi(expected: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    """Return the population stability index of two histograms over the same bins.

    It is the sum over bins of (found - expected) * ln(found / expected), with each share at least 0.0001. The bins are
    cut at the nine deciles of the reference's valid steps: (-inf, d1], (d1, d2] ... (d9, inf). Equal deciles (a feature
    that is often exactly 0) give one cut, so there may be fewer than ten bins. Below 0.1 is commonly read as the same
    population, above 0.25 as another one.

    Shapes: [bins] each. Units: shares in 0..1.
    """
    expected, found = np.maximum(expected, PSI_FLOOR), np.maximum(found, PSI_FLOOR)
    return float(np.sum((found - expected) * np.log(found / expected)))


def _warnings(report: Mapping[str, Any]) -> list[str]:
    warnings = []
    if report["swing_flip_rate"] > MAX_FLIP_RATE:
        warnings.append(
            f"{Metrics.SWING_FLIP_RATE} is {report['swing_flip_rate']:.2f}, above {MAX_FLIP_RATE}: the leg flips so "
            "often that the swing features are mostly noise. Set features.hybrid_lookback=0; if it is 0 already, look "
            "at the bars, their closes alternate"
        )
    drifted = [f"{row['name']} {row['psi']:.2f}" for row in report["features"] if row.get("psi", 0) > MAX_PSI]
    if drifted:
        warnings.append(
            f"features drifted from the encoder's training data (PSI above {MAX_PSI}): {', '.join(drifted)}. "
            "Pre-train on bars like these, or read the scores with care"
        )
    return warnings


def check_quality(report: Mapping[str, Any]) -> None:
    """Refuse features that no model can learn from.

    Raises: UserError that names every feature with a NaN, with a value out of its bounds, or with too few valid steps
    that are not zero.
    """
    faults = []
    for row in report["features"]:
        name = row["name"]
        if row["nan"] > 0:
            faults.append(
                f"{name}: NaN or infinite in {row['nan']:.2%} of the steps after the warm-up, allowed 0. A price is "
                "missing or infinite: set bars.repair=drop or correct the file"
            )
        if row["min"] is None:
            continue
        if row["min"] < row["lower"] or row["max"] > row["upper"]:
            faults.append(
                f"{name}: values from {row['min']:g} to {row['max']:g}, allowed {row['lower']:g} to {row['upper']:g}. "
                "Clip the feature in its formula, or correct its bounds in the table of features/relativity.py"
            )
        if row["nonzero"] < MIN_NONZERO:
            faults.append(
                f"{name}: non-zero in {row['nonzero']:.2%} of the valid steps, at least {MIN_NONZERO:.0%} needed. Use "
                "bars that move (a more liquid instrument or session), or a features.set without this feature"
            )
    if faults:
        raise UserError("feature quality: " + "\n".join(faults))


def quality_metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of a report that are logged as metrics, by metric name."""
    metrics = {Metrics.SWING_FLIP_RATE: report["swing_flip_rate"]}
    for row in report["features"]:
        metrics[f"{Metrics.FEATURE_NONZERO}{row['name']}"] = row["nonzero"]
        metrics[f"{Metrics.FEATURE_CLIPPED}{row['name']}"] = row["at_lower"] + row["at_upper"]
        if "psi" in row:
            metrics[f"{Metrics.FEATURE_PSI}{row['name']}"] = row["psi"]
    return metrics


def quality_table(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one flat row per feature, for a table artifact or a terminal."""
    return [{key: value for key, value in row.items() if key != "histogram"} for row in report["features"]]
