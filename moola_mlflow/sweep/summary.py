"""The results of a sweep on its run: the best trial, all trials, pictures, cost, and what to do next."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import optuna
import yaml
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from optuna.trial import FrozenTrial, TrialState

from moola_mlflow.core import SweepKeys, markdown_code
from moola_mlflow.models import ENCODER_CARD
from moola_mlflow.reports import Document, Heading, Para, touch_page
from moola_mlflow.sweep.charts import study_plots
from moola_mlflow.sweep.space import Space, trial_config
from moola_mlflow.sweep.trial_runs import KEPT_ENCODER
from moola_mlflow.tracking import (
    STORE_FAILURES,
    Artifacts,
    Metrics,
    Run,
    Tags,
    VersionTags,
    active_run,
    is_outage,
    log_encoder,
    no_local_artifacts,
    quiet_download,
)


@dataclass(frozen=True)
class StudyResults:
    """The results of a study with at least one complete trial."""

    study: optuna.Study
    config: SweepKeys
    space: Space
    ended: list[FrozenTrial]
    """Complete and pruned trials."""
    counts: Mapping[str, int]
    """Number of trials by state, in lower case."""
    best: FrozenTrial
    front: list[int]
    """Numbers of the trials that no other beats in both value and seconds, cheapest first."""
    importance: Mapping[str, float]
    """Share of the variance that each searched key explains, empty if the trials cannot tell."""


def summarise_study(parent: Run, study: optuna.Study, space: Space, config: SweepKeys, full_epochs: int) -> None:
    """Log the results of a finished sweep on its run.

    ``full_epochs``: epochs of the run that the sweep varies, for the best configuration.
    """
    trials = study.get_trials(deepcopy=False)
    ended = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    complete = [t for t in ended if t.state == TrialState.COMPLETE]
    counts = {state.name.lower(): sum(t.state == state for t in trials) for state in TrialState}
    parent.metrics({f"{Metrics.SWEEP}{name}": counts[name] for name in ("complete", "pruned", "fail")})
    parent.json(split_table(rows(trials, space)), Artifacts.TRIALS)
    # The tag by which the UI finds tables. MLflow's own call would append to the table of an earlier end.
    parent.tags({Tags.TABLES: json.dumps([{"path": Artifacts.TRIALS, "type": "table"}])})
    if not complete:
        parent.note(f"No trial of study {markdown_code(study.study_name)} was completed: {counts}.")
        return
    best, front = study.best_trial, pareto_front(complete, config.sweep.direction)
    results = StudyResults(study, config, space, ended, counts, best, front, importances(study))
    parent.text(study_page(results), Artifacts.SWEEP_PAGE)
    parent.metrics({Metrics.SWEEP_BEST_VALUE: float(best.value or 0.0), Metrics.SWEEP_BEST_TRIAL: best.number})
    parent.tags({f"{Tags.BEST}{key}": value for key, value in best.params.items()} | {Tags.BEST_TRIAL: best.number})
    parent.json({"trials": front, "importance": results.importance}, Artifacts.PARETO)
    path = log_best_config(parent, results, full_epochs)
    uri = register_best(parent, results) if config.sweep.register_best else ""
    delete_encoders([trial for trial in trials if trial.number != best.number])
    parent.note(note(results, path, parent.id, uri))


def study_console_lines(parent: Run, study: optuna.Study, config: SweepKeys) -> list[str]:
    """Return the lines that the console shows of a finished sweep."""
    trials, ends = study.get_trials(deepcopy=False), [state for state in TrialState if state.is_finished()]
    counts = ", ".join(f"{sum(t.state == state for t in trials)} {state.name.lower()}" for state in ends)
    if not any(t.state == TrialState.COMPLETE for t in trials):
        return [f"No trial was completed ({counts})."]
    best = study.best_trial
    values = ", ".join(f"{key}={_short(value)}" for key, value in best.params.items())
    config_path = parent.folder / Artifacts.BEST_CONFIG
    return [
        f"Best of {counts}: trial {best.number}, {config.sweep.target} {best.value:.5g}; {values}",
        f"At full length: mlflow run . -e {config.sweep.stage} -P config={config_path}",
    ]


def rows(trials: Sequence[FrozenTrial], space: Space) -> list[dict[str, Any]]:
    """Return one row a trial: number, state, value, cost, values of the searched keys, and its run."""
    return [
        {
            "trial": t.number, "state": t.state.name, "value": t.value, "seconds": t.user_attrs.get("seconds"),
            **{key: t.params.get(key) for key in space.distributions},
            "epochs": len(t.intermediate_values), "run_id": t.user_attrs.get("run_id"),
            "reason": t.user_attrs.get("reason"),
        }
        for t in trials
    ]  # fmt: skip


def split_table(table: list[dict[str, Any]]) -> dict[str, Any]:
    """Return rows in the form in which MLflow stores a table."""
    return {"columns": list(table[0]), "data": [list(row.values()) for row in table]}


def pareto_front(trials: Sequence[FrozenTrial], direction: str) -> list[int]:
    """Return the numbers of the trials that no other beats in both value and seconds, cheapest first."""
    timed = [t for t in trials if t.user_attrs.get("seconds") is not None]
    if not timed:
        return []
    seconds = np.array([t.user_attrs["seconds"] for t in timed])
    worth = np.array([t.value for t in timed], float) * (-1 if direction == "minimize" else 1)
    as_good = (worth[None] >= worth[:, None]) & (seconds[None] <= seconds[:, None])
    better = (worth[None] > worth[:, None]) | (seconds[None] < seconds[:, None])
    on_front: np.ndarray = np.logical_not((as_good & better).any(1))
    return [timed[i].number for i in np.argsort(seconds, kind="stable") if on_front[i]]


def importances(study: optuna.Study) -> dict[str, float]:
    """Return the share of the variance that each key explains, empty if the trials cannot tell."""
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return optuna.importance.get_param_importances(study, evaluator=evaluator)
        except (ValueError, RuntimeError):  # one complete trial only, or equal values
            return {}


def study_page(results: StudyResults) -> str:
    """Return the page of charts of a study."""
    target, study = results.config.sweep.target, results.study
    plots = study_plots(study, results.space, target, results.front, results.importance)
    document = Document(f"Sweep: {study.study_name}")
    document.add(Para(f"Best: trial {results.best.number}, {target} {results.best.value:.5g}."))
    document.add(*(Heading(plot.section) for plot in plots))
    return touch_page(document, plots, [(f"{number:,}", name) for name, number in results.counts.items() if number])


def log_best_config(parent: Run, results: StudyResults, full_epochs: int) -> Path:
    """Write and log the configuration of the best trial at full length. Return its path on this machine."""
    best, config = results.best, results.config
    params = dict(best.params)
    if "trainer.epochs" not in results.space.distributions:
        params["trainer.epochs"] = full_epochs
    tree = trial_config(config, params).model_dump(mode="json")
    del tree["sweep"]
    if config.sweep.stage == "finetune":  # `finetune` warns that the score on these labels is optimistic
        tree["finetune"]["tuned_on"] = mlflow.get_run(parent.id).data.tags.get(Tags.DATA_SHA256, "")
    text = f"# Trial {best.number} of sweep {parent.id}, at full length.\n" + yaml.safe_dump(tree, sort_keys=False)
    path = parent.folder / Artifacts.BEST_CONFIG
    path.write_text(text, encoding="utf-8")
    parent.text(text, Artifacts.BEST_CONFIG)
    return path


def register_best(parent: Run, results: StudyResults) -> str:
    """Register the best trial's encoder as candidate. Return its URI, empty if the trial kept no encoder."""
    best = results.best
    try:
        with quiet_download(), no_local_artifacts():
            found = mlflow.artifacts.download_artifacts(
                run_id=best.user_attrs["run_id"], artifact_path=KEPT_ENCODER, dst_path=str(parent.folder / "best")
            )
        folder = Path(found)
    except (MlflowException, OSError) as e:
        if is_outage(e):
            raise
        print(
            f"Warning: the best trial, {best.number}, kept no encoder to register: it ran before sweep.register_best "
            "was set. Train it with the command in the run's note.",
            flush=True,
        )
        return ""
    tags = json.loads((folder / Artifacts.VERSION_TAGS).read_text(encoding="utf-8"))
    card = json.loads((folder / ENCODER_CARD).read_text(encoding="utf-8"))
    name = results.config.registry.name
    with active_run(parent.id):
        return f"models:/{name}/{log_encoder(name, folder, card, {**tags, VersionTags.SWEEP: parent.id})}"


def delete_encoders(trials: Sequence[FrozenTrial]) -> None:
    """Delete the uploaded encoders of trials that were the best for a while, if the store can delete."""
    for trial in trials:
        if trial.user_attrs.get(KEPT_ENCODER):
            with suppress(*STORE_FAILURES, NotImplementedError):
                root = mlflow.MlflowClient().get_run(trial.user_attrs["run_id"]).info.artifact_uri
                get_artifact_repository(str(root)).delete_artifacts(KEPT_ENCODER)


def note(results: StudyResults, path: Path, run_id: str, uri: str) -> str:
    """Return the Markdown note: the best trial, the command that trains it at full length, and the other trials.

    ``path``: its configuration on this machine. ``uri``: its registered encoder, empty if there is none.
    """
    best, counts, sweep = results.best, results.counts, results.config.sweep
    values = "\n".join(f"| `{key}` | {_short(value)} |" for key, value in best.params.items())
    budget = sweep.budget if sweep.budget_amount is None else f"{sweep.budget_amount:g} {sweep.budget}"
    parts = [
        f"**Best: trial {best.number}, {sweep.target} {best.value:.5g}** of {counts['complete']} complete, "
        f"{counts['pruned']} pruned and {counts['fail']} failed trials of study "
        f"{markdown_code(results.study.study_name)} (equal {budget}).",
        f"| key | value |\n|---|---|\n{values}",
        f"Retrain it at full length: `mlflow run . -e {sweep.stage} -P config={path}`. On another machine, first "
        f"`mlflow artifacts download -r {run_id} -a {Artifacts.BEST_CONFIG} -d .`",
    ]
    if uri:
        parts.append(f"The trial's own encoder is registered: `{uri}`.")
    if results.front:
        numbers = ", ".join(map(str, results.front))
        parts.append(f"Trials that no other beats in both quality and seconds, cheapest first: {numbers}.")
    if results.importance:
        shares = ", ".join(f"`{key}` {share:.0%}" for key, share in results.importance.items())
        parts.append(f"Share of the variance that each key explains: {shares}.")
    parts.append(f"In a notebook: `moola_mlflow.load_study('{run_id}')`")
    return "\n\n".join(parts) + "\n"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
