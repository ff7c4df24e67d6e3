"""A copy of the warm process is to a test what a new Python is, without the time of the imports."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from paths import ROOT
from warm_process import run_python, start_python

SAYS = """
import os, sys
import numpy as np
print(sys.argv[1:], os.getcwd(), __name__, os.environ["MINE"], sorted(set(sys.modules) & {"torch", "moola_mlflow"}))
print(np.random.random(), file=sys.stderr)
raise SystemExit(7)
"""
WAITS = "import time\nprint('here')\ntime.sleep(1000)\n"


def script(folder: Path, text: str) -> list[str]:
    (folder / "script.py").write_text(text)
    return [str(folder / "script.py")]


def test_a_copy_has_its_own_words_folder_environment_output_numbers_and_exit_code(tmp_path: Path) -> None:
    words = [*script(tmp_path, SAYS), "a b", ""]
    one, other = (run_python(words, tmp_path, {**os.environ, "MINE": mine}) for mine in "12")
    assert (one.returncode, other.returncode) == (7, 7)
    for done, mine in ((one, "1"), (other, "2")):
        assert done.stdout.startswith(f"['a b', ''] {tmp_path} __main__ {mine} ")
    assert one.stderr != other.stderr


def test_the_package_is_not_among_what_a_copy_has_already(tmp_path: Path) -> None:
    (tmp_path / "moola_mlflow").mkdir()
    (tmp_path / "moola_mlflow" / "__init__.py").touch()
    (tmp_path / "moola_mlflow" / "__main__.py").write_text("print('of this folder')")
    assert run_python(["-m", "moola_mlflow"], tmp_path, dict(os.environ)).stdout == "of this folder\n"
    done = run_python(["-m", "moola_mlflow", "--version"], tmp_path.parent, {**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.stdout.startswith("moola_mlflow ")


def test_a_copy_that_is_started_speaks_as_it_goes_and_leads_a_group_that_ends_with_it(tmp_path: Path) -> None:
    process = start_python(script(tmp_path, WAITS), tmp_path, dict(os.environ))
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.1)
    os.killpg(process.pid, signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate()[0]
    assert process.returncode in (1, -signal.SIGINT)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_a_killed_copy_says_by_which_signal_and_a_late_one_is_killed(tmp_path: Path) -> None:
    words = script(tmp_path, WAITS)
    process = start_python(words, tmp_path, dict(os.environ))
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=0.1)
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    with pytest.raises(subprocess.TimeoutExpired):
        run_python(words, tmp_path, dict(os.environ), timeout=0.1)


def test_a_copy_that_nobody_waited_for_stops_no_later_process(tmp_path: Path) -> None:
    process = start_python(["-c", "import time; time.sleep(600)"], tmp_path, dict(os.environ))
    pid = process.pid
    process._answer.close()  # type: ignore[attr-defined]  # as the garbage collector does in a ring of references
    subprocess._active.append(process)  # type: ignore[attr-defined]
    try:
        assert subprocess.run(["true"]).returncode == 0
        assert process not in subprocess._active  # type: ignore[attr-defined]
    finally:
        os.kill(pid, signal.SIGKILL)
        assert process.stdout is not None
        process.stdout.close()
