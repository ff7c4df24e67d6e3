"""The charts of a sweep's page: Optuna's own, and quality against cost."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import optuna
import plotly.graph_objects as go
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from moola_mlflow.reports import Plot
from moola_mlflow.sweep.space import Space

SECTIONS = ("History", "Values by key", "Parallel coordinates", "Importance", "Curves", "Quality against cost")
CAPTIONS = {
    "History": "The value of each trial, and the best so far.",
    "Values by key": "Later trials are darker.",
    "Parallel coordinates": "One line for each complete trial. Drag along an axis to keep some of them.",
    "Importance": "Share of each key in the variance of the value, by fANOVA.",
    "Curves": "The value of each trial by epoch; pruned trials end early.",
    "Quality against cost": "Value against seconds of training; the line joins the trials that no other beats in both.",
}


def study_plots(
    study: optuna.Study, space: Space, target: str, front: Sequence[int], importance: Mapping[str, float]
) -> list[Plot]:
    """Return the charts of a study with at least one complete trial. ``target`` names its value.

    ``front``: trials that no other beats in both value and seconds. ``importance`` is empty if the trials cannot tell.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study = _copied(study)
        keys, show = list(space.distributions), optuna.visualization
        figures = {
            "History": show.plot_optimization_history(study, target_name=target),
            "Values by key": show.plot_slice(study, keys, target_name=target),
            "Parallel coordinates": show.plot_parallel_coordinate(study, keys, target_name=target),
        }
        if importance:
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
            figures["Importance"] = show.plot_param_importances(study, evaluator=evaluator, target_name=target)
        if any(trial.intermediate_values for trial in study.trials):
            figures["Curves"] = show.plot_intermediate_values(study)
    figures["Quality against cost"] = pareto_chart(study.trials, target, front)
    return [Plot(name, figures[name].update_layout(height=450), CAPTIONS[name]) for name in SECTIONS if name in figures]


def pareto_chart(trials: Sequence[FrozenTrial], target: str, front: Sequence[int]) -> go.Figure:
    """Return value against seconds of training, with a line through the trials of the front."""
    timed = [t for t in trials if t.state == TrialState.COMPLETE and t.user_attrs.get("seconds") is not None]
    best = sorted((t for t in timed if t.number in front), key=lambda t: t.user_attrs["seconds"])
    figure = go.Figure()
    for name, mode, some in (("complete", "markers", timed), ("no other beats both", "lines+markers", best)):
        figure.add_scatter(
            x=[t.user_attrs["seconds"] for t in some], y=[t.value for t in some], name=name, mode=mode,
            text=[f"trial {t.number}<br>" + "<br>".join(f"{key}={value}" for key, value in t.params.items())
                  for t in some],
            hovertemplate="%{text}<br>%{x:.1f} s, %{y:.5g}<extra></extra>",
        )  # fmt: skip
    return figure.update_layout(title="Quality against cost", xaxis_title="seconds of training", yaxis_title=target)


def _copied(study: optuna.Study) -> optuna.Study:
    """Return the study in memory, its epochs counted from 1 as in all pictures.

    Each chart asks for all trials, and a database would answer every time.
    """
    said = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        copy = optuna.create_study(directions=study.directions, study_name=study.study_name)
    finally:
        optuna.logging.set_verbosity(said)
    for trial in study.get_trials():
        trial.intermediate_values = {step + 1: value for step, value in trial.intermediate_values.items()}
        copy.add_trial(trial)
    return copy
