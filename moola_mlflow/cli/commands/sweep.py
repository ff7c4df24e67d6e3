"""sweep: an Optuna search whose trials are child runs; any number of workers, here and elsewhere, share one."""

from __future__ import annotations

from contextlib import ExitStack, suppress

import mlflow

from moola_mlflow.core import (
    FinetuneSweepKeys,
    Interrupts,
    SweepKeys,
    configure_allocator,
    configure_threads,
    is_launched,
    is_tuned,
    make_config,
    markdown_code,
    pick_device,
    pick_precision,
    read_preset,
)
from moola_mlflow.sweep import STORAGE_FAILURES as STORAGE_FAILURES
from moola_mlflow.sweep import (
    Coordination,
    FinetuneTrials,
    JoinedStudy,
    PretrainTrials,
    Space,
    SweepHeartbeat,
    TrialObjective,
    Worker,
    WorkerJob,
    find_parent_run,
    join_study,
    locate_storage,
    reconcile_trials,
    retry_during_outage,
    run_workers,
    shown_url,
    study_console_lines,
    summarise_study,
    trial_runs_of,
)
from moola_mlflow.tracking import STORE_FAILURES, Run, Tags, run_name, with_failure_recorded


def run(config: SweepKeys, preset: str, interrupts: Interrupts, base: str = "") -> None:
    """Search until as many trials as asked have ended well; begin the study, join it, or go on with it."""
    allocator = configure_allocator(config.runtime)
    name = run_name("sweep", preset, config.trainer.seed)
    study = config.sweep.study or name
    joined: JoinedStudy | None = None
    active: Run | None = None
    adopted = is_launched()
    try:
        with ExitStack() as stack:
            if adopted or not find_parent_run(config.sweep.study):
                active = stack.enter_context(Run.start("sweep", name, config.tracking.experiment))
                active.config(_shareable(config))
                active.tags({Tags.ALLOCATOR: allocator})
                space, coordination, objective, joined = _prepare(config, study, active)
            else:
                space, coordination, objective, joined = with_failure_recorded(
                    "sweep", lambda: _prepare(config, study, None)
                )
            if active is None or joined.run_id == active.id:
                parent = active or stack.enter_context(Run.join(joined.run_id))
            else:  # the launcher's run, or one of two commands that began together
                active.tags({Tags.STAGE: "sweep-worker", Tags.RESUMED: joined.run_id})
                active.note(f"Worked on sweep {markdown_code(study)}, run `{joined.run_id}`, which holds everything.")
                parent = stack.enter_context(Run.join(joined.run_id))
            _log_input(parent, objective)
            found = ", ".join(f"{number} {state.name.lower()}" for state, number in joined.queue.counts().items())
            _say(f"Study {study}: {config.sweep.n_trials} trials wanted, there are {found or 'none'}")
            if parent is not active:
                _say(parent.address())
            _say(f"Trials are child runs of {joined.run_id}; workers coordinate in {coordination.shown}")
            with interrupts.deferred(), SweepHeartbeat(parent, coordination, joined.queue):
                try:
                    _work(config, space, joined, study, objective, interrupts)
                except BaseException:
                    _leave(joined)
                    raise
                if interrupts.reason():
                    _leave(joined)
                else:
                    _finish(parent, config, space, joined, base)
    finally:
        if joined is not None:
            _hand_on(joined)


def _prepare(
    config: SweepKeys, study: str, active: Run | None
) -> tuple[Space, Coordination, TrialObjective, JoinedStudy]:
    """Do what can be refused. Raises: UserError."""
    space = Space.of(config)
    url, warning = locate_storage(config.sweep.storage, mlflow.get_tracking_uri())
    if warning:
        print(f"Warning: {warning}", flush=True)
    coordination = Coordination(url, config.sweep.heartbeat_s, config.sweep.grace_s)
    configure_threads(config.runtime)
    objective = build_objective(config)  # before any trial: what is wrong with the base is told here, once
    return space, coordination, objective, join_study(config, space, coordination, study, active)


def _work(
    config: SweepKeys, space: Space, joined: JoinedStudy, study: str, objective: TrialObjective, interrupts: Interrupts
) -> None:
    if config.sweep.workers > 1:
        job = WorkerJob(config, study, joined.experiment, joined.run_id, build_objective)
        run_workers(job, config.sweep.workers, interrupts.reason, _say)
        return
    Worker(config, space, joined.queue, joined.experiment, joined.run_id, objective, interrupts.reason, _say).run()


def _finish(parent: Run, config: SweepKeys, space: Space, joined: JoinedStudy, base: str) -> None:
    """Log the results of a study that is done; if two processes see its end, the second finds them logged."""
    study = joined.queue.study
    full = make_config(type(config), read_preset(base) if base else {}, {}).trainer.epochs
    with joined.queue.exclusive():
        seen = [len(joined.queue.trials()), sum(trial.state.is_finished() for trial in joined.queue.trials())]
        if study.user_attrs.get("summarised") != seen:
            summarise_study(parent, study, space, config, full)
            study.set_user_attr("summarised", seen)
    retry_during_outage(lambda: _reconcile(joined))
    for line in study_console_lines(parent, study, config):
        print(line, flush=True)


def _leave(joined: JoinedStudy) -> None:
    """End what workers that are gone have left open, as far as the stores answer."""
    with suppress(*STORE_FAILURES, *STORAGE_FAILURES):
        joined.queue.requeue_dead()
        _reconcile(joined)


def _hand_on(joined: JoinedStudy) -> None:
    """Have the sweep's run RUNNING again, however this command ended, where others work on: the last one ends it."""
    with suppress(*STORE_FAILURES, *STORAGE_FAILURES):
        if joined.queue.others_running():
            joined.queue.client.update_run(joined.run_id, status="RUNNING")


def _reconcile(joined: JoinedStudy) -> None:
    client = joined.queue.client
    reconcile_trials(client, trial_runs_of(client, joined.experiment, joined.run_id), joined.queue.trials())


def build_objective(config: SweepKeys) -> TrialObjective:
    """Return what a trial does, its data prepared. Raises: UserError for a base that cannot be trained."""
    device = pick_device(config.runtime.device)
    precision = pick_precision(config.runtime.precision, device, is_tuned(config.runtime))
    if isinstance(config, FinetuneSweepKeys):
        return FinetuneTrials(config, device, precision)
    trials = PretrainTrials(device, precision)
    trials.data(config)
    return trials


def _log_input(parent: Run, objective: TrialObjective) -> None:
    if isinstance(objective, PretrainTrials):
        parent.bars(objective.bars, "training")
    elif isinstance(objective, FinetuneTrials):
        parent.labels(objective.labels, "finetune")


def _shareable(config: SweepKeys) -> SweepKeys:
    """Return the configuration as it is logged: without the password of a storage."""
    if not config.sweep.storage:
        return config
    shown = shown_url(locate_storage(config.sweep.storage, "")[0])
    return config.model_copy(update={"sweep": config.sweep.model_copy(update={"storage": shown})})


def _say(line: str) -> None:
    print(line, flush=True)
