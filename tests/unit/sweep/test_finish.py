"""The end of a sweep's command: the results are logged once, and a study that others work on stays theirs."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_studies import Bench, configured, in_hand_elsewhere

from moola_mlflow.sweep import finish
from moola_mlflow.sweep.attach import JoinedStudy
from moola_mlflow.tracking import Run


def test_the_second_process_that_sees_the_end_finds_the_results_logged(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(configured(n_trials=2))
    queue, run_id = bench.sweep()
    joined = JoinedStudy(queue, run_id, "1")
    logged: list[int] = []
    monkeypatch.setattr(finish, "summarise_study", lambda parent, study, space, config, epochs: logged.append(epochs))
    with Run.join(run_id) as parent:
        lines = [finish.finish_study(parent, bench.config, bench.space, joined, 7) for _ in range(2)]
        assert logged == [7]
        assert lines[0] == lines[1]
        assert "Best of 2 complete" in lines[0][0]
        in_hand_elsewhere(queue)  # one trial more: the results are no longer those of all trials
        finish.finish_study(parent, bench.config, bench.space, joined, 7)
    assert logged == [7, 7]


def test_the_run_stays_running_only_if_others_work_on_it(workdir: Path) -> None:
    queue, run_id = Bench(configured(n_trials=1)).sweep()
    joined = JoinedStudy(queue, run_id, "1")
    finish.keep_running_for_others(joined)
    assert queue.client.get_run(run_id).info.status == "FINISHED"
    in_hand_elsewhere(queue)
    finish.keep_running_for_others(joined)
    assert queue.client.get_run(run_id).info.status == "RUNNING"
