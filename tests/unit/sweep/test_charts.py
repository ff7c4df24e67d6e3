"""The charts of a sweep show every trial, with epochs counted from 1, and leave out what the trials cannot tell."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from moola_mlflow.sweep.charts import SECTIONS, pareto_chart, study_plots
from moola_mlflow.sweep.space import Space

KEYS = {"optimizer.lr": FloatDistribution(1e-4, 1e-2, log=True), "encoder.dropout": FloatDistribution(0.0, 0.8)}


@pytest.fixture
def study() -> optuna.Study:
    made = optuna.create_study(study_name="mine")
    for k in range(6):
        params = {"optimizer.lr": 10 ** (-4 + k / 3), "encoder.dropout": 0.1 * k}
        made.add_trial(
            create_trial(value=1.0 / (k + 1), params=params, distributions=KEYS, user_attrs={"seconds": 10.0 - k},
                         intermediate_values={0: 1.0, 1: 0.5})
        )  # fmt: skip
    made.add_trial(create_trial(state=TrialState.PRUNED, params=params, distributions=KEYS))
    return made


def test_each_chart_has_a_section_of_its_own(study: optuna.Study) -> None:
    plots = study_plots(study, Space(dict(KEYS), {}, {}), "val/huber", [5], {"optimizer.lr": 1.0})
    assert [plot.section for plot in plots] == list(SECTIONS)
    assert all(plot.figure.data for plot in plots)
    curves = plots[SECTIONS.index("Curves")].figure
    assert list(curves.data[0].x) == [1, 2]
    assert study.trials[0].intermediate_values == {0: 1.0, 1: 0.5}, "the study is as it was"


def test_without_curves_or_importance_their_sections_are_left_out() -> None:
    study = optuna.create_study()
    alone = {"optimizer.lr": KEYS["optimizer.lr"]}
    study.add_trial(create_trial(value=1.0, params={"optimizer.lr": 1e-3}, distributions=alone))
    plots = study_plots(study, Space(dict(alone), {}, {}), "val/huber", [], {})
    assert {"Importance", "Curves"} & {plot.section for plot in plots} == set()


def test_the_line_of_cost_joins_the_trials_that_no_other_beats(study: optuna.Study) -> None:
    every, best = pareto_chart(study.trials, "val/huber", [4, 5]).data
    assert len(every.x) == 6
    assert list(best.x) == [5.0, 6.0]
