"""The queue of a study: never more trials than wanted, dead ones replaced, failed ones counted."""

from __future__ import annotations

import os
from pathlib import Path

import mlflow
import optuna
import pytest
from optuna.trial import TrialState
from small_studies import Bench, configured, in_hand_elsewhere

from moola_mlflow.core import TrainingError
from moola_mlflow.sweep.queue import COUNTED, TrialQueue
from moola_mlflow.sweep.worker import TrialOutcome
from moola_mlflow.tracking import Run, Tags, host_name

NO_PID = 2**22 + 1
"""More than Linux gives a process."""


@pytest.fixture
def make(workdir: Path):
    """Make the queue of a new study."""

    def queue(**sweep: object) -> TrialQueue:
        bench = Bench(configured(**sweep))
        study = optuna.create_study(study_name="contract", storage=bench.coordination.rdb)
        return TrialQueue(study, bench.coordination, bench.config.sweep, bench.space, mlflow.MlflowClient())

    return queue


def states(queue: TrialQueue) -> list[str]:
    return [trial.state.name for trial in queue.trials()]


def finish(queue: TrialQueue, number: int, value: float = 1.0) -> None:
    queue.study.tell(number, value)


def test_trials_are_claimed_one_by_one_in_order_until_enough_have_ended(make) -> None:
    queue = make(n_trials=2)
    for number in range(2):
        claimed = queue.claim()
        assert claimed is not None
        assert claimed.number == number
        assert queue.trials()[number].user_attrs["worker"] == [host_name(), os.getpid()]
        assert sum(state in {s.name for s in COUNTED} for state in states(queue)) <= 2
    assert queue.claim() is None  # both are in hand
    assert not queue.is_done()
    finish(queue, 0)
    queue.study.tell(1, state=TrialState.PRUNED)
    assert queue.is_done()
    assert queue.claim() is None


def test_points_to_try_come_first_and_only_once(make) -> None:
    queue = make(n_trials=3)
    first = [{"optimizer.lr": 0.02}, {"optimizer.lr": 0.03}]
    with queue.exclusive():
        queue.fill(first=first)
        queue.fill(first=first)
    assert [trial.system_attrs["fixed_params"] for trial in queue.trials()] == first
    queue.claim()
    with queue.exclusive():
        queue.fill(first=first)
    assert len(queue.trials()) == 2


def test_points_are_cut_to_the_number_of_trials_that_is_wanted(make) -> None:
    queue = make(n_trials=1)
    with queue.exclusive():
        queue.fill(first=[{"optimizer.lr": 0.02}, {"optimizer.lr": 0.03}])
    assert len(queue.trials()) == 1


@pytest.mark.parametrize("worker", [None, [host_name(), NO_PID]], ids=["died as it claimed", "died at work"])
def test_a_trial_whose_process_is_dead_is_repeated_with_its_values_and_its_run_ends(make, worker: object) -> None:
    queue = make(n_trials=1)
    queue.study.enqueue_trial({"optimizer.lr": 0.05})
    trial = queue.study.ask()
    trial.suggest_float("optimizer.lr", 1e-4, 1e-1, log=True)
    run_id = queue.client.create_run("0").info.run_id
    trial.set_user_attr("run_id", run_id)
    if worker is not None:
        trial.set_user_attr("worker", worker)
    claimed = queue.claim()
    assert claimed is not None
    assert (claimed.number, claimed.system_attrs["retry_history"]) == (1, [0])
    assert claimed.system_attrs["fixed_params"] == {"optimizer.lr": 0.05}
    assert (states(queue)[0], queue.trials()[1].user_attrs["worker"][1]) == ("FAIL", os.getpid())
    run = queue.client.get_run(run_id)
    assert (run.info.status, run.data.tags[Tags.RETRY]) == ("FAILED", "true")


def test_a_trial_of_another_machine_is_left_in_hand(make) -> None:
    queue = make(n_trials=1)
    in_hand_elsewhere(queue)
    queue.requeue_dead()
    assert queue.claim() is None
    assert (states(queue), queue.others_running(), queue.is_done()) == (["RUNNING"], True, False)


def test_a_trial_of_this_process_is_nobody_elses(make) -> None:
    queue = make(n_trials=1)
    queue.claim()
    assert not queue.others_running()


def test_a_trial_is_given_back_once(make) -> None:
    queue = make(n_trials=1)
    claimed = queue.claim()
    assert claimed is not None
    assert queue.requeue(claimed.number)
    assert not queue.requeue(claimed.number)
    assert states(queue) == ["FAIL", "WAITING"]


def test_a_trial_that_failed_by_itself_is_replaced_until_too_many_have(make) -> None:
    queue = make(n_trials=2, max_failures=1)
    for number in range(2):
        claimed = queue.claim()
        assert claimed is not None
        queue.fail(optuna.Trial(queue.study, claimed._trial_id), f"reason {number}")
    assert states(queue) == ["FAIL", "FAIL", "WAITING"]
    with pytest.raises(TrainingError, match=r"2 trials failed .* allows 1\. The last one, trial 1 .*: reason 1"):
        queue.claim()


def test_a_grid_is_tried_point_by_point_and_then_done(make) -> None:
    space = {"trainer.batch_size": [16, 32], "encoder.hidden": {"choices": [4], "when": {"trainer.batch_size": 16}}}
    queue = make(n_trials=10, space=space, sampler="grid")
    seen = []
    while (claimed := queue.claim()) is not None:
        seen.append(claimed.system_attrs["fixed_params"])
        finish(queue, claimed.number)
    points = [{"trainer.batch_size": 16, "encoder.hidden": 4}, {"trainer.batch_size": 32}]
    assert sorted(seen, key=str) == sorted(points, key=str)
    assert queue.is_done()


def test_an_interrupted_point_of_a_grid_is_repeated_and_a_failed_one_is_not(make) -> None:
    queue = make(n_trials=10, space={"trainer.batch_size": [16, 32]}, sampler="grid")
    first = queue.claim()
    assert first is not None
    queue.requeue(first.number)
    again = queue.claim()
    assert again is not None
    assert again.system_attrs["fixed_params"] == first.system_attrs["fixed_params"]
    queue.fail(optuna.Trial(queue.study, again._trial_id), "by itself")
    other = queue.claim()
    assert other is not None
    assert other.system_attrs["fixed_params"] != first.system_attrs["fixed_params"]
    finish(queue, other.number)
    assert queue.claim() is None
    assert queue.is_done()


def test_two_workers_never_claim_one_trial(make, workdir: Path) -> None:
    queue = make(n_trials=6)
    second = Bench(configured(n_trials=6))
    study = optuna.load_study(study_name="contract", storage=second.coordination.rdb)
    other = TrialQueue(study, second.coordination, second.config.sweep, second.space, mlflow.MlflowClient())
    claimed = [one.claim() for _ in range(3) for one in (queue, other)]
    assert [trial.number for trial in claimed if trial is not None] == list(range(6))
    with Run.start("sweep", "idle"):
        assert (queue.claim(), other.claim()) == (None, None)


POINTS = {"trainer.batch_size": [16, 32], "encoder.hidden": {"low": 4, "high": 8, "step": 4}}
"""A space of four points."""


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_no_point_of_a_space_with_few_points_is_tried_twice_and_then_it_is_done(workdir: Path, sampler: str) -> None:
    bench = Bench(configured(space=POINTS, n_trials=30, sampler=sampler))
    queue, _ = bench.sweep(lambda config, report: TrialOutcome(config.encoder.hidden, seconds=1.0))
    assert states(queue) == ["COMPLETE"] * 4
    assert len({tuple(sorted(trial.params.items())) for trial in queue.trials()}) == 4
    assert queue.is_done()


@pytest.mark.parametrize("sampler", ["grid", "tpe"])
def test_a_point_that_kills_its_workers_is_given_up_with_a_reason_and_others_are_tried(make, sampler: str) -> None:
    queue = make(n_trials=4, max_retries=1, space=POINTS, sampler=sampler)
    runs = []
    for _ in range(2):  # each time the worker dies
        claimed = queue.claim()
        assert claimed is not None
        queue.study.sampler = optuna.samplers.RandomSampler(seed=1)
        queue.draw_new(claimed)
        trial = optuna.Trial(queue.study, claimed._trial_id)
        queue.space.suggest(trial)
        runs.append(queue.client.create_run("0").info.run_id)
        trial.set_user_attr("run_id", runs[-1])
        trial.set_user_attr("worker", [host_name(), NO_PID])
    killer = queue.trials()[0].params
    claimed = queue.claim()
    assert claimed is not None
    assert queue.trials()[1].params == killer
    assert "retry_history" not in claimed.system_attrs
    assert killer not in queue._untried(queue.trials())
    tags = [queue.client.get_run(run).data.tags for run in runs]
    assert tags[0][Tags.RETRY] == "true"
    assert Tags.RETRY not in tags[1]
    assert tags[1][Tags.REASON].startswith("its worker died, 2 times in all (sweep.max_retries=1)")


def test_points_that_are_given_up_count_as_failures(make) -> None:
    queue = make(n_trials=4, max_retries=0, max_failures=0, space=POINTS, sampler="grid")
    claimed = queue.claim()
    queue.study.tell(claimed.number, state=TrialState.FAIL)
    with pytest.raises(TrainingError, match=r"1 trials failed by themselves.*its worker died, 1 times in all"):
        queue.claim()
