"""Tasks in worker processes: the same results, messages for the user, and no process left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch
from paths import PYTHONPATH, ROOT

from moola_mlflow.core import early_workers
from moola_mlflow.core.errors import TrainingError, UserError
from moola_mlflow.evaluation.workers import run_tasks


@dataclass(frozen=True)
class Context:
    parts: list[torch.Tensor]
    factor: float


def multiply(context: Context, task: int) -> tuple[int, torch.Tensor, int]:
    part = context.parts[task % 2]
    part += 0  # a worker may write to its pages, as training does to its inputs
    return os.getpid(), part * context.factor, torch.get_num_threads()


def refuse(context: None, task: int) -> None:
    raise UserError("labels are too few; label more")


def die(context: None, task: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sleep(context: None, task: int) -> int:
    time.sleep(60 if task else 0)
    return task


def collect(workers: int) -> list[tuple[int, torch.Tensor, int]]:
    out = {}
    context = Context([torch.arange(6.0).reshape(2, 3), torch.ones(4)], 3.0)
    run_tasks(multiply, context, list(range(6)), workers, out.__setitem__)
    return [out[i] for i in range(6)]


def workers_of(process: int) -> list[psutil.Process]:
    """The worker processes of a process; its other children may be a warm process, or Python's resource tracker."""
    children = psutil.Process(process).children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def test_results_do_not_depend_on_the_number_of_workers() -> None:
    here, there = collect(1), collect(2)
    for (_, one, _), (_, other, threads) in zip(here, there, strict=True):
        assert torch.equal(one, other)
        assert threads == 1
    assert {pid for pid, _, _ in here} == {os.getpid()}
    assert os.getpid() not in {pid for pid, _, _ in there}


def test_the_workers_of_a_command_do_all_its_tasks_and_end_if_it_is_asked_to_stop() -> None:
    with early_workers(2, ()) as early:
        first, second = ({pid for pid, _, _ in collect(2)} for _ in range(2))
        same = first | second  # another context each time
        assert 0 < len(same) <= 2
        assert early.num == 2
        assert not {pid for pid, _, _ in collect(3)} & same, "more processes than the command started"
        seen: list[int] = []
        run_tasks(sleep, None, [0, 1], 2, lambda i, result: seen.append(i), lambda: "SIGINT" if seen else None)
        assert (seen, early.num) == ([0], 0)


def test_a_message_for_the_user_comes_through_from_a_worker() -> None:
    with pytest.raises(UserError, match="label more"):
        run_tasks(refuse, None, [0, 1], 2, lambda i, result: None)
    assert not workers_of(os.getpid())


def test_a_killed_worker_is_reported_with_the_key_to_change() -> None:
    with pytest.raises(TrainingError, match=r"worker process died.*cv\.workers"):
        run_tasks(die, None, [0, 1], 2, lambda i, result: None)


def test_a_request_to_stop_leaves_no_worker_behind() -> None:
    positions: list[int] = []
    started = time.monotonic()
    run_tasks(
        sleep, None, [0, 1, 2, 3], 2, lambda i, result: positions.append(i), lambda: "SIGINT" if positions else None
    )
    assert positions == [0]
    assert time.monotonic() - started < 50  # nobody waited for the sleepers


def test_workers_end_when_their_parent_is_killed(tmp_path: object) -> None:
    code = textwrap.dedent("""
        import os
        from moola_mlflow.evaluation.workers import run_tasks
        from tests.unit.evaluation.test_workers import sleep
        if __name__ == "__main__":
            run_tasks(sleep, None, [1, 1], 2, print)
    """)
    root = str(ROOT)
    script = os.path.join(str(tmp_path), "parent.py")
    with open(script, "w", encoding="utf-8") as f:
        f.write(code)
    parent = subprocess.Popen(
        [sys.executable, script],
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        cwd=root,
    )
    workers: list[psutil.Process] = []
    deadline = time.monotonic() + 120
    while len(workers) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
        workers = workers_of(parent.pid)
    time.sleep(5)  # past their imports, into the task
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive


def measure(context: Context, task: int) -> int:
    return sum(part.numel() for part in context.parts)


def test_a_worker_that_dies_before_it_reads_does_not_hang_its_parent() -> None:
    # More than a pipe holds: the parent would wait for ever for a reader that is gone.
    context = Context([torch.zeros(1000)] * 3000, 1.0)
    code = textwrap.dedent("""
        import os, signal, sys
        import torch
        from multiprocessing import popen_spawn_posix
        from moola_mlflow.evaluation import workers
        from tests.unit.evaluation.test_workers import Context, measure

        launch = popen_spawn_posix.Popen._launch

        def launch_and_kill(self, process):
            launch(self, process)
            os.kill(self.pid, signal.SIGKILL)

        if __name__ == "__main__":
            popen_spawn_posix.Popen._launch = launch_and_kill
            context = Context([torch.zeros(1000) + i for i in range(3000)], 1.0)
            try:
                workers.run_tasks(measure, context, [0, 1, 2], 2, print)
            except workers.TrainingError as e:
                print("refused:", e)
    """)
    assert measure(context, 0) == 3_000_000
    root = str(ROOT)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env={**os.environ, "PYTHONPATH": PYTHONPATH},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "refused: a worker process died" in done.stdout, done.stderr[-2000:]


def test_a_script_needs_no_guard_because_workers_do_not_run_it_again(tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(
        "from math_work import double\n"
        "from moola_mlflow.evaluation.workers import run_tasks\n"
        "print('top level')\n"
        "found = {}\n"
        "run_tasks(double, None, [1, 2, 3], 2, found.__setitem__)\n"
        "print(sorted(found.items()), __file__)\n"
    )
    (tmp_path / "math_work.py").write_text("def double(context, task):\n    return 2 * task\n")
    environment = {**os.environ, "PYTHONPATH": f"{PYTHONPATH}{os.pathsep}{tmp_path}"}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["top level", f"[(0, 2), (1, 4), (2, 6)] {script}"]
