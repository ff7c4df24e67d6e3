"""Draw a sweep: history, values against each key, importance, curves, and quality against cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from moola_mlflow.reports.plots.figure import blank_figure


@dataclass(frozen=True)
class Tried:
    """A finished trial as the pictures need it. The ``value`` of a pruned trial is that of its last epoch."""

    number: int
    pruned: bool
    value: float
    seconds: float | None
    params: Mapping[str, Any]
    curve: Mapping[int, float]


@dataclass(frozen=True)
class Scale:
    """The axis of a searched key: log, linear, or one place for each of its values."""

    log: bool = False
    choices: Sequence[Any] | None = None

    def place(self, value: Any) -> float:
        """Return where a value lies on an axis."""
        if self.choices is not None:
            return float(list(self.choices).index(value))
        return float(value)


def history_figure(trials: Sequence[Tried], target: str, direction: str) -> Figure:
    """Return the value of each trial by its number, pruned trials as crosses, and the best value so far."""
    figure = blank_figure(8, 4)
    ax = figure.subplots()
    whole = [trial for trial in trials if not trial.pruned]
    cut = [trial for trial in trials if trial.pruned]
    ax.plot([t.number for t in whole], [t.value for t in whole], "o", label="complete")
    ax.plot([t.number for t in cut], [t.value for t in cut], "x", color="0.6", label="pruned, at its last epoch")
    best = np.minimum if direction == "minimize" else np.maximum
    if whole:
        so_far = best.accumulate([t.value for t in whole])
        ax.step([t.number for t in whole], so_far, where="post", color="tab:red", label="best so far")
    return _done(figure, ax, "optimisation history", "trial", target)


def slice_figure(trials: Sequence[Tried], scales: Mapping[str, Scale], target: str) -> Figure:
    """Return the value against each searched key. Later trials are darker."""
    figure = blank_figure(max(4.0, 3.4 * len(scales)), 3.8)
    axes = figure.subplots(1, len(scales), sharey=True, squeeze=False)[0]
    for ax, (key, scale) in zip(axes, scales.items(), strict=True):
        having = [trial for trial in trials if key in trial.params]
        x = [scale.place(trial.params[key]) for trial in having]
        for pruned, marker in ((False, "o"), (True, "x")):
            at = [i for i, trial in enumerate(having) if trial.pruned == pruned]
            numbers = [having[i].number for i in at]
            y, n = [having[i].value for i in at], len(trials)
            ax.scatter([x[i] for i in at], y, c=numbers, cmap="Blues", vmin=-n / 2, vmax=n, marker=marker)
        _scaled(ax, scale)
        ax.set_xlabel(key)
        ax.grid(alpha=0.3)
    axes[0].set_ylabel(target)
    figure.suptitle("value by key; later trials darker, crosses were pruned")
    return figure


def parallel_figure(trials: Sequence[Tried], scales: Mapping[str, Scale], target: str, direction: str) -> Figure:
    """Return one line through the values of each complete trial. Better trials are darker."""
    figure = blank_figure(max(5.0, 2.2 * (len(scales) + 1)), 4.5)
    ax = figure.subplots()
    whole = sorted((t for t in trials if not t.pruned), key=lambda t: t.value, reverse=direction == "minimize")
    columns = {key: _unit([_linear(scale, t.params.get(key)) for t in whole]) for key, scale in scales.items()}
    columns[target] = _unit([t.value for t in whole])
    for i in range(len(whole)):
        shade = (i + 1) / max(1, len(whole))
        ax.plot(range(len(columns)), [column[i] for column in columns.values()], color=(0.12, 0.3, 0.6), marker=".",
                alpha=0.1 + 0.9 * shade**2, linewidth=0.6 + 1.6 * shade**2)  # fmt: skip
    labels = []
    for key in columns:
        values = [t.value if key == target else t.params.get(key) for t in whole]
        there = [value for value in values if value is not None]
        low, high = _ends(there, scales.get(key))
        labels.append(f"{key}\n{low} to {high}")
    ax.set_xticks(range(len(columns)), labels, fontsize=8)
    ax.set_yticks([])
    ax.set_title("complete trials; better ones are darker")
    return figure


def importance_figure(importance: Mapping[str, float], target: str) -> Figure:
    """Return the share of each key in the variance of the value."""
    figure = blank_figure(7, 0.5 * len(importance) + 1.4)
    ax = figure.subplots()
    keys = list(importance)[::-1]
    ax.barh(keys, [importance[key] for key in keys])
    return _done(figure, ax, f"importance for {target} (fANOVA)", "share of the variance", "", legend=False)


def trial_curves_figure(trials: Sequence[Tried], target: str, best: int) -> Figure:
    """Return the value of every trial by epoch, with the best trial in front."""
    figure = blank_figure(8, 4.5)
    ax = figure.subplots()
    for trial in sorted(trials, key=lambda t: t.number == best):
        steps = sorted(trial.curve)
        style: dict[str, Any] = {"color": "0.7", "linestyle": ":" if trial.pruned else "-", "linewidth": 1}
        if trial.number == best:
            style = {"color": "tab:red", "linewidth": 2, "label": f"trial {best}, the best"}
        ax.plot([step + 1 for step in steps], [trial.curve[step] for step in steps], marker=".", **style)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _done(figure, ax, "curves of all trials; dotted ones were pruned", "epoch", target)


def pareto_figure(trials: Sequence[Tried], front: Sequence[int], target: str) -> Figure:
    """Return value against seconds of training, with a line through the trials that no other beats in both."""
    figure = blank_figure(7, 4.5)
    ax = figure.subplots()
    timed = [(t.seconds, t.value, t.number) for t in trials if not t.pruned and t.seconds is not None]
    ax.plot([one[0] for one in timed], [one[1] for one in timed], "o", color="0.6", label="complete")
    best = sorted(one for one in timed if one[2] in front)
    ax.plot([one[0] for one in best], [one[1] for one in best], "o-", color="tab:red", label="Pareto front")
    for seconds, value, number in best:
        ax.annotate(str(number), (seconds, value), xytext=(4, 4), textcoords="offset points")
    return _done(figure, ax, "quality against cost", "seconds of training", target)


def _done(figure: Figure, ax: Axes, title: str, x: str, y: str, legend: bool = True) -> Figure:
    ax.set(title=title, xlabel=x, ylabel=y)
    ax.grid(alpha=0.3)
    if legend and ax.get_legend_handles_labels()[0]:
        ax.legend()
    return figure


def _scaled(ax: Axes, scale: Scale) -> None:
    if scale.choices is not None:
        ax.set_xticks(range(len(scale.choices)), [str(choice) for choice in scale.choices])
    elif scale.log:
        ax.set_xscale("log")


def _linear(scale: Scale, value: Any) -> float:
    if value is None and (scale.choices is None or None not in scale.choices):
        return float("nan")  # not searched in that trial
    place = scale.place(value)
    return float(np.log(place)) if scale.log else place


def _unit(values: Sequence[float]) -> list[float]:
    """Return the values scaled to 0 to 1; a single value lies in the middle."""
    x = np.asarray(values, float)
    if not len(x) or not np.isfinite(x).any() or np.nanmax(x) == np.nanmin(x):
        return [0.5 if np.isfinite(v) else float("nan") for v in x]
    return list((x - np.nanmin(x)) / (np.nanmax(x) - np.nanmin(x)))


def _ends(values: Sequence[Any], scale: Scale | None) -> tuple[str, str]:
    if not values:
        return "-", "-"
    ordered = sorted(values, key=scale.place if scale else float)
    low, high = (f"{v:.4g}" if isinstance(v, float) else str(v) for v in (ordered[0], ordered[-1]))
    return low, high
