"""sweep: an Optuna search whose trials are child runs. Any number of workers, here and elsewhere, can share it."""

from __future__ import annotations

from contextlib import ExitStack

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
    check_storage_secret,
    find_parent_run,
    finish_study,
    join_study,
    keep_running_for_others,
    leave_study,
    locate_storage,
    run_workers,
    without_password,
)
from moola_mlflow.tracking import Run, Tags, run_name, with_failure_recorded


def run(config: SweepKeys, preset: str, interrupts: Interrupts, base: str = "") -> None:
    """Search until enough trials have ended well. Begin the study, join it, or go on with it."""
    allocator = configure_allocator(config.runtime)
    name = run_name("sweep", preset, config.trainer.seed, config.project.name)
    study = config.sweep.study or name
    joined: JoinedStudy | None = None
    active: Run | None = None
    adopted = is_launched()
    if adopted:
        with_failure_recorded("sweep", lambda: check_storage_secret(config))
    try:
        with ExitStack() as stack:
            if adopted or not find_parent_run(config.sweep.study):
                active = stack.enter_context(Run.start("sweep", name, config.tracking.experiment))
                active.config(without_password(config))
                active.tags({Tags.ALLOCATOR: allocator})
                space, coordination, objective, joined = _prepare(config, study, active)
            else:
                space, coordination, objective, joined = with_failure_recorded(
                    "sweep", lambda: _prepare(config, study, None)
                )
            if active is None or joined.run_id == active.id:
                parent = active or stack.enter_context(Run.join(joined.run_id))
            else:  # the launcher's run, or the second of two commands that began together
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
                    leave_study(joined)
                    raise
                if interrupts.reason():
                    leave_study(joined)
                else:
                    for line in finish_study(parent, config, space, joined, _full_epochs(config, base)):
                        _say(line)
    finally:
        if joined is not None:
            keep_running_for_others(joined)


def _prepare(
    config: SweepKeys, study: str, active: Run | None
) -> tuple[Space, Coordination, TrialObjective, JoinedStudy]:
    """Check and open everything that a sweep needs. Raises: UserError."""
    space = Space.of(config)
    url, warning = locate_storage(config.sweep.storage, mlflow.get_tracking_uri())
    if warning:
        print(f"Warning: {warning}", flush=True)
    coordination = Coordination(url, config.sweep.heartbeat_s, config.sweep.grace_s)
    configure_threads(config.runtime)
    objective = build_objective(config)  # before any trial: a wrong base is refused once, here
    joined = join_study(config, space, coordination, study, active, _data_sha256(objective))
    return space, coordination, objective, joined


def _work(
    config: SweepKeys, space: Space, joined: JoinedStudy, study: str, objective: TrialObjective, interrupts: Interrupts
) -> None:
    if config.sweep.workers > 1:
        job = WorkerJob(config, study, joined.experiment, joined.run_id, build_objective)
        run_workers(job, config.sweep.workers, interrupts.reason, _say)
        return
    Worker(config, space, joined.queue, joined.experiment, joined.run_id, objective, interrupts.reason, _say).run()


def _full_epochs(config: SweepKeys, base: str) -> int:
    """Return the epochs of the run that the sweep varies."""
    return make_config(type(config), read_preset(base) if base else {}, {}).trainer.epochs


def build_objective(config: SweepKeys) -> TrialObjective:
    """Return what a trial does, with its data prepared. Raises: UserError for a base that cannot be trained."""
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


def _data_sha256(objective: TrialObjective) -> str:
    if isinstance(objective, PretrainTrials):
        return objective.bars.sha256
    return objective.labels.sha256 if isinstance(objective, FinetuneTrials) else ""


def _say(line: str) -> None:
    print(line, flush=True)
