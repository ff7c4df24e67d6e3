"""Optuna's database storage that waits for a PostgreSQL server which restarts, instead of ending the sweep."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from moola_mlflow.tracking import first_line, is_outage

LIMIT_S, FIRST_PAUSE_S, LONGEST_PAUSE_S = 300.0, 0.5, 10.0
"""How long a call waits for its database, and the first and the longest pause between two tries."""
WAITING = (
    *("get_all_studies", "get_study_directions", "get_study_id_from_name", "get_study_name_from_id"),
    *("get_study_system_attrs", "get_study_user_attrs", "set_study_system_attr", "set_study_user_attr"),
    *("get_trial", "get_trial_id_from_study_id_trial_number", "set_trial_intermediate_value"),
    *("set_trial_system_attr", "set_trial_user_attr", "_create_new_trial", "_get_best_trial_id"),
    *("_get_stale_trial_ids", "_get_trials", "_set_trial_param"),
)
"""Methods that Optuna's cache in front of the storage calls. Each is one transaction, so it can be done again."""
T = TypeVar("T")


def wait_for_database(step: Callable[[], T]) -> T:
    """Do a step, and again while the database cannot be reached.

    Raises: what ``step`` raises if that is no outage, or if the outage lasts for ``LIMIT_S`` seconds.
    """
    deadline, pause_s = time.monotonic() + LIMIT_S, FIRST_PAUSE_S
    while True:
        try:
            return step()
        except (StorageInternalError, SQLAlchemyError) as e:
            cause = e.__cause__ if isinstance(e, StorageInternalError) and e.__cause__ is not None else e
            if not is_outage(cause) or time.monotonic() > deadline:
                raise
            if pause_s == FIRST_PAUSE_S:
                print(f"The sweep's database does not answer ({first_line(cause)[:200]}); waiting for it.", flush=True)
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


class PatientStorage(RDBStorage):
    """An Optuna storage whose calls outlast a restart of their database."""

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Set a trial's state and values. The database may have done so before its answer was lost."""
        tries = 0

        def step() -> bool:
            nonlocal tries
            tries += 1
            try:
                return super(PatientStorage, self).set_trial_state_values(trial_id, state, values)
            except UpdateFinishedTrialError:
                if tries > 1 and self.get_trial(trial_id).state == state:
                    return True
                raise

        return wait_for_database(step)


def _waiting(name: str) -> Callable[..., Any]:
    method = getattr(RDBStorage, name)

    @wraps(method)
    def call(self: PatientStorage, *given: Any, **named: Any) -> Any:
        return wait_for_database(lambda: method(self, *given, **named))

    return call


for waiting in WAITING:
    setattr(PatientStorage, waiting, _waiting(waiting))
