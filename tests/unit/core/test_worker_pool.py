"""Worker processes: what they return and raise is what a call would, and none outlives its command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moola_mlflow.core import TrainingError, UserError, WorkerPool, command_workers, early_workers, result_of
from moola_mlflow.core.errors import nearest_name


def refuse(text: str) -> None:
    raise UserError(text)


@pytest.mark.parametrize("num", [0, 1])
def test_a_pool_returns_and_raises_what_the_function_does(num: int) -> None:
    with early_workers(num, ()) as pool:
        assert command_workers() is pool
        assert result_of(pool.submit(divmod, 17, 5)) == (3, 2)
        refused = pool.submit(refuse, "seed='x'; allowed: a whole number")
        with pytest.raises(UserError, match="seed='x'; allowed"):
            result_of(refused)
    assert command_workers().num == 0


def test_workers_are_other_processes_and_end_with_the_block() -> None:
    with early_workers(2, ()) as pool:
        worker = result_of(pool.submit(os.getpid))
        assert worker != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
    assert result_of(pool.submit(nearest_name, "dta", ["data"])) == nearest_name("dta", ["data"])  # here, after the end


def test_a_worker_has_imported_its_modules_and_a_missing_one_stops_nothing() -> None:
    with early_workers(1, ("this_is_no_module", "wave")) as pool:
        assert "wave" in result_of(pool.submit(eval, "list(__import__('sys').modules)"))


def test_a_worker_that_dies_is_named_and_the_next_call_is_refused_too() -> None:
    with early_workers(1, ()) as pool:
        for _ in range(2):
            with pytest.raises(TrainingError, match="a worker process died"):
                result_of(pool.submit(os._exit, 9))


def test_ctrl_c_leaves_workers_to_their_parent_and_a_killed_parent_takes_them_along(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, time\n"
        "from moola_mlflow.core import early_workers, result_of\n"
        "with early_workers(1, ()) as pool:\n"
        "    print(result_of(pool.submit(os.getpid)), flush=True)\n"
        "    time.sleep(100)\n"
    )
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert parent.stdout is not None
    with parent:
        worker = int(parent.stdout.readline())
        os.kill(worker, signal.SIGINT)
        os.kill(worker, 0)
        parent.kill()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{worker}").exists() and _state(worker) != "Z":
        assert time.monotonic() < deadline, "the worker outlives its parent"
        time.sleep(0.1)


def _state(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_a_closed_pool_ends_workers_that_work() -> None:
    pool = WorkerPool(1)
    worker = result_of(pool.submit(os.getpid))
    pool.submit(time.sleep, 100)
    pool.close()
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
