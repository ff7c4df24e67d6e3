"""What a sweep leaves on its run: the best trial, all trials, pictures, cost, and what to do next."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import optuna
import yaml
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from moola_mlflow.core import SweepKeys, markdown_code
from moola_mlflow.reports import (
    Scale,
    Tried,
    history_figure,
    importance_figure,
    parallel_figure,
    pareto_figure,
    slice_figure,
    trial_curves_figure,
)
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
    without_progress_bar,
)

TABLE, BEST = Artifacts.TRIALS, Artifacts.BEST_CONFIG
# What the UI reads to show a table; MLflow's own call would append to the table of an earlier end.
SHOWN = Tags.TABLES


def summarise_study(parent: Run, study: optuna.Study, space: Space, config: SweepKeys, full_epochs: int) -> None:
    """Log the results of a finished sweep on its run.

    ``full_epochs``: epochs of the run that is varied, for the best configuration.
    """
    trials = study.get_trials(deepcopy=False)
    direction = config.sweep.direction
    done = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    whole = [t for t in done if t.state == TrialState.COMPLETE]
    counts = {state.name.lower(): sum(t.state == state for t in trials) for state in TrialState}
    parent.metrics({f"{Metrics.SWEEP}{name}": counts[name] for name in ("complete", "pruned", "fail")})
    parent.json(split_table(rows(trials, space)), TABLE)
    parent.tags({SHOWN: json.dumps([{"path": TABLE, "type": "table"}])})
    if not whole:
        parent.note(f"No trial of study {markdown_code(study.study_name)} was completed: {counts}.")
        return
    best, front = study.best_trial, pareto_front(whole, direction)
    importance = importances(study)
    _figures(parent, done, whole, space, config, best.number, front, importance)
    parent.metrics({Metrics.SWEEP_BEST_VALUE: float(best.value or 0.0), Metrics.SWEEP_BEST_TRIAL: best.number})
    parent.tags({f"{Tags.BEST}{key}": value for key, value in best.params.items()} | {Tags.BEST_TRIAL: best.number})
    parent.json({"trials": front, "importance": importance}, Artifacts.PARETO)
    path = best_config(parent, config, space, best, full_epochs)
    uri = register(parent, config, best) if config.sweep.register_best else ""
    drop_encoders([trial for trial in trials if trial.number != best.number])
    parent.note(note(study, config, best, counts, front, importance, path, parent.id, uri))


def study_console_lines(parent: Run, study: optuna.Study, config: SweepKeys) -> list[str]:
    """Return what the console says of a finished sweep."""
    trials, ends = study.get_trials(deepcopy=False), [state for state in TrialState if state.is_finished()]
    counts = ", ".join(f"{sum(t.state == state for t in trials)} {state.name.lower()}" for state in ends)
    if not any(t.state == TrialState.COMPLETE for t in trials):
        return [f"No trial was completed ({counts})."]
    best = study.best_trial
    values = ", ".join(f"{key}={_short(value)}" for key, value in best.params.items())
    return [
        f"Best of {counts}: trial {best.number}, {config.sweep.target} {best.value:.5g}; {values}",
        f"At full length: mlflow run . -e {config.sweep.stage} -P config={parent.folder / BEST}",
    ]


def rows(trials: Sequence[FrozenTrial], space: Space) -> list[dict[str, Any]]:
    """Return a row a trial: number, state, value, cost, values of the searched keys, and its run."""
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
    """Return rows as MLflow stores a table."""
    return {"columns": list(table[0]), "data": [list(row.values()) for row in table]}


def pareto_front(trials: Sequence[FrozenTrial], direction: str) -> list[int]:
    """Return the numbers of the trials that no other beats in both value and seconds, the cheapest first."""
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
    """Return each key's share of the variance; empty where the trials cannot say."""
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return optuna.importance.get_param_importances(study, evaluator=evaluator)
        except (ValueError, RuntimeError):  # one complete trial, or equal values
            return {}


def scales(space: Space) -> dict[str, Scale]:
    """Return how each searched key is drawn."""
    return {
        key: Scale(choices=one.choices) if isinstance(one, CategoricalDistribution) else Scale(log=one.log)  # type: ignore[attr-defined]
        for key, one in space.distributions.items()
    }


def _figures(
    parent: Run, done: Sequence[FrozenTrial], whole: Sequence[FrozenTrial], space: Space, config: SweepKeys, best: int,
    front: Sequence[int], importance: Mapping[str, float],
) -> None:  # fmt: skip
    target, direction = config.sweep.target, config.sweep.direction
    tried = [
        Tried(t.number, t.state == TrialState.PRUNED, float(t.value), t.user_attrs.get("seconds"), t.params,
              t.intermediate_values)
        for t in done if t.value is not None
    ]  # fmt: skip
    drawn = {
        "history": history_figure(tried, target, direction),
        "slice": slice_figure(tried, scales(space), target),
        "parallel_coordinates": parallel_figure(tried, scales(space), target, direction),
        "pareto": pareto_figure(tried, front, target),
    }
    if importance:
        drawn["importance"] = importance_figure(importance, target)
    if any(t.curve for t in tried):
        drawn["curves"] = trial_curves_figure(tried, target, best)
    for name, figure in drawn.items():
        parent.figure(figure, f"{Artifacts.FIGURES}{name}.png")


def best_config(parent: Run, config: SweepKeys, space: Space, best: FrozenTrial, full_epochs: int) -> Path:
    """Write and log the best trial's configuration at full length; return where it is on this machine."""
    params = dict(best.params)
    if "trainer.epochs" not in space.distributions:
        params["trainer.epochs"] = full_epochs
    tree = trial_config(config, params).model_dump(mode="json")
    del tree["sweep"]
    if config.sweep.stage == "finetune":  # on these labels its score will be optimistic, and finetune will say so
        tree["finetune"]["tuned_on"] = mlflow.get_run(parent.id).data.tags.get(Tags.DATA_SHA256, "")
    text = f"# Trial {best.number} of sweep {parent.id}, at full length.\n" + yaml.safe_dump(tree, sort_keys=False)
    path = parent.folder / BEST
    path.write_text(text, encoding="utf-8")
    parent.text(text, BEST)
    return path


def register(parent: Run, config: SweepKeys, best: FrozenTrial) -> str:
    """Register the encoder that the best trial uploaded as candidate; return its URI, empty where it kept none."""
    try:
        with without_progress_bar():
            found = mlflow.artifacts.download_artifacts(
                run_id=best.user_attrs["run_id"], artifact_path=KEPT_ENCODER, dst_path=str(parent.folder / "best")
            )
        folder = Path(found)
    except (MlflowException, OSError) as e:
        if is_outage(e):
            raise
        said = "it ran before sweep.register_best was set; train it with the command of the run's note"
        print(f"Warning: the best trial, {best.number}, kept no encoder to register: {said}.", flush=True)
        return ""
    tags = json.loads((folder / Artifacts.VERSION_TAGS).read_text(encoding="utf-8"))
    card = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    name = config.registry.name
    with active_run(parent.id):
        return f"models:/{name}/{log_encoder(name, folder, card, {**tags, VersionTags.SWEEP: parent.id})}"


def drop_encoders(trials: Sequence[FrozenTrial]) -> None:
    """Remove the uploaded encoders of trials that were the best for a while; a store that cannot keeps them."""
    for trial in trials:
        if trial.user_attrs.get(KEPT_ENCODER):
            with suppress(*STORE_FAILURES, NotImplementedError):
                root = mlflow.MlflowClient().get_run(trial.user_attrs["run_id"]).info.artifact_uri
                get_artifact_repository(str(root)).delete_artifacts(KEPT_ENCODER)


def note(
    study: optuna.Study, config: SweepKeys, best: FrozenTrial, counts: Mapping[str, int], front: Sequence[int],
    importance: Mapping[str, float], path: Path, run_id: str, uri: str,
) -> str:  # fmt: skip
    """Return the Markdown note: the best, what else there is, and the command that trains it at full length."""
    sweep = config.sweep
    values = "\n".join(f"| `{key}` | {_short(value)} |" for key, value in best.params.items())
    budget = sweep.budget if sweep.budget_amount is None else f"{sweep.budget_amount:g} {sweep.budget}"
    parts = [
        f"**Best: trial {best.number}, {sweep.target} {best.value:.5g}** of {counts['complete']} complete, "
        f"{counts['pruned']} pruned and {counts['fail']} failed trials of study {markdown_code(study.study_name)} "
        f"(equal {budget}).",
        f"| key | value |\n|---|---|\n{values}",
        f"Retrain it at full length: `mlflow run . -e {sweep.stage} -P config={path}`, or on another machine first "
        f"`mlflow artifacts download -r {run_id} -a {BEST} -d .`",
    ]
    if uri:
        parts.append(f"The trial's own encoder is registered: `{uri}`.")
    if front:
        parts.append(f"Trials that no other beats in both quality and seconds, the cheapest first: {_list(front)}.")
    if importance:
        shares = ", ".join(f"`{key}` {share:.0%}" for key, share in importance.items())
        parts.append(f"What the value varies by: {shares}.")
    parts.append(f"In a notebook: `moola_mlflow.load_study('{run_id}')`")
    return "\n\n".join(parts) + "\n"


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
