"""Load a stored model as MLflow serves it, and check its answer to one window.

A version brings its own code. If that code differs from this package, the model loads in a fresh process: one process
cannot hold two versions of one package. This file is the script of that process, so it imports nothing of the package.
"""

from __future__ import annotations

import filecmp
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd

PACKAGE = Path(__file__).resolve().parents[2]
TIMEOUT_S = 300.0


def find_problem(folder: Path, ohlc: np.ndarray) -> str:
    """Return what is wrong with a stored model's answer to windows, empty if it is sound. Shapes: float64 [N, T, 4]."""
    if _has_this_code(folder / "code" / PACKAGE.name):
        return _ask(folder, ohlc)
    return _ask_in_fresh_process(folder, ohlc)


def _has_this_code(code: Path) -> bool:
    def sources(root: Path) -> list[str]:
        return sorted(str(path.relative_to(root)) for path in root.rglob("*.py"))

    names = sources(PACKAGE)
    return sources(code) == names and not any(filecmp.cmpfiles(code, PACKAGE, names, shallow=False)[1:])


def _ask(folder: Path, ohlc: np.ndarray) -> str:
    try:
        answer = mlflow.pyfunc.load_model(str(folder)).predict(ohlc)
        if isinstance(answer, pd.DataFrame):
            numbers = answer.select_dtypes("number").to_numpy()
            sums_to_one = np.allclose(answer.filter(regex="^p_").to_numpy().sum(1), 1)
            is_sound = len(answer) == len(ohlc) and bool(np.isfinite(numbers).all()) and sums_to_one
        else:
            is_sound = len(answer) == len(ohlc) and bool(np.isfinite(answer).all())
    except Exception as e:  # a stored model's code can raise anything
        return f"{type(e).__name__}: {e}"
    return "" if is_sound else f"it answers {answer!r} to one window"


def _ask_in_fresh_process(folder: Path, ohlc: np.ndarray) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "MLFLOW_RUN_ID")}
    with tempfile.TemporaryDirectory() as scratch:
        np.save(Path(scratch) / "windows.npy", ohlc, allow_pickle=False)
        try:
            done = subprocess.run(
                [sys.executable, __file__, str(folder.resolve()), str(Path(scratch) / "windows.npy")],
                cwd=scratch, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"it gave no answer within {TIMEOUT_S:.0f} seconds"
    if done.returncode == 0:
        return done.stdout.rpartition("ANSWER:")[2].strip()
    return f"its process ended with {done.returncode}: {done.stderr[-500:]}"


if __name__ == "__main__":
    print("ANSWER:" + _ask(Path(sys.argv[1]), np.load(sys.argv[2], allow_pickle=False)))
