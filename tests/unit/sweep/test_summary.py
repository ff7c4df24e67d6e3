"""What a sweep leaves on its run: which trials no other beats, the table, the note, the best configuration."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import optuna
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState, create_trial
from small_studies import Bench, configured, fails_in
from touched import figures_of

from moola_mlflow.reports.touchable import MAX_BYTES
from moola_mlflow.sweep.summary import importances, pareto_front, study_console_lines, summarise_study
from moola_mlflow.sweep.worker import Reporter
from moola_mlflow.tracking import Artifacts, Metrics, Run, Tags


def trial(number: int, value: float, seconds: float | None) -> FrozenTrial:
    attributes = {} if seconds is None else {"seconds": seconds}
    made = create_trial(state=TrialState.COMPLETE, value=value, user_attrs=attributes)
    made.number = number
    return made


FIGURES = st.integers(0, 4).map(float)  # few values, so that trials tie


@given(st.lists(st.tuples(FIGURES, FIGURES), max_size=8), st.sampled_from(["minimize", "maximize"]))
def test_the_front_holds_the_trials_that_no_other_beats_cheapest_first(
    figures: list[tuple[float, float]], direction: str
) -> None:
    trials = [trial(i, value, seconds) for i, (value, seconds) in enumerate(figures)]
    sign = 1 if direction == "minimize" else -1

    def beats(other: tuple[float, float], one: tuple[float, float]) -> bool:
        as_good = sign * other[0] <= sign * one[0] and other[1] <= one[1]
        return as_good and other != one

    front = pareto_front([*trials, trial(99, -1e9 * sign, None)], direction)  # without seconds it has no place there
    expected = {i for i, one in enumerate(figures) if not any(beats(other, one) for other in figures)}
    assert set(front) == expected
    assert [figures[i][1] for i in front] == sorted(figures[i][1] for i in front)


def test_trials_that_cannot_tell_have_no_importance() -> None:
    study = optuna.create_study()
    study.add_trial(trial(0, 1.0, 1.0))
    assert importances(study) == {}


def test_a_sweep_without_a_complete_trial_says_so(workdir: Path) -> None:
    bench = Bench(configured(n_trials=1))
    study = optuna.create_study(study_name="empty", storage=bench.coordination.rdb)
    study.add_trial(create_trial(state=TrialState.FAIL))
    with Run.start("sweep", "bench") as run:
        summarise_study(run, study, bench.space, bench.config, 5)
        assert study_console_lines(run, study, bench.config) == [
            "No trial was completed (0 complete, 0 pruned, 1 fail)."
        ]
    stored = mlflow.MlflowClient().get_run(run.id)
    assert stored.data.tags[Tags.NOTE].startswith("No trial of study `empty` was completed: {")
    assert stored.data.metrics == {
        f"{Metrics.SWEEP}{name}": float(name == "fail") for name in ("complete", "pruned", "fail")
    }


@pytest.fixture
def swept(workdir: Path) -> tuple[Bench, optuna.Study, str]:
    """A sweep of five trials of which one failed."""

    def fail(report: Reporter) -> None:
        raise OSError(28, "No space left on device")

    bench = Bench(configured(n_trials=5))
    queue, run_id = bench.sweep(fails_in(2, fail))
    return bench, queue.study, run_id


def test_the_best_trial_every_trial_and_the_next_command_are_on_the_run(
    swept: tuple[Bench, optuna.Study, str],
) -> None:
    bench, study, run_id = swept
    client = mlflow.MlflowClient()
    for _ in range(2):  # a second end replaces what the first has left
        with Run.join(run_id) as parent:
            summarise_study(parent, study, bench.space, bench.config, full_epochs=77)
            lines = study_console_lines(parent, study, bench.config)
    stored, best = client.get_run(run_id), study.best_trial
    assert stored.data.metrics[Metrics.SWEEP_BEST_VALUE] == best.value
    assert stored.data.metrics[Metrics.SWEEP_BEST_TRIAL] == best.number
    assert stored.data.tags[f"{Tags.BEST}optimizer.lr"] == str(best.params["optimizer.lr"])
    assert (stored.data.metrics["sweep/complete"], stored.data.metrics["sweep/fail"]) == (5, 1)
    assert json.loads(stored.data.tags[Tags.TABLES]) == [{"path": Artifacts.TRIALS, "type": "table"}]

    def artifact(name: str) -> str:
        return mlflow.artifacts.load_text(f"runs:/{run_id}/{name}")

    table = json.loads(artifact(Artifacts.TRIALS))
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [row["trial"] for row in rows] == list(range(6))
    assert "No space left" in rows[2]["reason"]
    assert set(json.loads(artifact(Artifacts.PARETO))["trials"]) <= {row["trial"] for row in rows}
    config = yaml.safe_load(artifact(Artifacts.BEST_CONFIG))
    assert (config["trainer"]["epochs"], config["optimizer"]["lr"]) == (77, best.params["optimizer.lr"])
    assert "sweep" not in config
    note = stored.data.tags[Tags.NOTE]
    assert note.startswith(f"**Best: trial {best.number}, val/huber {best.value:.5g}** of 5 complete, 0 pruned and 1 f")
    assert f"`mlflow artifacts download -r {run_id} -a best_config.yaml -d .`" in note
    assert f"load_study('{run_id}')" in note
    assert lines[0].startswith(f"Best of 5 complete, 0 pruned, 1 fail: trial {best.number}, val/huber")
    assert lines[1].startswith("At full length: mlflow run . -e pretrain -P config=.moola/runs/")
    page = artifact(Artifacts.SWEEP_PAGE)
    assert len(page.encode()) < MAX_BYTES
    assert len(figures_of(page)) == 6 - (not importances(study))
